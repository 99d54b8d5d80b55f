"""Setting single values: ``local.epochs=3``.

Hydra parses the overrides and composes the groups; values are set here, on plain dictionaries, so that the error for a
wrong key can name the nearest right one and a sweep need not compose its groups again.
"""

import difflib
import warnings
from collections.abc import Iterable
from typing import Any

import yaml

from fedimb import registry
from fedimb.errors import ConfigError, nearest
from fedimb.plain import Settings
from fedimb.strict_yaml import load_yaml

# Groups whose keys are a part's own arguments. A key that is not in the YAML may still be an argument of
# the part, so it is let through here and checked against the part's signature by `fedimb.config.validate`.
OPEN = ("partition", "model", "aggregator", "loss", "sampler", "resampler", "attack", "pace")
OPEN_INSIDE = (("data", "source"), ("data", "test"))
NAMED = ("strategy", "calibration", "explanation")  # name -> arguments, several may be chosen
PART_OF_GROUP = {"data.source": "source"} | {group: group for group in OPEN}  # key of a part -> its kind
PART_OF_METHOD = {
    "query": "query",
    "encoder": "encoder",
    "rule": "coreset",
    "generator": "generator",
}  # by the last word
BESIDE = {"partition": ("minority_placement", "minority_clients"), "aggregator": ("objectives",)}  # fedimb's own
RENAMED = {"aggregator.terms": "aggregator.objectives"}  # old key -> new one; the old goes with the next release


def current_key(key: str) -> str:
    """The key under its present name, with a DeprecationWarning where it was given under an old one."""
    for old, new in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            warnings.warn(f"the setting {old} is called {new} now: use that", DeprecationWarning, stacklevel=3)
            return new + key.removeprefix(old)
    return key


def rename_keys(config: Settings) -> Settings:
    """The same configuration with the present names of settings, for YAML files that still have the old ones."""
    for old in RENAMED:
        group, _, key = old.partition(".")
        node = config.get(group)
        if isinstance(node, dict) and key in node:
            new = current_key(old).rpartition(".")[2]
            config[group] = {new if inner == key else inner: value for inner, value in node.items()}
    return config


def set_value(config: dict[str, object], key: str, value: object) -> None:
    """Set one dotted key in place.

    A mapping is merged key by key, unless it has a ``name``: then it replaces the part entirely.

    Raises:
        ConfigError: no such key; the message names the nearest one.
    """
    parts = key.split(".")
    node: Any = config
    for depth, part in enumerate(parts[:-1], start=1):
        if isinstance(node, dict) and part not in node and _open(config, parts, depth):
            node[part] = {}
        if not isinstance(node, dict) or part not in node:
            raise unknown(config, key)
        node = node[part]
    last = parts[-1]
    if not isinstance(node, dict) or (last not in node and not _open(config, parts, len(parts))):
        raise unknown(config, key)
    if isinstance(value, dict) and isinstance(node.get(last), dict) and "name" not in value:
        for inner, item in value.items():
            set_value(config, f"{key}.{inner}", item)
    else:
        node[last] = value


def set_words(config: dict[str, object], words: Iterable[str]) -> None:
    """Set ``key=value`` words in place, with values as in YAML.

    Raises:
        ConfigError: a word is not of this form, its value cannot be read, or there is no such key.
    """
    for word in words:
        key, found, text = word.partition("=")
        if not found:
            raise ConfigError(f"'{word}' is not a setting: write key=value, as in rounds=20")
        try:
            value = load_yaml(text)
        except yaml.YAMLError as error:
            why = " ".join(str(error).split())
            raise ConfigError(f"cannot read '{word}' ({why}): write the value as in YAML") from None
        set_value(config, key, value)


def given_keys(values: Iterable[tuple[str, object]]) -> set[str]:
    """Every dotted key that a user's words set, those inside mappings included."""
    found = set()
    for key, value in values:
        found |= {key, *(dotted(value, f"{key}.") if isinstance(value, dict) else ())}
    return found


def drop_arguments(config: Settings, key: str, value: object, given: set[str]) -> None:
    """Before ``X.name=value`` is set: remove the arguments of X that only the former part takes.

    A group's default brings arguments of its own (data.test: per_class), so that one word could not choose another
    part. What the new part takes stays, and so does what the user gave: a wrong argument of theirs is refused.

    Args:
        config: changed in place.
        key: a dotted key; nothing is done unless it is the name of a part and the name changes.
        given: the keys that the user's words set (`given_keys`).
    """
    part, _, last = key.rpartition(".")
    node: Any = config
    for step in part.split("."):
        node = node.get(step) if isinstance(node, dict) else None
    if last != "name" or not isinstance(node, dict) or not isinstance(value, str) or node.get("name") == value:
        return
    default = [k for k in node if k != "name" and not any(f"{g}.".startswith(f"{part}.{k}.") for g in given)]
    if default and (taken := _taken(part, value)) is not None:
        if "data.test.since" in given:  # the last fraction of the rows, or those since a date
            taken = taken - {"fraction"}
        gone = [argument for argument in default if argument not in taken]
        for argument in gone:
            del node[argument]
        if part == "aggregator" and isinstance(node.get("objectives"), list) and "objectives" in default:
            node["objectives"] = [one for one in node["objectives"] if _stays(one, value, gone)]
            if not node["objectives"]:
                del node["objectives"]


def _stays(objective: Any, aggregator: str, gone: list[str]) -> bool:
    """Whether a default's objective can go with another aggregator: its values are there, and what it answers to."""
    if isinstance(objective, dict) and any(f"${{aggregator.{k}}}" in str(v) for v in objective.values() for k in gone):
        return False
    name = objective.get("name") if isinstance(objective, dict) else objective
    try:
        return registry.flags("objective", str(name)).get("needs_aggregator") in (None, aggregator)
    except ConfigError:  # validation says it, with the nearest name
        return True


def _taken(part: str, name: str) -> set[str] | None:
    """Names of the settings that a part takes; None if it takes any, is unknown, or nobody checks them."""
    from fedimb.data.split_rules import OPTIONAL, TEST_RULES

    if part == "data.test":
        return {*TEST_RULES[name], *OPTIONAL.get(name, ())} if name in TEST_RULES else None
    kind = PART_OF_GROUP.get(part)
    if kind is None and part.startswith("strategy."):
        kind = PART_OF_METHOD.get(part.rpartition(".")[2])
    if kind is None:  # engine and tracking: settings of one are none to the other, and are not refused
        return None
    try:
        arguments = registry.parameters(kind, name)
    except ConfigError:  # validation says it, with the nearest name
        return None
    if any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values()):
        return None
    return {*arguments, *BESIDE.get(part, ())}


def _open(config: Settings, parts: list[str], depth: int) -> bool:
    """True when ``parts[:depth]`` is an argument of a part rather than a setting of the platform."""
    if parts[0] in NAMED:
        return depth > 2 and parts[1] in config.get(parts[0], {})
    # data groups of before these settings lack them
    if parts[0] == "data" and depth >= 2 and parts[1] in ("split", "labels"):
        return True
    return (depth > 1 and parts[0] in OPEN) or (depth > 2 and tuple(parts[:2]) in OPEN_INSIDE)


def unknown(config: dict[str, object], key: str) -> ConfigError:
    """The error for a key that does not exist."""
    parts = key.split(".")
    chosen = config.get(parts[0])
    if parts[0] in NAMED and len(parts) > 1 and isinstance(chosen, dict) and parts[1] not in chosen:
        return _not_chosen(parts, list(chosen))
    node: Any = config
    known: list[str] = []
    for part in parts:
        if not isinstance(node, dict) or part not in node:
            break
        node = node[part]
        known.append(part)
    if not isinstance(node, dict):
        return ConfigError(f"no setting '{key}'. Write {'.'.join(known)}=<value>.")
    siblings = [".".join([*known, child]) for child in node]
    if len(known) < len(parts) - 1:  # an earlier part of the key is wrong: compare whole paths
        close = difflib.get_close_matches(key, dotted(config), n=1, cutoff=0.6)
    else:  # only the last part is wrong: with the common prefix, every sibling would look near
        close = [".".join([*known, child]) for child in difflib.get_close_matches(parts[-1], node, n=1, cutoff=0.5)]
    deeper = [name for name in dotted(config) if name.rpartition(".")[2] == parts[-1]]  # device: engine.device
    if len(parts) > 1 and not isinstance(config.get(parts[-1], {}), dict):
        close = [parts[-1]]  # a setting of this very name at the top: local.seed
    elif deeper and (len(parts) == 1 or not close):
        close = [" or ".join(f"'{name}'" for name in deeper[:5]).strip("'")]
    remedy = f" Did you mean '{close[0]}'?" if close else nearest("", siblings)
    return ConfigError(f"no setting '{key}'.{remedy}")


def _not_chosen(parts: list[str], chosen: list[str]) -> ConfigError:
    """The error for a setting of a method or calibration that the run does not use or that does not exist."""
    kind, name = parts[:2]
    if parts[1:] == ["name"]:
        return ConfigError(f"no setting '{kind}.name': several may be chosen, so write {kind}=NAME or {kind}=[A,B].")
    names = registry.names(kind)
    # A part in a user's own file is registered only when it is chosen, so a near name is only a guess.
    close = [] if name in names else difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    if close and close[0] in chosen:
        return ConfigError(f"no setting '{'.'.join(parts)}'. Did you mean '{'.'.join([kind, *close, *parts[2:]])}'?")
    why, wanted = f"{kind} '{name}' is not chosen.", name
    if close:
        why, wanted = f"there is no {kind} '{name}'. Did you mean '{close[0]}'?", close[0]
    return ConfigError(
        f"no setting '{'.'.join(parts)}': {why} Choose it first: {kind}={wanted} or "
        f"{kind}=[{','.join([*chosen, wanted])}]."
    )


def dotted(config: dict[str, object], prefix: str = "") -> list[str]:
    """Every key of nested mappings, inner ones included, as dotted names."""
    found = []
    for key, value in config.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, dict):
            found += dotted(value, f"{prefix}{key}.")
    return found
