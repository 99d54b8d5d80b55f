"""Which settings a run reads: a word of a user that would change nothing because of another choice is refused.

Such a run ends well, with numbers that are those without the word and a hash that is not: a study would show two
"different" rows of equal numbers. What a part does not read it declares itself when it is registered:

- ``read_with={argument: (setting, values)}``: the argument is read only if its part's setting has one of these values;
- ``unread_with={argument: (setting, values)}``: it is not read if the setting has one of these;
- ``trains_no_client``, ``trains_nothing``: what of the run's settings it leaves unread.

Settings of the run that other settings switch off are in the table `CONDITIONS`. Only words that a user says are looked
at: YAML files have values for every choice that a word may make.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.plain import Settings
from fedimb.registry import Entry

_SINGLE = ("aggregator", "loss", "sampler", "resampler", "pace", "attack", "model", "partition")
_NAMED = ("strategy", "calibration")
_UNKNOWN = object()


class Facts:
    """A composed configuration, asked for its settings and for the flags of its parts.

    It is not validated yet: what it lacks or names wrongly is for validation to say, and no reason here.
    """

    def __init__(self, config: Settings) -> None:
        self.config = config

    def get(self, key: str) -> Any:
        """The value of a dotted key; a value of its own if there is none."""
        node: Any = self.config
        for step in key.split("."):
            if not isinstance(node, dict) or step not in node:
                return _UNKNOWN
            node = node[step]
        return node

    def off(self, key: str, *values: object) -> bool:
        """Whether the setting is there and has one of these values."""
        return self.get(key) in values

    @cached_property
    def parts(self) -> list[Entry]:
        """The parts whose choices decide what is read, with the flags of their settings."""
        return [entry for _, entry, _ in self._named()]

    def part(self, prefix: str) -> tuple[Entry, Settings] | None:
        """The part whose arguments lie below a dotted key, and these arguments."""
        return next(((entry, args) for key, entry, args in self._named() if key == prefix), None)

    def _named(self) -> Iterator[tuple[str, Entry, Settings]]:
        for kind in _SINGLE:
            node = self.config.get(kind)
            if isinstance(node, dict) and isinstance(name := node.get("name"), str):
                yield from self._entry(kind, kind, name, node)
        for kind in _NAMED:
            node = self.config.get(kind)
            for name, args in node.items() if isinstance(node, dict) else ():
                yield from self._entry(f"{kind}.{name}", kind, str(name).partition(":")[0], args or {})

    @staticmethod
    def _entry(key: str, kind: str, name: str, args: Any) -> Iterator[tuple[str, Entry, Settings]]:
        try:
            yield key, registry.get(kind, name).set_to(args), args
        except ConfigError:  # validation says it, with the nearest name
            return

    def having(self, flag: str, *kinds: str) -> list[Entry]:
        """Parts (of these kinds, or of any) that declare the flag."""
        return [part for part in self.parts if part.flags.get(flag) and (not kinds or part.kind in kinds)]

    @property
    def reads_counts(self) -> bool:
        """Whether a part uses the class counts that ``prior`` is about."""
        return bool(self.having("needs_prior", "loss", "strategy", "calibration"))


@dataclass(frozen=True)
class Condition:
    """When settings change nothing.

    Attributes:
        keys: dotted keys; what lies below them is meant too.
        reason: why they change nothing in this run and what to do, or None; it follows the words "changes nothing".
        neutral: values that say nothing, beside the one that stands without the word.
        always: whether that one is refused too, because a data set's YAML may have one that says something.
    """

    keys: tuple[str, ...]
    reason: Callable[[Facts], str | None]
    neutral: tuple[object, ...] = ()
    always: bool = False

    def about(self, key: str) -> bool:
        """Whether it is about a setting."""
        return any(key == one or key.startswith(f"{one}.") for one in self.keys)


def _natural(facts: Facts) -> str | None:
    if not facts.off("data.long_tail", "natural"):
        return None
    return "with data.long_tail=natural, which keeps all rows: set data.long_tail=exponential or step, or leave it out"


def _adam(facts: Facts) -> str | None:
    if not facts.off("local.optimizer", "adam"):
        return None
    return "with local.optimizer=adam, which has moments of its own: set local.optimizer=sgd, or leave it out"


def _no_counts(facts: Facts) -> str | None:
    if facts.reads_counts:
        return None
    return (
        "where no part uses class counts: choose a loss, strategy or calibration that does (fedimb list shows them in "
        "the column prior), or leave it out"
    )


def _counts_without_noise(facts: Facts) -> str | None:
    found = facts.get("prior.provenance")
    if found == "dp_sum" or found is _UNKNOWN:
        return None
    return f"with prior.provenance={found}, which adds no noise: set prior.provenance=dp_sum, or leave it out"


def _own_counts(facts: Facts) -> str | None:
    if not facts.off("prior.provenance", "local"):
        return None
    return "with prior.provenance=local, where each client has its own counts: set another, or leave it out"


def _same_rows(facts: Facts) -> str | None:
    strategies = facts.config.get("strategy")
    if not facts.off("resampler.name", "none") or not isinstance(strategies, dict) or set(strategies) != {"plain"}:
        return None
    return "where clients train on their rows as they are: choose a resampler, or leave it out"


def _without_noise(facts: Facts) -> str | None:
    if not facts.off("privacy.noise", 0):
        return None
    return "with privacy.noise=0, for which no epsilon is stated: set privacy.noise, or leave it out"


def _nobody_slow(facts: Facts) -> str | None:
    if not facts.off("clients.slow", 0):
        return None
    return "with clients.slow=0, where no client is slow: set clients.slow, or leave it out"


def _no_regions(facts: Facts) -> str | None:
    if not facts.off("clients.regions", None):
        return None
    return "with clients.regions=null, where nobody answers with a sum: set clients.regions, or leave it out"


def _no_subgroups(facts: Facts) -> str | None:
    if not facts.off("data.subgroups", [], None):
        return None
    return "with data.subgroups=[], where no subgroup is shown: set data.subgroups, or leave it out"


def _no_clock(facts: Facts) -> str | None:
    if not facts.off("pace.clock", False):
        return None
    return "with pace.clock=false, where nobody counts time: set pace.clock=true or another pace, or leave it out"


def _no_slow_share(facts: Facts) -> str | None:
    if not facts.off("pace.slow", 0):
        return None
    return "with pace.slow=0, where no client is slow besides: set pace.slow, or leave it out"


def _no_correlation(facts: Facts) -> str | None:
    if not facts.off("pace.rho", 0):
        return None
    return "with pace.rho=0, where slowness goes with nothing: set pace.rho, or leave it out"


def _a_deadline_in_seconds(facts: Facts) -> str | None:
    after = facts.get("pace.after_s")
    if after is _UNKNOWN or after is None:
        return None
    return f"with pace.after_s={after}, which says when a round ends: set pace.after_s=null, or leave it out"


def _spread_minority(facts: Facts) -> str | None:
    found = facts.get("partition.minority_placement")
    if found not in (None, "spread"):
        return None
    shown = "null" if found is None else found
    return f"with partition.minority_placement={shown}: set it to concentrated or absent, or leave it out"


def _nobody_trains(facts: Facts) -> str | None:
    idle = facts.having("trains_no_client", "strategy")
    if not idle:
        return None
    part = idle[0]
    return (
        f"with strategy '{part.name}' with {part.flags['trains_no_client']}, which trains no client: leave it out, or "
        "use a strategy that trains"
    )


def _nothing_trains(facts: Facts) -> str | None:
    return _nobody_trains(facts) if facts.having("trains_nothing", "strategy") else None


CLOCK = tuple(
    f"pace.{key}" for key in ("step_s", "sigma", "slow", "slow_factor", "correlate", "rho", "jitter", "mbit_s")
)
OF_TRAINING = (
    *("aggregator", "aggregation_weight", "server_schedule", "clients.participation", "clients.slow"),
    *("local.epochs", "local.schedule"),
)
"""Settings that only clients' training reads: what trains no client may train at the server, by other ``local.*``."""

CONDITIONS = (
    Condition(("data.n_max",), _natural, (None,), always=True),
    Condition(("data.imbalance_factor",), _natural, (1,), always=True),
    Condition(("data.class_order",), _natural),
    Condition(("local.momentum",), _adam, (0,), always=True),
    Condition(("prior.weighting", "prior.view"), _no_counts),
    Condition(("prior.epsilon", "prior.delta"), _counts_without_noise),
    Condition(("prior.clip",), _counts_without_noise, (None,)),
    Condition(("prior.weighting",), _own_counts, ("data",)),
    Condition(("prior.view",), _same_rows),
    Condition(("privacy.delta",), _without_noise),
    Condition(("clients.slow_delay_s",), _nobody_slow),
    Condition(("clients.min_members",), _no_regions),
    Condition(("evaluation.subgroup_floor",), _no_subgroups, (None,)),
    Condition(CLOCK, _no_clock),
    Condition(("pace.slow_factor",), _no_slow_share),
    Condition(("pace.correlate",), _no_correlation, ("none",)),
    Condition(("pace.quantile",), _a_deadline_in_seconds),
    Condition(("partition.minority_clients",), _spread_minority),
    Condition(("rounds",), _nobody_trains, (1,)),
    Condition(OF_TRAINING, _nobody_trains),
    Condition(("loss", "sampler", "local"), _nothing_trains),
)
"""Of several reasons the first is said."""
NOT_REFUSED = (Condition(("prior",), _no_counts, ("none",)),)
"""What is read neither, but may be said: where counts come from decides what a plan lists as leaving a site."""


def unread(said: Iterable[str], before: Settings, config: Settings) -> dict[str, str]:
    """Of the settings that a user said, those that this run does not read: key -> one line why, with a remedy.

    Args:
        said: dotted keys that the user gave, and groups.
        before: the configuration without these words, where it has their keys: what does not differ says nothing.
        config: the composed configuration, interpolations resolved.
    """
    facts, without = Facts(config), Facts(before)
    found = {}
    for key in said:
        now, then = facts.get(key), without.get(key)
        if key in _SINGLE and isinstance(now, dict):  # a group: its choice is what was said
            now, then = facts.get(f"{key}.name"), without.get(f"{key}.name")
        if isinstance(now, dict) or now is _UNKNOWN:
            continue
        if reason := _reason(key, now, then, facts):
            found[key] = f"{key}={_text(now)} changes nothing {reason}"
    return found


def unread_keys(keys: Iterable[str], config: Settings) -> frozenset[str]:
    """Of these dotted keys those that a run of this configuration does not read, whatever their values and whoever
    said them.
    """
    facts, conditions = Facts(config), (*CONDITIONS, *NOT_REFUSED)
    return frozenset(
        key for key in keys if any(c.about(key) and c.reason(facts) for c in conditions) or _argument(key, facts)
    )


def _reason(key: str, now: object, then: object, facts: Facts) -> str | None:
    for condition in CONDITIONS:
        if not condition.about(key) or now in condition.neutral or (now == then and not condition.always):
            continue
        if reason := condition.reason(facts):
            return reason
    if now == then:
        return None
    return _argument(key, facts)


def _argument(key: str, facts: Facts) -> str | None:
    """Why an argument of a part is not read with the part's other settings."""
    prefix, _, name = key.rpartition(".")
    if (found := facts.part(prefix)) is None:
        return None
    entry, args = found
    if name in (rules := entry.flags.get("read_with", {})):
        setting, values = rules[name]
        if (value := _setting(entry, args, setting)) is not _UNKNOWN and value not in values:
            wanted = " or ".join(map(str, values))
            return (
                f"with {prefix}.{setting}={_text(value)}: it is read with {setting}={wanted}; set that, or leave it out"
            )
    if name in (rules := entry.flags.get("unread_with", {})):
        setting, values = rules[name]
        if (value := _setting(entry, args, setting)) in values:
            return f"with {prefix}.{setting}={_text(value)}: set {prefix}.{setting} to another value, or leave it out"
    return None


def _setting(entry: Entry, args: Settings, setting: str) -> object:
    """The value of a part's setting; of an inner part its name."""
    value = args.get(setting, _UNKNOWN)
    if value is _UNKNOWN and setting in (parameters := registry.parameters(entry.kind, entry.name)):
        default = parameters[setting].default
        value = _UNKNOWN if default is parameters[setting].empty else default
    return value.get("name", _UNKNOWN) if isinstance(value, dict) else value


def _text(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
