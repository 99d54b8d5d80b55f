"""The export gate: may the samples of a class leave, or do they reveal the records behind them?

Per class, in this order: enough training records and holders; no copies (`checks.exact_copies`); samples no nearer to
training records than to others (`copies`), in the records' own space and, if given, in feature space; no
successful membership attack on the generator (`membership`); not made by SMOTE (`smote`); and the power to have noticed
(`power`).
The verdict is per class, because a pooled figure hides a memorised tail. The modules cite their sources.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import DataError
from fedimb.privacy.audit.class_tests import BLIND, ClassDistances, Space, exact_copies, membership_attack, smote_test
from fedimb.privacy.audit.distances import Scale
from fedimb.privacy.audit.moved import MovedSpace
from fedimb.privacy.audit.power import POOL, plant_copies, power
from fedimb.privacy.audit.types import Attack, Audit, Batch, Features, Floats, GateSettings, Ids, State, Verdict

__all__ = ["Attack", "Audit", "Batch", "Features", "GateSettings", "Verdict", "audit"]


def audit(
    synthetic: Batch,
    train: Batch,
    holdout: Batch,
    settings: GateSettings,
    rng: np.random.Generator,
    attack: Attack | None = None,
    holders: NDArray[np.int64] | None = None,
    features: Features | None = None,
) -> Audit:
    """Judge every class of a synthetic batch.

    Args:
        synthetic: the samples to export, [m, *shape].
        train: all training records of the generator, [n, *shape].
        holdout: records of the same source that it did not see, from other patients if patients are named.
        settings: settings of the gate.
        rng: source of randomness, used in the order of class ids.
        attack: scores of records by the generator; None: no membership attack.
        holders: [C] number of sites that hold each class; None: unknown.
        features: a second space for distances, e.g. an encoder's.

    Raises:
        DataError: shapes differ, no training records, or real records that are not finite.
    """
    _check(synthetic, train, holdout)
    scale = Scale.of(np.concatenate([train.x, holdout.x]))
    units = _patients(train, holdout)
    spaces = [Space("", scale, scale(train.x), scale(holdout.x), units)]
    if features is not None:
        spaces.append(_feature_space(features, train, holdout, units))
    moved = MovedSpace(train, holdout, units, rng) if settings.moved and train.x.ndim > 2 else None
    judge = _ClassJudge(train, holdout, settings, rng, attack, holders, spaces, scale, moved)
    return Audit({int(label): judge(synthetic.of(int(label))) for label in np.unique(synthetic.y)})


class _ClassJudge:
    """Judges one class after the other; holds what all classes share."""

    def __init__(
        self,
        train: Batch,
        holdout: Batch,
        settings: GateSettings,
        rng: np.random.Generator,
        attack: Attack | None,
        holders: NDArray[np.int64] | None,
        spaces: list[Space],
        scale: Scale,
        moved: MovedSpace | None,
    ) -> None:
        self.train, self.holdout, self.settings, self.rng = train, holdout, settings, rng
        self.attack, self.holders, self.spaces, self.scale = attack, holders, spaces, scale
        self.moved = moved
        tests = 2 * (len(spaces) + (moved is not None)) + 2 + (2 if attack is not None else 0)
        self.alpha = settings.alpha / tests

    def __call__(self, samples: Batch) -> Verdict:
        label = int(samples.y[0])
        own, other = self.train.of(label), self.holdout.of(label)
        figures, refusals = self._allowed(label, own)
        figures |= {"samples": float(len(samples)), "non_members": float(len(other))}
        broken = int((~np.isfinite(samples.x)).reshape(len(samples), -1).any(1).sum())
        if broken:
            refusals.append(f"{broken} of {len(samples)} samples hold values that are not finite")
        if broken or not len(own):
            return Verdict("refused", tuple(refusals), figures)

        leaks: list[str] = []
        doubts: list[str] = []

        def take(found: tuple[dict[str, float], list[str]]) -> None:
            figures.update(found[0])
            leaks.extend(found[1])

        take(exact_copies(samples, self.spaces[0], self.train, other, self.alpha))
        take(smote_test(samples, own, other, self.alpha, self.rng))
        if figures["smote_control"] > BLIND:
            doubts.append(
                f"{figures['smote_control']:.0%} of the real records lie between two others: SMOTE could not be told"
            )
        near: list[ClassDistances] = []
        if len(other):
            places = np.flatnonzero(self.train.y == label), np.flatnonzero(self.holdout.y == label)
            every: list[Space | MovedSpace] = [*self.spaces]
            every += [] if self.moved is None else [self.moved]
            near = [ClassDistances.of(space, samples.x, *places, self.rng) for space in every]
            for one in near:
                take(one.judge(self.settings, self.alpha))
                figures.update(one.interval(self.settings, self.rng))
            if self.attack is not None:
                scores = self._scores(own, other)
                if np.isfinite(scores).all():
                    members, others = scores[: len(own)], scores[len(own) :]
                    take(membership_attack(members, others, self.settings, self.alpha, self.rng))
                else:
                    doubts.append(
                        "the membership attack gave scores that are not finite: look at the generator's losses"
                    )
        else:
            doubts.append("no holdout record of this class: hold some out from training, or use a cross-audit")
        figures["power"] = math.nan
        if near and not leaks and not refusals:
            figures["power"] = self._power(near, own, label)
            if figures["power"] < self.settings.power:
                doubts.append(
                    f"{self.settings.copied:.0%} planted copies are detected {figures['power']:.0%} of the time, below "
                    f"{self.settings.power:.0%}: give more samples ({len(samples)}) or "
                    f"real records ({len(own)} + {len(other)})"
                )
            if self.moved is not None:
                figures["power_moved"] = self._power_of_moved(near[-1], label)
                if figures["power_moved"] < self.settings.power:
                    doubts.append(
                        f"{self.settings.copied:.0%} planted copies that were shifted, turned or zoomed are detected "
                        f"{figures['power_moved']:.0%} of the time, below {self.settings.power:.0%}: give more real "
                        f"records ({len(own)} + {len(other)})"
                    )
        state: State = "fail" if leaks else "refused" if refusals else "undecidable" if doubts else "pass"
        return Verdict(state, (*leaks, *refusals, *doubts), figures)

    def _allowed(self, label: int, own: Batch) -> tuple[dict[str, float], list[str]]:
        """Whether the class may be exported at all: figures, and reasons against it."""
        known = self.holders is not None and label < len(self.holders)
        held = float(self.holders[label]) if known and self.holders is not None else math.nan
        reasons = []
        if label in self.settings.forced:
            reasons.append("its generator was trained with too few rows (forced): such samples never leave")
        if own.count() < self.settings.min_count:
            what = "records" if own.units is None else "patients"
            reasons.append(f"{own.count()} training {what}, fewer than min_count={self.settings.min_count}")
        if self.settings.min_holders > 1 and not held >= self.settings.min_holders:
            said = "an unknown number of" if math.isnan(held) else f"{held:.0f}"
            reasons.append(f"{said} sites hold it, fewer than min_holders={self.settings.min_holders}")
        return {"count": float(own.count()), "holders": held}, reasons

    def _scores(self, own: Batch, other: Batch) -> Floats:
        """[n + m] scores, computed in one call, so that only the records distinguish members from others."""
        assert self.attack is not None
        x, y = np.concatenate([own.x, other.x]), np.concatenate([own.y, other.y])
        d = np.concatenate([np.zeros(len(b), np.int64) if b.d is None else b.d for b in (own, other)])
        scores = np.asarray(self.attack(x, y, d), np.float64)
        if scores.shape != (len(x),):
            raise DataError(
                f"the membership attack gave scores {list(scores.shape)} for {len(x)} records: return one each"
            )
        return scores

    def _power(self, near: list[ClassDistances], own: Batch, label: int) -> float:
        count = max(1, round(self.settings.copied * len(near[0].close)))
        places = np.flatnonzero(self.train.y == label), np.flatnonzero(self.holdout.y == label)
        moved = plant_copies(own, self.spaces[0], self.scale, places[1], count, self.settings, self.rng)
        pool = [ClassDistances.of(one.space, moved, *places, self.rng) for one in near]
        return power(near, pool, self.settings, self.alpha, self.rng)

    def _power_of_moved(self, near: ClassDistances, label: int) -> float:
        assert self.moved is not None
        places = np.flatnonzero(self.train.y == label), np.flatnonzero(self.holdout.y == label)
        count = max(POOL, round(self.settings.copied * len(near.close)))
        planted = self.moved.planted(*places, count, self.settings.near, self.rng)
        return power(
            [near], [ClassDistances.measured(self.moved, *planted, self.rng)], self.settings, self.alpha, self.rng
        )


def _patients(train: Batch, holdout: Batch) -> tuple[Ids, Ids]:
    """Patient ids of both; a record without one counts as its own patient."""
    named = [batch.units for batch in (train, holdout) if batch.units is not None and len(batch)]
    free = 1 + max((int(units.max()) for units in named), default=-1)
    own = free + np.arange(len(train) + len(holdout))
    return (
        own[: len(train)] if train.units is None else train.units,
        own[len(train) :] if holdout.units is None else holdout.units,
    )


def _feature_space(features: Features, train: Batch, holdout: Batch, units: tuple[Ids, Ids]) -> Space:
    seen = np.asarray(features(np.concatenate([train.x, holdout.x])), np.float64)
    if not np.isfinite(seen).all():
        raise DataError("the features of real records are not finite; fix the encoder or leave features out")
    scale = Scale.of(seen)
    known, others = scale(seen[: len(train)]), scale(seen[len(train) :])
    return Space("features", lambda x: scale(features(x)), known, others, units)


def _check(synthetic: Batch, train: Batch, holdout: Batch) -> None:
    if not len(train):
        raise DataError("export gate: no training records; give the records the generator was trained on")
    for name, batch in (("train", train), ("holdout", holdout)):
        if batch.x.shape[1:] != synthetic.x.shape[1:]:
            raise DataError(
                f"export gate: {name} records have shape {list(batch.x.shape[1:])}, samples "
                f"{list(synthetic.x.shape[1:])}; give both as models see them"
            )
        if not np.isfinite(batch.x).all():
            raise DataError(
                f"export gate: {name} holds values that are not finite; give the records as models see them"
            )
