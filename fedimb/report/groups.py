"""Groups the runs of a study by row label; failed and diverged runs are counted, not dropped.

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

    Attributes:
        label: row label.
        seed: run seed.
        metrics: for a finished run at least the keys of `QUALITIES` (final round or last-k mean, never the best round).
        bytes: up + down over the whole run.
        seconds: wall time.
        status: ``finished`` (the default), ``diverged`` or ``failed``.
        suspect: why a finished run should not be trusted, or empty.
    """

    label: str
    seed: int
    metrics: Mapping[str, float]
    bytes: int
    seconds: float
    status: NotRequired[str]
    suspect: NotRequired[str]


@dataclass
class Group:
    """The runs of one label: the finished ones, and the seeds of the others."""

    label: str
    finished: list[RunRow] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    diverged: list[int] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """Number of runs, with or without a result."""
        return len(self.finished) + len(self.failed) + len(self.diverged)

    @property
    def complete(self) -> bool:
        """Whether every run has a result, so that the mean is over all seeds and not only the lucky ones."""
        return len(self.finished) == self.runs

    def interval(self, metric: str, level: float = 0.95) -> tuple[float, float, float]:
        """(mean, low, high) over the runs with a result; NaN if one of them lacks the score."""
        return t_interval([float(row["metrics"].get(metric, math.nan)) for row in self.finished], level)

    def mean(self, key: str) -> float:
        """Mean of ``bytes`` or ``seconds`` over the runs with a result; NaN if there is none."""
        values = [float(row[key]) for row in self.finished]  # type: ignore[literal-required]
        return sum(values) / len(values) if values else math.nan

    @property
    def suspect(self) -> str:
        """Finished runs that should not be trusted as text, ``"2 of 5 runs (seeds 1, 3): why"``, or empty."""
        return suspect_runs({int(row["seed"]): row.get("suspect", "") for row in self.finished})

    @property
    def trouble(self) -> str:
        """Runs without a result as text, ``"1 failed (seed 2), 1 diverged (seed 5)"``, or empty."""
        parts = []
        for what, seeds in (("failed", self.failed), ("diverged", self.diverged)):
            if seeds:
                word = "seed" if len(seeds) == 1 else "seeds"
                parts.append(f"{len(seeds)} {what} ({word} {', '.join(map(str, sorted(seeds)))})")
        return ", ".join(parts)


def suspect_runs(by_seed: Mapping[int, str]) -> str:
    """The finished runs of a row (seed -> why it is suspect, or empty) as text: how many, which, and why."""
    found = {seed: why for seed, why in sorted(by_seed.items()) if why}
    if not found:
        return ""
    seeds = f"seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"
    return f"{len(found)} of {len(by_seed)} runs ({seeds}): {'; '.join(dict.fromkeys(found.values()))}"


def group_rows(rows: Iterable[RunRow]) -> list[Group]:
    """Group runs by label, in order of first appearance.

    A run with status ``finished`` whose macro recall is NaN or infinite counts as diverged.

    Raises:
        ValueError: an unknown status, or two results for one label and seed (the interval would treat one seed as two
            independent ones).
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
