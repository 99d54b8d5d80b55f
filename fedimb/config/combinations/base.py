"""What a rule looks at: the parts of one run, and the settings that decide whether they go together."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

from fedimb.registry import Entry


@dataclass(frozen=True)
class Combination:
    """The parts of one run, methods outermost first.

    ``provenance`` and ``weighting`` are those of the class prior, ``task`` that of the data; None: not known yet.
    ``unknown`` says what becomes of labels that clients do not know (`fedimb.data.label_spaces`): ``masked``,
    ``cells``, ``coarse``; None: all are known.
    ``own_models`` says what clients do not share: ``kinds`` (networks of their own), ``alike`` (of these the first
    layers are shared), ``private`` (weights that stay at each), and ``bounds`` if single clients' influence is bounded.
    ``clip`` and ``noise`` are applied to updates, ``weight`` is the ``aggregation_weight``, ``view`` that of the prior.
    ``temperature``: whether the run measures that of its model (``evaluation.temperature``).
    """

    parts: tuple[Entry, ...]
    provenance: str | None = None
    weighting: str | None = None
    task: str | None = None
    clip: float | None = None
    noise: float = 0.0
    weight: str | None = None
    view: str | None = None
    unknown: str | None = None
    own_models: frozenset[str] = frozenset()
    temperature: bool = False

    def having(self, flag: str, *kinds: str) -> list[Entry]:
        """Parts (of these kinds, or of any) that declare the flag."""
        return [p for p in self.parts if p.flags.get(flag) and (not kinds or p.kind in kinds)]

    def nested(self) -> list[tuple[Entry, Entry]]:
        """All pairs (outer strategy, inner strategy)."""
        return list(combinations([part for part in self.parts if part.kind == "strategy"], 2))


Rule = Callable[[Combination], str | None]
"""A reason why the parts cannot run together, or None."""
