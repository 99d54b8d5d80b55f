"""One measurement, and medians over repeats."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True)
class Measurement:
    """The figures of one measured process, in seconds and megabytes (10^6 bytes); NaN if not applicable.

    Attributes:
        case, engine, repeat: which measurement; repeats count from 1.
        start_s: from the start of the process to the end of the first round.
        rounds_s: times between the ends of consecutive rounds, without the first, which is part of ``start_s``, and the
            last, which includes scoring.
        rows_per_round: mean number of rows trained on in those rounds, times epochs; NaN if none is.
        whole_s: from the start of the process to its exit.
        peak_mb: peak memory of the process itself.
        others_mb: peak memory of its largest child process.
        macro_recall: of the final round.
        trainer: loop | stacked | empty.
        before_mb, after_mb: private memory before the first and after the last round (case ``scale``).
        mapped_mb: pages of mapped files (libraries, data) after the last round (case ``scale``).
        gap_s: from the end of a sweep's first run to the end of the second run's first round (case ``sweep``).
        same_workers: 1.0 if both runs had the same worker processes, else 0.0 (case ``sweep``).
    """

    case: str
    engine: str
    repeat: int
    start_s: float
    rounds_s: tuple[float, ...]
    rows_per_round: float
    whole_s: float
    peak_mb: float
    others_mb: float
    macro_recall: float
    trainer: str = ""
    before_mb: float = math.nan
    after_mb: float = math.nan
    mapped_mb: float = math.nan
    gap_s: float = math.nan
    same_workers: float = math.nan

    @property
    def round_s(self) -> float:
        """Median time per round."""
        return statistics.median(self.rounds_s) if self.rounds_s else math.nan

    @property
    def rows_per_s(self) -> float:
        """Rows trained on per second of the median round."""
        return self.rows_per_round / self.round_s if self.rounds_s else math.nan

    @property
    def growth_mb(self) -> float:
        """Memory gained from before the first round to after the last."""
        return self.after_mb - self.before_mb


def between(ends: Sequence[float]) -> tuple[float, ...]:
    """Times between consecutive ends of rounds."""
    return tuple(b - a for a, b in pairwise(ends))


@dataclass
class Figures:
    """The measurements so far."""

    measured: list[Measurement] = field(default_factory=list)

    def median(self, case: str, engine: str, name: str) -> float:
        """Median over repeats of a field of `Measurement`; NaN if there is none."""
        values = [getattr(m, name) for m in self.measured if (m.case, m.engine) == (case, engine)]
        return statistics.median(values) if values and not any(map(math.isnan, values)) else math.nan

    def pairs(self) -> list[tuple[str, str]]:
        """(case, engine), in the order first measured."""
        return list(dict.fromkeys((m.case, m.engine) for m in self.measured))

    def trainer(self, case: str, engine: str) -> str:
        """How clients were trained in that case and engine."""
        return next(m.trainer for m in self.measured if (m.case, m.engine) == (case, engine))

    def spread(self, cases: Iterable[str], name: str) -> float:
        """Largest minus smallest median over all engines of the cases; NaN with fewer than two."""
        wanted = set(cases)
        values = [self.median(case, engine, name) for case, engine in self.pairs() if case in wanted]
        return max(values) - min(values) if len(values) > 1 and not any(map(math.isnan, values)) else math.nan
