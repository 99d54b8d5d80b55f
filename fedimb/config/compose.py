"""From overrides to one plain configuration dictionary, by Hydra's compose API.

Works from any folder, from a wheel, many times in one process, and alongside another Hydra in the same process. Hydra's
errors span many lines and use its own terms; here each becomes one line with a remedy.
"""

import os
import threading
from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedimb import registry
from fedimb.config.catalogue import MODULE, Catalogue, Fingerprint
from fedimb.config.effects import unread
from fedimb.config.overrides import NAMED, current_key, drop_arguments, given_keys, rename_keys, set_value
from fedimb.errors import ConfigError, nearest
from fedimb.plain import Settings
from fedimb.schema import RunConfig

_lock = threading.RLock()  # Hydra keeps its state in a process-wide singleton
_composed: dict[tuple[Fingerprint, tuple[str, ...]], Settings] = {}
_KEEP = 512
_asked: set[str] = set()
"""Choices that were part of a combination before."""
_OTHER_DATA = tuple(f"data.source.{key}" for key in ("name", "path", "files", "labels", "root", "url", "query"))


def compose(
    overrides: Sequence[str],
    config_dirs: Sequence[Path] = (),
    shared: Sequence[str] = (),
    about: Sequence[str] | None = None,
) -> Settings:
    """One run's configuration as plain dicts, lists and scalars, interpolations resolved; not yet validated.

    Args:
        overrides: ``group=name``, ``group=[a,b]`` (strategy, calibration) or ``dotted.key=value`` words.
        config_dirs: folders with additional YAML groups (see `Catalogue`).
        shared: words before these that are said for several runs: this one need not read them.
        about: those of all words that this run must read, which are set in their order among the others all the same;
            None: ``overrides``.

    Raises:
        ConfigError: unknown key or group option (with the nearest), unreadable word, missing value, bad YAML, or a word
            of ``about`` that changes nothing because of another choice (`fedimb.config.effects`).
    """
    config, reasons = _composed_of([*shared, *overrides], overrides if about is None else about, config_dirs)
    if reasons:
        raise ConfigError(next(iter(reasons.values())))
    return config


def refuse_unread(shared: Sequence[str], runs: Iterable[Sequence[str]], about: Sequence[str] | None = None) -> None:
    """Refuse words that are said for several runs, and that none of them reads.

    Args:
        shared: as in `compose`.
        runs: the other words of each run.
        about: those of all words that are meant; None: ``shared``.

    Raises:
        ConfigError: a word changes nothing in any run; the reason is that of the first.
    """
    about = shared if about is None else about
    left: dict[str, str] | None = None
    for words in runs if about else ():
        _, reasons = _composed_of([*shared, *words], about, ())
        left = reasons if left is None else {key: why for key, why in left.items() if key in reasons}
        if not left:
            return
    if left:
        raise ConfigError(next(iter(left.values())))


def _composed_of(
    words: Sequence[str], about: Sequence[str], config_dirs: Sequence[Path]
) -> tuple[Settings, dict[str, str]]:
    """The configuration, and of the keys that words of ``about`` say why it does not read them."""
    with _lock:
        catalogue = Catalogue(config_dirs)
        groups, values = _sort_words(words, catalogue)
        config = rename_keys(deepcopy(_base(catalogue, groups)))
        usual = _base(catalogue, [])
    if isinstance(config.get("data"), dict):
        for listed in ("accept", "subgroups"):  # can be given for every data YAML, also those that do not list them
            config["data"].setdefault(listed, [])
        config["data"].setdefault("normalize", None)
        config["data"].setdefault("labels", {})
    before = deepcopy(config)  # what the groups alone say: of groups that were chosen the usual choice
    for group in {word.lstrip("+").partition("=")[0] for word in groups}:
        if isinstance(before.get(group), dict) and isinstance(usual.get(group), dict) and "name" in usual[group]:
            before[group]["name"] = usual[group]["name"]
    given, last = given_keys(values), dict(values)
    for key, value in values:
        if last[key] == value:
            drop_arguments(config, key, value, given)
        if _own_model(key, value):
            config["model"] = {}  # it replaces the chosen model entirely
        set_value(config, key, value)
    _check_objectives(config, last, catalogue)
    said = _said(words, about, config_dirs)
    replaced = _replaced(config, before["aggregator"], last, said)
    if any(key in _OTHER_DATA for key in given) and not any(key.startswith("data.about") for key in given):
        config["data"].pop("about", None)  # it is about the files of the YAML, not about these
    if any(key in _OTHER_DATA for key in given) and not any(key.startswith("data.accept") for key in given):
        config["data"]["accept"] = []  # likewise
    config = _resolved(config)
    return config, unread(said, before, config) | replaced


def _said(words: Sequence[str], about: Sequence[str], config_dirs: Sequence[Path]) -> list[str]:
    """What words of ``about`` say, if no other says it after them: dotted keys, those inside mappings included, and the
    groups that they choose."""
    meant: dict[str, bool] = {}
    with _lock:
        catalogue = Catalogue(config_dirs)
        for word in words:
            groups, values = _sort_words([word], catalogue)
            keys = [*(choice.lstrip("+").partition("=")[0] for choice in groups), *sorted(given_keys(values))]
            meant |= dict.fromkeys(keys, word in about)
    return [key for key, ours in meant.items() if ours]


def _replaced(config: Settings, usual: Settings, given: Iterable[str], said: Iterable[str]) -> dict[str, str]:
    """Of the keys that are said, arguments of the aggregator for an objective, where a word gives others without it."""
    found: dict[str, str] = {}
    if "aggregator.objectives" not in given:
        return found
    for key in said:
        group, _, argument = key.partition(".")
        link, name = f"${{{key}}}", config["aggregator"].get("name")  # FedDyn's server reads it too
        if (
            group != "aggregator"
            or link not in str(usual.get("objectives"))
            or registry.flags("aggregator", str(name)).get("moves_alone")
        ):
            continue
        if link not in str(config["aggregator"].get("objectives")):
            found[key] = (
                f"{key}={config['aggregator'].get(argument)} changes nothing with aggregator.objectives, which "
                "replaces the objective that reads it: give the objective's own setting, or leave one of the two out"
            )
    return found


def _check_objectives(config: Settings, last: Settings, catalogue: Catalogue) -> None:
    """Refuse ``aggregator.name=moon``: the name alone lacks the local objectives of its YAML, so FedAvg would run."""
    name, chosen = last.get("aggregator.name"), config["aggregator"]
    if not isinstance(name, str) or "objectives" in chosen or name not in catalogue.options("aggregator"):
        return
    with _lock:
        usual = rename_keys(deepcopy(_base(catalogue, [f"aggregator={name}"])))["aggregator"]
    if isinstance(usual, dict) and usual.get("objectives"):
        raise ConfigError(
            f"aggregator.name={name} alone lacks the local objectives that make it {name}: choose it by "
            f"aggregator={name}, or give aggregator.objectives=[...]"
        )


def _sort_words(words: Sequence[str], catalogue: Catalogue) -> tuple[list[str], list[tuple[str, Any]]]:
    """Split into group choices (for Hydra) and values (key, value) set afterwards, in the order given."""
    groups: list[str] = []
    values: list[tuple[str, Any]] = []
    for word in words:
        override = _parsed(word, catalogue)
        key = override.key_or_group
        if override.is_hydra_override():
            raise ConfigError(f"cannot use '{word}': fedimb does not read Hydra's own settings; remove it")
        if override.is_delete():
            raise ConfigError(f"cannot use '{word}': a setting cannot be removed; give it a value: {key}=...")
        if override.is_sweep_override():
            raise ConfigError(
                f"cannot use '{word}': several values for one run. Write {key}=[a,b] for a list, quote "
                "text that contains a comma, or use fedimb sweep"
            )
        if override.package is not None:
            raise ConfigError(f"cannot use '{word}': '@' is not supported; write {key}=<name>")
        if not _own_model(key, override.value()) and (options := catalogue.options(key)):
            groups.append(_group_choice(word, key, override.value(), options, catalogue))
        else:
            values.append((current_key(key), override.value()))
    return groups, values


def _own_model(key: str, value: Any) -> bool:
    """Whether this is a class by its path, ``model={_target_: my_module.MyNet}``, and not the name of a YAML file."""
    return key == "model" and isinstance(value, dict) and "_target_" in value


@lru_cache(maxsize=1024)  # a millisecond each; `Override.value` makes lists and dicts anew
def _parse_override(word: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(word)


def _parsed(word: str, catalogue: Catalogue) -> Any:
    from hydra.errors import HydraException

    if not isinstance(word, str) or "=" not in word.lstrip("~"):
        if isinstance(word, str) and word.startswith("~"):
            raise ConfigError(f"cannot use '{word}': a setting cannot be removed; give it another value")
        raise ConfigError(f"cannot read {word!r}: expected key=value{_meant_as(str(word), catalogue)}")
    try:
        return _parse_override(word)
    except HydraException as error:
        reason = str(error).split("\nSee https")[0]
        raise ConfigError(
            f"cannot read '{word}': {_one_line(reason)}. Quote text with special characters: key=\"'a: b'\""
        ) from None


def _meant_as(word: str, catalogue: Catalogue) -> str:
    """What a word without ``=`` was probably meant as."""
    if not word.endswith((".yaml", ".yml")):
        return _what_it_is(word, catalogue).replace(":", ";", 1).rstrip(".")
    name = Path(word).stem
    return (
        f". A YAML of settings goes into a folder per group, as in DIR/loss/{name}.yaml: "
        f"--config-dir DIR loss={name}; a study is run by fedimb compare {word}"
    )


def _group_choice(word: str, group: str, value: Any, options: list[str], catalogue: Catalogue) -> str:
    if group in registry.KINDS and group not in RunConfig.model_fields:
        raise ConfigError(f"cannot use '{word}': a {group} is chosen by {registry.chosen_by(group, str(value))}")
    wanted = value if isinstance(value, list) else [value]
    example = "Write " + (f"{group}=[{options[0]},...]" if group in NAMED else f"{group}=<name>")
    if not wanted or (isinstance(value, list) and group not in NAMED):
        raise ConfigError(f"cannot use '{word}': {group} takes {_counted(group)}. {example}.")
    for name in wanted:
        if not isinstance(name, str):
            raise ConfigError(f"cannot use '{word}': {group} takes {_counted(group)}. {example}.")
        if name not in options:
            raise ConfigError(_not_an_option(group, name, options, catalogue))
    if repeated := {name for name in wanted if wanted.count(name) > 1}:
        raise ConfigError(f"cannot use '{word}': '{min(repeated)}' is given twice; name it once")
    return word


def _not_an_option(group: str, name: str, options: list[str], catalogue: Catalogue) -> str:
    """The error for a name that the group lacks: what it is instead, or the nearest name."""
    if found := _what_it_is(name, catalogue):
        return f"no {group} '{name}'{found}{nearest('', options)}"
    if group == "data" and os.path.exists(name):
        return f"no data '{name}': that is a file or folder; fedimb data import {name} writes the YAML that reads it"
    return f"no {group} '{name}'.{nearest(name, options)}{_valid(name, options)}"


def _what_it_is(name: str, catalogue: Catalogue) -> str:
    """What a name is, by the YAML files and the few kinds that have none: importing every part would take seconds."""
    kinds = [group for group in catalogue.groups() if name in catalogue.options(group)]
    kinds += [kind for kind in ("objective", "augmentation") if registry.has_module(kind, name)]
    return registry.it_is(name, kinds)


def _counted(group: str) -> str:
    return "one or more names" if group in NAMED else "one name"


def _valid(wrong: str, options: list[str]) -> str:
    """The valid names when `nearest` gave only a guess."""
    return "" if nearest(wrong, options).startswith(" Valid") else nearest("", options)


def _base(catalogue: Catalogue, groups: list[str], files: Fingerprint | None = None) -> Settings:
    """The composed groups before single values are set, interpolations unresolved; cached until a file changes."""
    files = files or catalogue.fingerprint()
    key = (files, tuple(groups))
    if key not in _composed:
        composed = _by_choice(catalogue, groups, files) or _hydra(catalogue.searchpath, groups)
        while len(_composed) >= _KEEP:
            _composed.pop(next(iter(_composed)))
        _composed[key] = composed
    return _composed[key]


def _by_choice(catalogue: Catalogue, groups: list[str], files: Fingerprint) -> Settings | None:
    """What Hydra would compose, from compositions of one choice each; None if two of them change the same part.

    Hydra takes a quarter of a second for each combination, and a comparison has many of few choices. Of fedimb's own
    YAML each part follows from one choice, unless two change it (a data set that chooses a model, and a model); other
    folders may join them in ways that only Hydra knows. Choices that are asked for once have nothing to gain.
    """
    new = [choice for choice in groups if choice not in _asked and (files, (choice,)) not in _composed]
    _asked.update(groups)
    if len(groups) < 2 or len(new) > 1 or len(catalogue.roots) > 1:
        return None
    usual = _base(catalogue, [], files)
    found, changed = dict(usual), set[str]()
    for choice in groups:
        chosen = _base(catalogue, [choice], files)
        # By repr, because 1 == 1.0 == True, and the order of a group's keys counts.
        own = {key for key, value in chosen.items() if repr(value) != repr(usual.get(key))} | {choice.partition("=")[0]}
        if own & changed or list(chosen) != list(usual) or not own <= chosen.keys():
            return None
        changed |= own
        found |= {key: chosen[key] for key in own}
    return found


def _hydra(searchpath: str, groups: list[str]) -> Settings:
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    running = GlobalHydra.instance().hydra  # restored afterwards, for a caller inside its own Hydra application
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module(MODULE, version_base="1.3"):
            composed = hydra.compose("config", overrides=[searchpath, *groups])
        plain = OmegaConf.to_container(composed, resolve=False)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        cause = error if str(error).strip() else error.__cause__ or error
        raise ConfigError(f"cannot compose the configuration: {_one_line(_first_part(str(cause)))}") from None
    finally:
        GlobalHydra.instance().hydra = running
    return {str(k): v for k, v in plain.items()} if isinstance(plain, dict) else {}


def _first_part(message: str) -> str:
    return message.split("\nConfig search path")[0].split("\nSee https")[0]


def _one_line(message: str) -> str:
    return " ".join(message.split()).rstrip(".")


def _resolved(config: Settings) -> Settings:
    """Replace interpolations by their values; no value may be left missing (``???``)."""
    pending = [(key, text) for key, text in _texts(config) if "${" in text]
    if pending:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            plain = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
        except OmegaConfBaseException as error:
            where = f"'{error.full_key}'" if getattr(error, "full_key", None) else "the configuration"
            reason = _one_line(str(error).split("\n")[0])
            raise ConfigError(f"cannot resolve {where}: {reason}") from None
        config = {str(k): v for k, v in plain.items()} if isinstance(plain, dict) else {}
    for key, text in _texts(config):
        if text == "???":
            raise ConfigError(f"'{key}' has no value: give one with {key}=...")
    return config


def _texts(node: Any, prefix: str = "") -> list[tuple[str, str]]:
    """(dotted key, string) of every string in the configuration."""
    if isinstance(node, str):
        return [(prefix, node)]
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for k, v in items for found in _texts(v, f"{prefix}.{k}" if prefix else str(k))]
