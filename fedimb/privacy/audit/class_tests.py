"""The tests of one class: figures, and a reason for each test that found something."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.privacy.audit import copies, membership, smote
from fedimb.privacy.audit.distances import flatten, nearest_records, rounding_tolerance, squared_distances
from fedimb.privacy.audit.moved import MovedSpace
from fedimb.privacy.audit.types import Batch, Floats, GateSettings, Ids

BLIND = 0.2
"""If a larger share of real records lies between two others, SMOTE samples cannot be told from them."""

TestResult = tuple[dict[str, float], list[str]]


@dataclass(frozen=True, eq=False)
class Space:
    """A space in which distances are measured: the records themselves, or features of them; standardised.

    Attributes:
        name: prefix of its figures; empty for the records themselves.
        to: maps records [n, *shape] into the space, [n, F].
        train, holdout: all real records in the space, of every class.
        units: patient ids of train and of holdout; one per record if none are named.
    """

    name: str
    to: Callable[[NDArray[Any]], Floats]
    train: Floats
    holdout: Floats
    units: tuple[Ids, Ids]

    def measure(
        self, samples: NDArray[Any], train: Ids, holdout: Ids, rng: np.random.Generator
    ) -> tuple[copies.Neighbours, Floats, Floats]:
        """(neighbours, closeness of the samples [m], closeness of the class's real records).

        Neighbours are of the class, at these positions in train and holdout; closeness is to records of every class.
        """
        points, others = self.to(samples), self.holdout[holdout]
        real = np.concatenate([self.train[train], others])
        patients = np.concatenate([self.units[0][train], self.units[1][holdout]])
        neighbours = copies.Neighbours.of(points, self.train[train], others, rng)
        return neighbours, self.closeness(points), self.closeness(real, patients)

    def closeness(self, points: Floats, patients: Ids | None = None) -> Floats:
        """[n]: see `copies.closeness`. ``patients``: of the points; a patient's own records are skipped."""
        both = ((self.train, self.units[0]), (self.holdout, self.units[1]))
        apart = (
            nearest_records(points, records, None if patients is None else (patients, own))[0] for records, own in both
        )
        return copies.closeness(*apart)


@dataclass(frozen=True, eq=False)
class ClassDistances:
    """Distances of one class's samples in one space, and the tests of whether they are too small."""

    space: Space | MovedSpace
    neighbours: copies.Neighbours
    close: Floats
    controls: Floats
    deals: NDArray[np.float32]

    @staticmethod
    def of(
        space: Space | MovedSpace, samples: NDArray[Any], train: Ids, holdout: Ids, rng: np.random.Generator
    ) -> "ClassDistances":
        """From a class's samples [m, *shape] and its positions (at least one) in the space's train and holdout."""
        return ClassDistances.measured(space, *space.measure(samples, train, holdout, rng), rng)

    @staticmethod
    def measured(
        space: Space | MovedSpace,
        neighbours: copies.Neighbours,
        close: Floats,
        controls: Floats,
        rng: np.random.Generator,
    ) -> "ClassDistances":
        """From what `Space.measure` gives."""
        deals = copies.random_deals(neighbours.train, neighbours.holdout, rng)
        return ClassDistances(space, neighbours, close, controls, deals)

    def with_samples(self, rows: Ids, other: "ClassDistances", from_rows: Ids) -> "ClassDistances":
        """With the samples ``rows`` replaced by samples of ``other``, of the same class and space."""
        close = self.close.copy()
        close[rows] = other.close[from_rows]
        neighbours = self.neighbours.planted(rows, other.neighbours, from_rows)
        return ClassDistances(self.space, neighbours, close, self.controls, self.deals)

    def judge(self, settings: GateSettings, alpha: float) -> TestResult:
        """Run both tests, without intervals."""
        where = f" ({self.space.name})" if self.space.name else ""
        p, excess = copies.nearest_p(self.neighbours, self.deals), copies.nearest_excess(self.neighbours)
        near, near_p = copies.near_copies(self.close, self.controls)
        reasons = []
        if p <= alpha and excess >= settings.copied / 2:
            share = (self.neighbours.order[:, 0] < self.neighbours.train).mean()
            reasons.append(f"nearest real record is a training record for {share:.0%} of the samples, p {p:.2g}{where}")
        if near_p <= alpha:
            reasons.append(f"{int(near.sum())} of {len(near)} samples are near copies, p {near_p:.2g}{where}")
        figures = {"nearest_p": p, "near_copy_rate": float(near.mean()), "near_copy_p": near_p}
        return self._named(figures), reasons

    def interval(self, settings: GateSettings, rng: np.random.Generator) -> dict[str, float]:
        """The nearest-record ratio and its interval."""
        values = copies.nearest_ratio(self.neighbours, settings.bootstrap, rng)
        return self._named(dict(zip(("nearest_ratio", "nearest_ratio_low", "nearest_ratio_high"), values, strict=True)))

    def _named(self, figures: dict[str, float]) -> dict[str, float]:
        return {f"{self.space.name}_{name}" if self.space.name else name: v for name, v in figures.items()}


def exact_copies(samples: Batch, space: Space, train: Batch, holdout: Batch, alpha: float) -> TestResult:
    """Samples that equal a training record of any class up to rounding; a single one fails the test.

    Args:
        samples, holdout: of one class; train: of every class.

    If holdout records also equal training records (few coarse columns), the test compares the two rates instead.
    """
    from scipy.stats import fisher_exact

    def equal(batch: Batch) -> int:
        if not len(batch):
            return 0
        _, own = nearest_records(space.to(batch.x), space.train)
        return int((np.abs(flatten(batch.x) - flatten(train.x)[own]) <= tolerance).all(1).sum())

    tolerance = rounding_tolerance(samples.x, np.concatenate([train.of(int(samples.y[0])).x, holdout.x]))
    count, usual = equal(samples), equal(holdout)
    table = [[count, len(samples) - count], [usual, len(holdout) - usual]]
    found = count > 0 and (usual == 0 or fisher_exact(table, "greater").pvalue <= alpha)
    figures = {"copies": float(count), "copies_holdout": float(usual)}
    return figures, [f"{count} of {len(samples)} samples equal a training record"] if found else []


def smote_test(samples: Batch, train: Batch, holdout: Batch, alpha: float, rng: np.random.Generator) -> TestResult:
    """DistinSMOTE and ReconSMOTE on one class; ``smote_control``: the share of real records flagged the same way."""
    from scipy.stats import fisher_exact

    unit = rounding_tolerance(samples.x, np.concatenate([train.x, holdout.x]))
    made, known, others = (flatten(batch.x) / unit for batch in (samples, train, holdout))
    between = smote.lies_between(made, known)
    usual = np.concatenate([smote.lies_between(known, known, same=True), smote.lies_between(others, known)])
    p = fisher_exact([_split(between), _split(usual)], "greater").pvalue
    apart = np.sqrt(squared_distances(others, known).min(1)) if len(others) and len(known) else np.zeros(0)
    within = 4 * made.shape[1] ** 0.5 + (0.02 * float(np.median(apart)) if len(apart) else 0.0)
    claimed = smote.reconstruct(made, rng)
    again, chance = smote.match_records(claimed, known, within), smote.match_records(claimed, others, within)
    again_p = fisher_exact([_split(again), _split(chance)], "greater").pvalue if len(others) else float("nan")
    figures = {
        "smote_share": float(between.mean()),
        "smote_control": float(usual.mean()),
        "smote_p": float(p),
        "smote_reconstructed": float(again.sum()),
        "smote_reconstructed_p": float(again_p),
    }
    reasons = []
    if p <= alpha:
        reasons.append(
            f"{int(between.sum())} of {len(between)} samples lie between two training records, as SMOTE's do"
        )
    if again_p <= alpha:
        reasons.append(f"{int(again.sum())} training records can be reconstructed from the samples alone (SMOTE)")
    return figures, reasons


def membership_attack(
    members: Floats, others: Floats, settings: GateSettings, alpha: float, rng: np.random.Generator
) -> TestResult:
    """The membership attack; fails if a bound exceeds its null by half of what knowing ``copied`` members would add."""
    area, rate = membership.attack_figures(members, others, alpha, settings.bootstrap, rng)
    figures = {
        "mia_auc": area.value,
        "mia_auc_low": area.low,
        "mia_auc_high": area.high,
        "mia_tpr_1fpr": rate.value,
        "mia_tpr_1fpr_low": rate.low,
        "mia_tpr_1fpr_high": rate.high,
    }
    reasons = []
    if area.p <= alpha and area.bound > 0.5 + settings.copied / 4:
        reasons.append(f"membership attack: AUC {area.value:.2f}, at least {area.bound:.2f}")
    if rate.p <= alpha and rate.bound > membership.FPR + settings.copied / 2:
        reasons.append(f"membership attack: knows {rate.value:.0%} of the members at 1 % false alarms")
    return figures, reasons


def _split(hits: NDArray[np.bool_]) -> list[int]:
    return [int(hits.sum()), int((~hits).sum())]
