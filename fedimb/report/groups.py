"""Runs of a study gathered by row label, with nothing dropped: failed and diverged runs are counted.

Tables and plots both read `Group`, so they cannot disagree on what a mean is over.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from fedimb.evaluation.intervals import t_interval

QUALITIES = {
    "macro_recall": "macro recall",
    "minority_recall": "minority recall",
    "min_class_recall": "min-class recall",
}


class RunRow(TypedDict):
    """One run of a comparison.

    ``metrics`` holds at least the keys of `QUALITIES` for a finished run (final round or last-k mean, never
    the best round); ``bytes`` is up + down over the whole run; ``seconds`` is wall time; ``status`` is
    ``finished`` (the default), ``diverged`` or ``failed``.
    """

    label: str
    seed: int
    metrics: Mapping[str, float]
    bytes: int
    seconds: float
    status: NotRequired[str]


@dataclass
class Group:
    """The runs of one label: those with a result, and the seeds of those without."""

    label: str
    finished: list[RunRow] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    diverged: list[int] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """All runs, with a result or not."""
        return len(self.finished) + len(self.failed) + len(self.diverged)

    @property
    def complete(self) -> bool:
        """Every run has a result, so the mean is over all seeds and not over the lucky ones."""
        return len(self.finished) == self.runs

    def interval(self, metric: str, level: float = 0.95) -> tuple[float, float, float]:
        """(mean, low, high) over the runs with a result; NaN when one of them has no such score."""
        return t_interval([float(row["metrics"].get(metric, math.nan)) for row in self.finished], level)

    def mean(self, key: str) -> float:
        """Mean of ``bytes`` or ``seconds`` over the runs with a result; NaN when there is none."""
        values = [float(row[key]) for row in self.finished]  # type: ignore[literal-required]
        return sum(values) / len(values) if values else math.nan

    @property
    def trouble(self) -> str:
        """``"1 failed (seed 2), 1 diverged (seed 5)"``, or empty."""
        parts = []
        for what, seeds in (("failed", self.failed), ("diverged", self.diverged)):
            if seeds:
                word = "seed" if len(seeds) == 1 else "seeds"
                parts.append(f"{len(seeds)} {what} ({word} {', '.join(map(str, sorted(seeds)))})")
        return ", ".join(parts)


def group_rows(rows: Iterable[RunRow]) -> list[Group]:
    """Gather runs by label, in the order labels are first seen.

    A run that says ``finished`` but whose macro recall is NaN or infinite counts as diverged.

    Raises:
        ValueError: an unknown status, or two results for one label and seed (the interval would take one seed
            for two independent ones).
    """
    groups: dict[str, Group] = {}
    for row in rows:
        group = groups.setdefault(row["label"], Group(row["label"]))
        status = row.get("status", "finished")
        if status not in ("finished", "diverged", "failed"):
            raise ValueError(
                f"run '{row['label']}' seed {row['seed']} has status '{status}', "
                "which is not finished, diverged or failed"
            )
        if status == "failed":
            group.failed.append(row["seed"])
        elif status == "diverged" or not math.isfinite(row["metrics"].get("macro_recall", math.nan)):
            group.diverged.append(row["seed"])
        elif any(other["seed"] == row["seed"] for other in group.finished):
            raise ValueError(f"two results for '{row['label']}' seed {row['seed']}: pass one run per label and seed")
        else:
            group.finished.append(row)
    return list(groups.values())
