"""The figures of a row in a setting: its runs, means over seeds, differences from the control.

A mean is over the finished runs, which is noted if some are missing; only rows with all runs finished are compared.
"""

import math
from dataclasses import dataclass

from fedimb.evaluation.intervals import t_interval
from fedimb.report.groups import suspect_runs
from fedimb.study.references import is_free
from fedimb.study.results import COLUMNS, LOWER_IS_BETTER, Result, StudyResults

HEADLINE = "minority_recall"
COSTS = ("labels", "up_bytes", "down_bytes", "client_seconds", "steps", "server_steps")
_MEGA = ("up_bytes", "down_bytes")


@dataclass(frozen=True)
class Mean:
    """Mean over seeds with half the width of the 95 % t interval; NaN if undefined (the half also with one seed)."""

    value: float
    half: float
    seeds: int


@dataclass(frozen=True)
class Row:
    """One row in one setting; ``number`` is its position in the study, the same everywhere on the page."""

    number: int
    label: str
    results: tuple[Result, ...]
    control: bool = False
    bound: bool = False  # of all classes at once beside rows by phases: no rival of these

    @property
    def finished(self) -> list[Result]:
        """Runs with a result, by seed."""
        return [r for r in self.results if r.status == "finished"]

    @property
    def complete(self) -> bool:
        """Whether every run has a result, so that the mean is over all seeds and not only the lucky ones."""
        return bool(self.results) and len(self.finished) == len(self.results)

    @property
    def free(self) -> bool:
        """Whether it costs no training beyond FedAvg's, so that a row that trains more has to be above it."""
        return is_free(self.label.removesuffix(" (stale)"))

    @property
    def suspect(self) -> str:
        """Finished runs that should not be trusted as text, with seeds and why, or empty."""
        return suspect_runs({r.seed: r.suspect for r in self.finished})

    @property
    def trouble(self) -> str:
        """Runs without a result as text, ``"1 failed (seed 2), 2 diverged (seeds 5, 7)"``, or empty."""
        parts = []
        for status in ("failed", "diverged"):
            if seeds := [r.seed for r in self.results if r.status == status]:
                word = "seed" if len(seeds) == 1 else "seeds"
                parts.append(f"{len(seeds)} {status} ({word} {', '.join(map(str, seeds))})")
        return ", ".join(parts)

    def mean(self, name: str) -> Mean:
        """A score's mean over the finished runs; NaN if one of them lacks the score."""
        values = [r.score(name) for r in self.finished]
        mean, _, high = t_interval(values)
        return Mean(mean, high - mean, len(values))


def rows_of(study: StudyResults, setting: str) -> list[Row]:
    """The rows of a setting that have runs, in the study's order."""
    rows, bounds = [], study.bounds(setting)
    for number, label in enumerate(study.labels, start=1):
        if results := study.of(setting, label):
            bound = label in bounds
            rows.append(Row(number, label, tuple(results), label == study.control and not bound, bound))
    return rows


def defined(rows: list[Row]) -> list[str]:
    """Columns that at least one finished run has a value for, in the order of `COLUMNS`.

    The server's steps are a column only where a server took any: most train nothing.
    """
    found = {name: [r.score(name) for row in rows for r in row.finished] for name in COLUMNS}
    return [
        name
        for name, values in found.items()
        if (any(value > 0 for value in values) if name == "server_steps" else not all(map(math.isnan, values)))
    ]


def best(rows: list[Row], name: str) -> list[Row]:
    """Complete rows with the best mean, several on a tie, bounds aside; none for a cost, or if all are equal."""
    means = {row.number: row.mean(name).value for row in rows if row.complete and not row.bound}
    values = [value for value in means.values() if not math.isnan(value)]
    if name in COSTS or len(set(values)) < 2:
        return []
    top = min(values) if name in LOWER_IS_BETTER else max(values)
    return [row for row in rows if means.get(row.number) == top]


def ranked(rows: list[Row], name: str = HEADLINE) -> list[Row]:
    """Complete rows by mean score, best first, ties in the study's order; bounds and rows without it are left out."""
    scored = [row for row in rows if row.complete and not row.bound and not math.isnan(row.mean(name).value)]
    sign = 1 if name in LOWER_IS_BETTER else -1
    return sorted(scored, key=lambda row: (sign * row.mean(name).value, row.number))


def difference(row: Row, control: Row, name: str = HEADLINE) -> Mean:
    """Mean of (row - control) over the seeds that both finished, with half its 95 % t interval: paired by seed."""
    theirs = {r.seed: r.score(name) for r in control.finished}
    values = [r.score(name) - theirs[r.seed] for r in row.finished if r.seed in theirs]
    mean, _, high = t_interval(values)
    return Mean(mean, high - mean, len(values))


def heading(name: str) -> str:
    """A column's heading with its unit."""
    words = COLUMNS[name]
    return words.replace("bytes", "MB") if name in _MEGA else words


def shown(name: str, value: float, signed: bool = False) -> str:
    """A value of a column for people: three decimals of a score, MB of bytes, whole labels and steps."""
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    plus = "+" if signed and value >= 0 else ""
    if name in _MEGA:
        return plus + amount(value / 1e6)
    if name in ("labels", "steps", "server_steps"):
        return f"{plus}{value:,.0f}"
    if name == "client_seconds":
        return plus + amount(value)
    return f"{plus}{value:.3f}" if abs(value) < 100 else f"{plus}{value:,.1f}"


def amount(value: float) -> str:
    """Three figures, two below a tenth; without an exponent down to a thousandth."""
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}" if size >= 0.1 else f"{value:.2g}"
