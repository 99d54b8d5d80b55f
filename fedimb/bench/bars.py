"""The limits of the benchmark: a number computed from measurements, and the limit it must keep."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fedimb.bench.measurement import Figures


@dataclass(frozen=True)
class Bar:
    """One number with its limit: a line of the verdict.

    Attributes:
        case: the case it belongs to.
        what: description of the number.
        value: computes it; NaN if an engine it needs was not measured.
        limit: ``>= 8`` or ``<= 1.1`` as (at least, limit); None: no limit.
        aim: a target beyond the limit, not required; None: no target.
        unit: ``x`` (ratio), ``MB``, ``s`` or empty.
    """

    case: str
    what: str
    value: Callable[[Figures], float]
    limit: tuple[bool, float] | None
    aim: float | None = None
    unit: str = "x"

    def verdict(self, figures: Figures) -> str:
        """``pass`` | ``miss`` | ``not measured`` | empty without a limit."""
        value = self.value(figures)
        if math.isnan(value):
            return "not measured"
        if self.limit is None:
            return ""
        least, limit = self.limit
        return "pass" if (value >= limit if least else value <= limit) else "miss"

    def shown(self, figures: Figures) -> tuple[str, str, str, str]:
        """Description, value, limit with target, verdict."""
        value = self.value(figures)
        number = "-" if math.isnan(value) else f"{_figure(value)} {self.unit}".strip()
        limit = "" if self.limit is None else f"{'>=' if self.limit[0] else '<='} {self.limit[1]:g}"
        return (
            self.what,
            number,
            limit + (f" (aim {self.aim:g})" if self.aim is not None else ""),
            self.verdict(figures),
        )


def _figure(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def at_least(limit: float) -> tuple[bool, float]:
    return True, limit


def at_most(limit: float) -> tuple[bool, float]:
    return False, limit


def ratio(case: str, over: str, under: str, name: str, limit: tuple[bool, float], aim: float | None = None) -> Bar:
    """Median of ``name`` (``round_s`` or ``whole_s``) on one engine, divided by that on another."""

    def value(figures: Figures) -> float:
        return _divided(figures.median(case, over, name), figures.median(case, under, name))

    words = {"round_s": "time per round", "whole_s": "whole command"}[name]
    return Bar(case, f"{case}: {words}, {over} / {under}", value, limit, aim)


def grown(case: str, more: str, less: str, engine: str, limit: tuple[bool, float]) -> Bar:
    """Time per round of one size of a case, divided by that of a smaller one."""

    def value(figures: Figures) -> float:
        return _divided(figures.median(more, engine, "round_s"), figures.median(less, engine, "round_s"))

    return Bar(case, f"{case}: time per round, {more} / {less}", value, limit)


def added(case: str, what: str, more: str, less: str, engine: str, name: str, limit: tuple[bool, float] | None) -> Bar:
    """Additional megabytes of one size of a case compared with a smaller one."""

    def value(figures: Figures) -> float:
        return figures.median(more, engine, name) - figures.median(less, engine, name)

    return Bar(case, f"{case}: {what}, {more} - {less}", value, limit, unit="MB")


def single(case: str, what: str, engine: str, name: str, limit: tuple[bool, float], unit: str) -> Bar:
    """A measured number as it is."""
    return Bar(case, f"{case}: {what}", lambda figures: figures.median(case, engine, name), limit, unit=unit)


def agree(case: str, width: float) -> Bar:
    """Largest difference of the final macro recall between engines, which must do the same work."""
    what = f"{case}: final macro recall, most - least over engines"
    return Bar(case, what, lambda figures: figures.spread([case], "macro_recall"), at_most(width), unit="")


def _divided(a: float, b: float) -> float:
    return a / b if b else math.nan
