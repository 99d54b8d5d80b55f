"""Classes from the largest to the smallest, per seed: with seeded ranks a class is large in one seed, rare in another.

If ranks differ between seeds, means over seeds are therefore by rank (largest class, second largest, ...), not by
class.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.report.html.numbers import Row
from fedimb.study.results import Result, Setting

MOST_COLUMNS = 20


@dataclass(frozen=True)
class Ranks:
    """The classes of a setting, from the largest (head) to the smallest (tail).

    Attributes:
        orders: seed -> class ids [C], head to tail; a seed with an unknown order is absent.
        moved: whether orders differ between seeds.
        names: heading of each rank [C]: the class's name, or the rank itself if orders differ.
        rare: whether a rank belongs to the minority [C].
        train: training rows of each rank [C], for the first seed.
    """

    orders: Mapping[int, NDArray[np.int64]]
    moved: bool
    names: tuple[str, ...]
    rare: tuple[bool, ...]
    train: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)


def partition_of(folder: Path) -> dict[str, object]:
    """``partition.json`` of a run folder; empty if it is missing, e.g. after a clean-up."""
    try:
        facts = json.loads((folder / "partition.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def ranks_of(setting: Setting, rows: Sequence[Row]) -> Ranks:
    """Head-to-tail orders from the run folders; the setting's order is used for all seeds if no folder differs."""
    default = head_to_tail(setting.train_counts)
    known: dict[int, NDArray[np.int64]] = {}
    seeds = sorted({r.seed for row in rows for r in row.results})
    for result in (r for row in rows for r in row.finished if r.folder is not None):
        if result.seed not in known:
            facts = partition_of(Path(str(result.folder)))
            counts = np.asarray(facts["counts"] if "counts" in facts else [facts.get("class_totals", [])])
            if counts.ndim == 2 and counts.shape[1] == len(setting.class_names):
                known[result.seed] = head_to_tail(counts.sum(axis=0))
    moved = any((order != default).any() for order in known.values())
    if not moved:
        known = dict.fromkeys(seeds, default)
    names = [setting.class_names[c] for c in default]
    if moved:
        names = [str(i + 1) for i in range(len(default))]
    rare = tuple(int(c) in set(setting.minority) for c in default)
    train = tuple(int(n) for n in np.asarray(setting.train_counts)[default])
    return Ranks(known, moved, tuple(names), rare, train)


def recalls(row: Row, ranks: Ranks) -> NDArray[np.float64]:
    """Recall by rank, [seeds, C], of the finished runs with a known order."""
    found = [np.asarray(r.recall, np.float64)[ranks.orders[r.seed]] for r in usable(row, ranks) if len(r.recall)]
    return np.stack(found) if found else np.empty((0, len(ranks)))


def matrix(row: Row, ranks: Ranks) -> NDArray[Any] | None:
    """Confusion matrices of the finished runs, by rank, summed over seeds: [C, C] or [C, 2, 2]; None if none.

    int64, or float64 where the means over sites' own models are summed.
    """
    total = None
    for result in usable(row, ranks):
        if result.matrix is not None:
            order = ranks.orders[result.seed]
            one = result.matrix[order] if result.matrix.ndim == 3 else result.matrix[np.ix_(order, order)]
            total = one.copy() if total is None else total + one
    return total


def usable(row: Row, ranks: Ranks) -> list[Result]:
    """Finished runs whose head-to-tail order is known."""
    return [r for r in row.finished if r.seed in ranks.orders]


def columns(n_classes: int, most: int = MOST_COLUMNS) -> list[NDArray[np.int64]]:
    """Ranks per column: one each, or neighbours combined if there are too many to show."""
    return np.array_split(np.arange(n_classes), min(n_classes, most)) if n_classes else []


def head_to_tail(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Class ids [C] from most to fewest rows, ties by id."""
    return np.argsort(-np.asarray(counts), kind="stable")
