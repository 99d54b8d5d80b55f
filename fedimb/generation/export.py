"""What happens to samples at a site before they leave: the export gate and, if a person decides, the outbox.

Each class's rows are split by patient: the generator learns from one part, the gate compares with the other
(`fedimb.privacy.audit`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.contracts.fedssg import Mode
from fedimb.data.split import split_fraction
from fedimb.data.store import Store
from fedimb.encoders.embed import open_encoder
from fedimb.errors import ConfigError
from fedimb.generation.base import Generator
from fedimb.generation.examples import Examples
from fedimb.generation.generator_cache import GeneratorCache, GeneratorConfig
from fedimb.generation.outbox.box import RELEASED, WAITING, Outbox
from fedimb.generation.transport import select_samples
from fedimb.plain import JsonObject
from fedimb.privacy.audit.crossed import cross_audit
from fedimb.privacy.audit.gate import audit
from fedimb.privacy.audit.types import Audit, Batch, Features, GateSettings

LEVELS = (0.2, 0.4, 0.6)
"""Noise levels of the membership attack; at these the generator neither copies its input nor guesses."""


@dataclass(frozen=True, eq=False)
class HoldoutSplit:
    """A site's rows in two parts.

    Attributes:
        learned: the generator learns from these.
        kept: held out; the gate compares with these.
    """

    learned: Batch
    kept: Batch


def encoder_features(encoder: Mapping[str, Any], store: Store) -> Features | None:
    """The features ``{name: ..., **arguments}`` in which the gate measures distances too; None without an encoder.

    Raises:
        ConfigError: an encoder that reads no images or rows but looks them up, or see `open_encoder`.
        DataError: see `open_encoder`.
    """
    if not encoder:
        return None
    opened = open_encoder(encoder, store)
    if opened.uses_model or opened.by_row:
        raise ConfigError(
            f"strategy.fedssg.encoder: '{encoder['name']}' cannot embed a sample, which is no row of the data: use "
            "random_conv, pca, or an encoder of pretrained weights"
        )
    return lambda x: opened.encode(torch.from_numpy(np.ascontiguousarray(x, np.float32))).numpy()


def split_holdout(
    x: Tensor, y: Tensor, d: Tensor, units: NDArray[np.int64] | None, share: float, seed: int
) -> HoldoutSplit:
    """Hold out about ``share`` of each class, by whole patients, never a class's last row."""
    labels, rows = y.numpy(), np.arange(len(y))
    learned, kept = split_fraction(rows, labels, share, np.random.default_rng(seed), units)

    def batch(part: NDArray[np.int64]) -> Batch:
        own = None if units is None else np.asarray(units)[part]
        return Batch(x[torch.from_numpy(part)].numpy(), labels[part], d.numpy()[part], own)

    return HoldoutSplit(batch(learned), batch(kept))


def as_examples(batch: Batch) -> Examples:
    """A batch as tensors."""
    d = np.zeros_like(batch.y) if batch.d is None else batch.d
    return Examples(torch.from_numpy(batch.x), torch.from_numpy(batch.y), torch.from_numpy(d))


def as_batch(samples: Examples) -> Batch:
    """Samples in the format of the gate."""
    return Batch(samples.x.numpy(), samples.y.numpy(), samples.d.numpy())


def without_holdout(rows: HoldoutSplit) -> HoldoutSplit:
    """Move all rows to the learning part: for a cross-audit, which makes its own halves."""
    return HoldoutSplit(rows.learned.joined(rows.kept), rows.kept.cut(np.zeros(0, np.int64)))


class MembershipAttack:
    """A membership attack by the generator's own losses: it denoises a record it was trained on better.

    The score is the negative mean loss over fixed noise levels, with noise from one seed for every batch of records.
    """

    def __init__(self, generator: Generator, seed: int) -> None:
        self.generator, self.seed = generator, seed

    def __call__(self, x: NDArray[np.generic], y: NDArray[np.int64], d: NDArray[np.int64]) -> NDArray[np.generic]:
        """[n] negative losses."""
        rows = [torch.from_numpy(np.ascontiguousarray(part)) for part in (x, y, d)]
        total = torch.zeros(len(x))
        with torch.no_grad():
            for level in LEVELS:
                noise = torch.Generator().manual_seed(self.seed)
                total += self.generator.losses_at(rows[0], rows[1], rows[2], level, noise).cpu()
        return -total.numpy() / len(LEVELS)


@dataclass(frozen=True, eq=False)
class ExportResult:
    """What may leave the site.

    Attributes:
        samples: those of the classes that may leave now.
        verdicts: [C] int32: 1 may leave, 0 may not, -1 no samples.
        waiting: whether a person must still decide about some class.
        batch: the id in the outbox; None if it did not go through one.
    """

    samples: Examples
    verdicts: NDArray[np.int32]
    waiting: bool
    batch: str | None = None


@dataclass(frozen=True, eq=False)
class SampleAuditor:
    """Audits samples against a site's rows.

    Attributes:
        rows: the site's own rows.
        generator: the generator to attack; None if there is none.
        holders: [C] number of sites that hold each class.
        config: of the generators that a cross-audit trains on each half of the rows; None: no cross-audit.
        features: an encoder's, a further space of distances; None: none.
    """

    rows: HoldoutSplit
    generator: Generator | None
    holders: NDArray[np.int64]
    config: GeneratorConfig | None = None
    features: Features | None = None

    def audit(self, samples: Examples, gate: GateSettings, seed: int) -> Audit:
        """Verdicts by class."""
        rng = np.random.default_rng(seed)
        if self.config is not None:
            asked, trained = samples.y.numpy(), self._trained
            return cross_audit(self.rows.learned, trained, asked, gate, rng, self.holders, self.features)[0]
        attack = (
            MembershipAttack(self.generator, seed) if self.generator is not None and self.generator.trainable else None
        )
        rows = self.rows
        return audit(as_batch(samples), rows.learned, rows.kept, gate, rng, attack, self.holders, self.features)

    def _trained(self, half: Batch) -> tuple[Callable[[NDArray[np.int64]], NDArray[np.generic]], MembershipAttack]:
        assert self.config is not None
        cache = GeneratorCache(self.config, as_examples(half))
        devices = np.zeros_like(half.y) if half.d is None else half.d

        def sampler(labels: NDArray[np.int64]) -> NDArray[Any]:
            d = np.random.default_rng(self.config.seed).choice(devices, len(labels))  # type: ignore[union-attr]
            made = cache.samples(torch.from_numpy(labels), torch.from_numpy(d), self.config.seed)  # type: ignore[union-attr]
            return made.numpy()

        return sampler, MembershipAttack(cache.generator, self.config.seed)


def apply_export_gate(
    samples: Examples,
    judged: SampleAuditor,
    gate: GateSettings,
    mode: Mode,
    outbox: Path | None,
    about: JsonObject,
    n_classes: int,
    seed: int,
) -> tuple[ExportResult, Audit | None]:
    """Audit samples and select those that may leave now.

    Args:
        samples: the generator's samples.
        judged: the auditor.
        gate: when a class may leave.
        mode: ``enforce``; ``report``: audit, but let everything leave; ``off``: everything leaves without an audit.
        outbox: folder in which a person releases what passed; None: what passed leaves.
        about: stored with the batch in the outbox.
        n_classes: C.
        seed: of the bootstrap and the attack.
    """
    verdicts = np.full(n_classes, -1, np.int32)
    present = np.unique(samples.y.numpy())
    verdicts[present] = 1
    if mode == "off" or not len(present):
        return ExportResult(samples, verdicts, False), None
    found = judged.audit(samples, gate, seed)
    if mode == "report":
        return ExportResult(samples, verdicts, False), found
    verdicts[present] = np.isin(present, found.passed).astype(np.int32)
    passed = select_samples(samples, torch.from_numpy(np.isin(samples.y.numpy(), found.passed)))
    if outbox is None or not len(passed.y):
        return ExportResult(passed, verdicts, False), found
    box = Outbox(outbox)
    batch = box.put(as_batch(samples), found, about, judged.rows.learned)
    states = box.state(batch)
    for label, state in states.items():
        verdicts[label] = int(state == RELEASED)
    released = as_examples(box.released(batch))
    return ExportResult(released, verdicts, WAITING in states.values(), batch), found


def with_forced_classes(gate: GateSettings, classes: list[int]) -> GateSettings:
    """Add classes whose training was forced below the minimum size to the gate settings: they never leave."""
    return replace(gate, forced=tuple(sorted({*gate.forced, *classes})))
