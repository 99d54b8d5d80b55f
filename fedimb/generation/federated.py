"""One generator averaged over sites: which rows of its state go where, which classes teach it, how it is drawn from.

A generator's state holds a row per class and per domain (`Generator.class_rows`, `Generator.domain_rows`); with a
class's row and the rest of the weights anybody can draw that class. So a site receives the rows of classes it has
taught, and of the others those that everybody can compute from the run's seed. The rest of the weights is shared.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedimb.generation.base import Generator
from fedimb.generation.examples import Examples
from fedimb.generation.sharing_plan import cells
from fedimb.generation.transport import concatenate_samples
from fedimb.privacy.audit.class_tests import membership_attack
from fedimb.privacy.audit.types import Attack, Batch, Floats, GateSettings
from fedimb.records import Arrays
from fedimb.seeds import Stream, seed_int

LEAST_VOTED = 200
"""Samples of a class that a site judges at least: of fewer the export gate notices too little."""

MEASURED = ("members", "non_members", "auc", "auc_low", "auc_high", "tpr_1fpr", "given_away")
"""Columns of `weight_leakage`."""
MOST_ATTACKED = 100
"""Rows of a class, and as many that did not teach, that the attack on the weights asks about at most."""


@dataclass(frozen=True)
class RowsByGroup:
    """Which entries of a generator's state have a row per class or per domain, and their initial values.

    Attributes:
        initial: the state before any training, the same at everybody.
        classes, domains: `Generator.class_rows` and `Generator.domain_rows`.
    """

    initial: Arrays
    classes: Mapping[str, int]
    domains: Mapping[str, int]

    @staticmethod
    def of(untrained: Generator) -> "RowsByGroup":
        """From a generator just built, with its scale set."""
        return RowsByGroup(state_of(untrained), untrained.class_rows(), untrained.domain_rows())

    def only(self, state: Arrays, classes: NDArray[np.bool_], domains: NDArray[np.bool_]) -> Arrays:
        """The state with the rows of all other classes [C] and domains [D] as they were initially."""
        found = dict(state)
        for rows, kept in ((self.classes, classes), (self.domains, domains)):
            for name in rows:
                found[name] = found[name].copy()
                found[name][: len(kept)][~kept] = self.initial[name][: len(kept)][~kept]
        if "cell_seen" in found:  # of a class's row, which domains hold it
            found["cell_seen"][:, : len(domains)][:, ~domains] = self.initial["cell_seen"][:, : len(domains)][
                :, ~domains
            ]
        return found


def state_of(generator: Generator) -> Arrays:
    """A generator's state as arrays, on the CPU."""
    return {name: value.detach().cpu().numpy().copy() for name, value in generator.state_dict().items()}


def load_into(generator: Generator, state: Arrays) -> Generator:
    """The same generator with this state."""
    generator.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    return generator


def teaching_classes(learned: Batch, n_classes: int, least: int) -> NDArray[np.bool_]:
    """[C]: which classes have at least ``least`` rows (patients, where they are named) to teach a generator."""
    return np.array([learned.of(label).count() >= max(1, least) for label in range(n_classes)])


def sample_seed(run_seed: int, label: int) -> int:
    """Seed of a class's samples: nobody may choose it, so it follows from the run's."""
    return seed_int(run_seed, Stream.METHOD, 2, label)


def at_least(sizes: NDArray[np.int64], least: int = LEAST_VOTED) -> NDArray[np.int64]:
    """Samples per class and device [C, D], with at least ``least`` of every class that has any, in like proportions."""
    total = sizes.sum(axis=1, keepdims=True)
    few = (total > 0) & (total < least)
    raised = np.ceil(sizes * least / np.maximum(total, 1)).astype(np.int64)
    return np.where(few, raised, sizes)


def draw_by_class(
    generator: Generator, sizes: NDArray[np.int64], seed: Callable[[int], int], progress: Callable[[int], None]
) -> Examples:
    """Draw samples of each class and device [C, D] with a random generator per class.

    So two holders of the same weights get the same samples of a class, whatever other classes either can draw (up to
    rounding: another processor adds up in another order).

    Args:
        seed: class -> seed of its draws.
    """
    parts = []
    for label in np.flatnonzero(sizes.sum(axis=1)):
        only = np.zeros_like(sizes)
        only[label] = sizes[label]
        y, d = cells(only)
        x = generator.sample(y, d, torch.Generator().manual_seed(seed(int(label))), progress)
        parts.append(Examples(x, y, d))
    empty = Examples(torch.zeros((0, *generator.shape)), *cells(np.zeros_like(sizes)))
    return concatenate_samples([empty, *parts])


def weight_leakage(
    attack: Attack, rows: Batch, others: Batch, n_classes: int, settings: GateSettings, alpha: float, seed: int
) -> Floats:
    """How well an attack on the weights tells rows that taught them from others: [C, 7], columns `MEASURED`.

    NaN for a class that did not teach. ``given_away`` is 1 where the gate's own test of membership finds a leak
    (`fedimb.privacy.audit.class_tests.membership_attack`), and where nothing can be measured: no other rows, or scores
    that are not finite.

    Args:
        rows: those that taught; at most 100 of a class are asked about.
        others: rows of the same source that did not.
        settings: of the gate.
        alpha: level of each of the two tests of a class.
        seed: of the rows asked about and of the intervals.
    """
    found = np.full((n_classes, len(MEASURED)), np.nan)
    for label in np.unique(rows.y):
        rng = np.random.default_rng([seed, int(label)])
        sides = [batch.of(int(label)) for batch in (rows, others)]
        own, other = (side.cut(np.sort(rng.permutation(len(side))[:MOST_ATTACKED])) for side in sides)
        line = [float(len(own)), float(len(other)), np.nan, np.nan, np.nan, np.nan, 1.0]
        both = own.joined(other)
        devices = np.zeros_like(both.y) if both.d is None else both.d
        scores = np.asarray(attack(both.x, both.y, devices), np.float64)
        if len(other) and np.isfinite(scores).all():
            figures, reasons = membership_attack(scores[: len(own)], scores[len(own) :], settings, alpha, rng)
            named = ("mia_auc", "mia_auc_low", "mia_auc_high", "mia_tpr_1fpr")
            line[2:] = [*(figures[name] for name in named), float(bool(reasons))]
        found[label] = line
    return found
