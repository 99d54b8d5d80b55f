"""Which settings of a study plan may vary between runs, and in what range."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from fedimb import registry
from fedimb.config.load import NO_INFLUENCE, flatten
from fedimb.errors import ConfigError, nearest
from fedimb.schema import RunConfig, Strict

_FIXED = (
    *("model", "data.source", "prior.provenance", "aggregator.objectives", "evaluation.secure", "privacy", "attack"),
    *("explanation", "pace", "data.public", "data.test"),
    *("data.subgroups", "data.labels", "evaluation.subgroup_floor", "evaluation.temperature"),
    *("prior.view", "prior.epsilon", "prior.delta", "prior.clip"),
    *("clients.count", "clients.max_weight_share", "clients.max_update_ratio", "clients.max_value_ratio"),
    *("clients.regions", "clients.min_members", "clients.private", "clients.models"),
)
"""Settings that may never vary: they change what leaves, how it or the result is protected, or who takes part."""
PROTECTIONS = frozenset(
    (
        *("min_count", "min_rows", "min_holders"),  # rows, people or sites behind a number that leaves
        *("epsilon", "delta", "clip", "sigma", "secure"),  # noise and masks
        *("fedssg.audit", "fedssg.force", "fedssg.gate", "fedssg.holdout", "fedssg.release"),  # before it leaves
        *("active.share_prototypes", "fedssg.style", "oneround.head", "fedmd.match"),  # what leaves
    )
)
"""Settings of methods that may never vary: of every method that has one of this name, or of the one named with it."""
Scalar = int | float | bool | str


class Range(Strict):
    """The values a setting may have. Without any attribute set, any value is allowed.

    Attributes:
        low, high: bounds, both inclusive.
        among: a list of allowed values.
    """

    low: int | float | None = None
    high: int | float | None = None
    among: list[Scalar] = Field(default_factory=list)

    def allows(self, value: object) -> bool:
        """Whether the setting may have this value."""
        if self.among:
            return any(type(one) is type(value) and one == value for one in self.among)
        if self.low is None or self.high is None:
            return True
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        if self.among:
            return "one of " + ", ".join(str(one) for one in self.among)
        return "any value" if self.low is None else f"{self.low:g} to {self.high:g}"


def most_rounds(config: RunConfig, vary: Mapping[str, Range]) -> int:
    """The largest number of rounds a run may have."""
    given = vary.get("rounds", Range())
    return max(int(n) for n in (config.rounds, *given.among, given.high or 0))


def largest(key: str, value: Any, vary: Mapping[str, Range]) -> Any:
    """The largest value that a setting may have in a run; ``value`` if it may not vary."""
    given = vary.get(key, Range())
    return max(value, *given.among, given.high if given.high is not None else value)


def _counts_messages(config: RunConfig) -> set[str]:
    """Settings that say how many messages a site gets: rounds, and those that contracts name."""
    found = {"rounds"}
    for name in config.strategy:
        contract = registry.build("contract", name)
        own = {contract.repeats, *(most for most in contract.most.values() if isinstance(most, str))} - {""}
        found |= {f"strategy.{name}.{key}" for key in own}
    return found


def is_fixed(key: str) -> bool:
    """Whether a setting may never vary within a plan: see `_FIXED` and `PROTECTIONS`."""
    if any(key == fixed or key.startswith(f"{fixed}.") for fixed in _FIXED):
        return True
    group, method, name, *_ = (*key.split("."), "", "")
    if group != "strategy" or not name:
        return False
    return name in PROTECTIONS or f"{method}.{name}" in PROTECTIONS


class _Noted(dict[str, Any]):
    """Settings that note which of them are read."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


def chooses_records(config: RunConfig) -> set[str]:
    """Settings by which contracts say whether a record leaves (`Contract.only`).

    One that is not read, because another has decided already, decides nothing as long as that one does not vary.
    """
    found: set[str] = set()
    for method, settings in config.strategy.items():
        for applies in registry.build("contract", method).only.values():
            noted = _Noted(settings)
            applies(noted)
            found |= {f"strategy.{method}.{name}" for name in noted.read}
    return found


def check_vary(config: RunConfig, vary: Mapping[str, Range]) -> None:
    """Refuse a range that a site could not assess.

    Raises:
        ConfigError: the setting does not exist or changes what leaves; rounds have no upper bound; the plan's own value
            is outside the range.
    """
    flat, choosing = flatten(config), chooses_records(config)
    for key, given in vary.items():
        if key not in flat or key.split(".")[0] in NO_INFLUENCE:
            known = [name for name in flat if name.split(".")[0] not in NO_INFLUENCE]
            raise ConfigError(f"--vary {key}: not a setting that may vary.{nearest(key, known)}")
        if is_fixed(key) or any(key == one or key.startswith(f"{one}.") for one in choosing):
            raise ConfigError(f"--vary {key}: this setting changes what leaves a site; make a plan for each value")
        if key in _counts_messages(config) and not given.among and given.high is None:
            raise ConfigError(f"--vary {key}: give an upper bound, as in {key}=1..200")
        if not given.allows(flat[key]):
            raise ConfigError(f"--vary {key}: the plan's own value {flat[key]} is not {given}")
