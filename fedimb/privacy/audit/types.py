"""Types of the audit: batches of records, settings, verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError, DataError

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
State = Literal["pass", "fail", "undecidable", "refused"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Records or samples.

    Attributes:
        x: float [n, *shape], scaled as models see it (images: 0..1).
        y: int64 [n] class ids.
        d: int64 [n] device ids; None: all 0.
        units: int64 [n] patient ids; None: each record is its own patient.
    """

    x: NDArray[Any]
    y: Ids
    d: Ids | None = None
    units: Ids | None = None

    def __post_init__(self) -> None:
        if self.x.ndim < 2 or any(
            len(column) != len(self.x) for column in (self.y, self.d, self.units) if column is not None
        ):
            raise DataError(
                f"a batch needs x [n, ...] and y, d, units of the same n; got x {list(self.x.shape)} and y "
                f"{list(self.y.shape)}: give one entry per record"
            )

    def __len__(self) -> int:
        return len(self.y)

    def cut(self, rows: NDArray[np.generic]) -> "Batch":
        """Select records by position or by a boolean mask."""
        return Batch(
            self.x[rows],
            self.y[rows],
            None if self.d is None else self.d[rows],
            None if self.units is None else self.units[rows],
        )

    def joined(self, other: "Batch") -> "Batch":
        """These records followed by the other's; columns that one of them lacks are dropped."""

        def both(one: NDArray[Any] | None, two: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if one is None or two is None else np.concatenate([one, two])

        x, y = np.concatenate([self.x, other.x]), np.concatenate([self.y, other.y])
        return Batch(x, y, both(self.d, other.d), both(self.units, other.units))

    def of(self, label: int) -> "Batch":
        """The records of one class."""
        return self.cut(self.y == label)

    def count(self) -> int:
        """Number of patients, or of records if no patients are named."""
        return len(self) if self.units is None else len(np.unique(self.units))


class Attack(Protocol):
    """Scores records by how well the generator knows them: [n], higher means more likely trained on (negative loss)."""

    def __call__(self, x: NDArray[np.generic], y: Ids, d: Ids) -> NDArray[np.generic]: ...


class Features(Protocol):
    """Maps records [n, *shape] to features [n, F]: a second space in which distances are measured."""

    def __call__(self, x: NDArray[np.generic]) -> NDArray[np.generic]: ...


@dataclass(frozen=True)
class GateSettings:
    """When a class may be exported.

    Attributes:
        min_count: minimum number of training records (patients) of the class.
        min_holders: minimum number of sites that hold it.
        alpha: probability of refusing a clean class, split evenly over the tests of that class.
        power: minimum probability of refusing if the share ``copied`` of the samples were near copies; below:
            undecidable.
        copied: share of copied samples that must be detected. Half of what it would add to the nearest-record ratio,
            AUC and TPR is the smallest excess over their null that counts as leakage.
        near: distance of the near copies in the power analysis: length of their noise, in units of the median distance
            from a holdout record to the nearest training record.
        draws: repetitions of the power analysis.
        bootstrap: resamples of the real records for intervals.
        forced: classes whose generator was trained with too few rows; they never leave.
        moved: compare images with shifted, turned, mirrored, zoomed and inverted copies of the real ones too
            (`fedimb.privacy.audit.moved`); it has no effect on tables.
    """

    min_count: int = 20
    min_holders: int = 1
    alpha: float = 0.05
    power: float = 0.8
    copied: float = 0.10
    near: float = 0.1
    draws: int = 40
    bootstrap: int = 200
    forced: tuple[int, ...] = ()
    moved: bool = True

    def __post_init__(self) -> None:
        shares = {"alpha": self.alpha, "power": self.power, "copied": self.copied}
        for name, value in shares.items():
            if not 0 < value < 1:
                raise ConfigError(f"export gate: {name} must lie between 0 and 1; got {value}")
        if not 0 <= self.near < 1:
            raise ConfigError(f"export gate: near must lie in [0, 1); got {self.near}")
        numbers = {"min_count": self.min_count, "min_holders": self.min_holders}
        numbers |= {"draws": self.draws, "bootstrap": self.bootstrap}
        for name, value in numbers.items():
            if value < 1:
                raise ConfigError(f"export gate: {name} must be at least 1; got {value}")


@dataclass(frozen=True)
class Verdict:
    """The gate's verdict on one class; every state except ``pass`` keeps it at the site.

    Attributes:
        state: ``refused``: must not be exported whatever its samples are (too few records, values not finite);
            ``fail``: leakage was found; ``undecidable``: none was found, but it would have been missed; ``pass``.
        reasons: one line each, empty for ``pass``.
        figures: measured numbers; NaN where undefined or not reached.
    """

    state: State
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """Verdicts by class id, for the classes of the synthetic batch."""

    verdicts: Mapping[int, Verdict]

    @property
    def passed(self) -> tuple[int, ...]:
        """Ids of the classes that may leave."""
        return tuple(label for label, verdict in sorted(self.verdicts.items()) if verdict.state == "pass")

    def facts(self) -> dict[str, Any]:
        """For JSON: class id (text) -> state, reasons, figures; an undefined figure is null."""
        return {
            str(label): {
                "state": verdict.state,
                "reasons": list(verdict.reasons),
                "figures": {k: None if math.isnan(v) else float(v) for k, v in verdict.figures.items()},
            }
            for label, verdict in sorted(self.verdicts.items())
        }

    def metrics(self, class_names: Sequence[str]) -> dict[str, float]:
        """Metrics for tracking: ``privacy/<figure>/<class>``, and ``privacy/passed/<class>``, 1 or 0."""
        found: dict[str, float] = {}
        for label, verdict in sorted(self.verdicts.items()):
            figures = {**verdict.figures, "passed": float(verdict.state == "pass")}
            found |= {f"privacy/{name}/{class_names[label]}": float(value) for name, value in figures.items()}
        return found
