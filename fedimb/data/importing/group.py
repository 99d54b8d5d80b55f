"""The data group of what was found, with every choice spelled out, and its YAML."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedimb import registry
from fedimb.data.arrays import SourceData
from fedimb.data.importing.found import Found
from fedimb.data.split import split_test
from fedimb.errors import DataError
from fedimb.plain import Settings

_RULES: tuple[Settings, ...] = (
    {"name": "official"},
    {"name": "stratified", "fraction": 0.2},
    {"name": "stratified", "fraction": 0.5},
)


def full_source(found: Found) -> Settings:
    """The settings of the source, those left at their defaults too."""
    parameters = registry.parameters("source", found.source["name"])
    factory = registry.get("source", found.source["name"]).factory
    made = {  # signatures show `<factory>` for these
        one.name: one.default_factory()
        for one in (dataclasses.fields(factory) if dataclasses.is_dataclass(factory) else ())
        if one.default_factory is not dataclasses.MISSING
    }
    settings: Settings = {"name": found.source["name"]}
    for name, parameter in parameters.items():
        if name in found.source:
            settings[name] = _plain(found.source[name])
        elif name not in ("on_bad", "attributes") and parameter.default is not parameter.empty:
            settings[name] = _plain(made.get(name, parameter.default))
    return settings


def data_group(found: Found, data: SourceData, on_bad: str) -> Settings:
    """The data group that reads and splits these rows. Doubts about the test set are added to ``found``."""
    return {
        "source": full_source(found),
        "test": _test_rule(found, data),
        "validation": 0.0,
        "long_tail": "natural",
        "imbalance_factor": 1,
        "n_max": None,
        "class_order": "fixed",
        "minority": "rarest_30pct",
        "public": None,
        "on_bad": on_bad,
    }


def to_yaml(path: str, found: Found, group: Settings) -> str:
    """The file: what was found and what is not sure as comments, then the group."""
    import yaml

    words = [f"{found.layout[:1].upper()}{found.layout[1:]}, from {path}. Written by fedimb data import."]
    words += [f"Not sure: {line}" for line in found.unsure]
    comments = "".join(f"# {line}\n" for word in words for line in _wrapped(_printable(word)))
    return comments + yaml.safe_dump(group, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def group_name(path: Path, taken: Sequence[str]) -> str:
    """A name for ``data=NAME``: the file's, in plain letters, and none of those taken."""
    name = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_") or "data"
    return f"my_{name}" if name in taken or name[0].isdigit() else name


def _test_rule(found: Found, data: SourceData) -> Settings:
    official = data.official_test is not None and data.official_test.any() and not data.official_test.all()
    reason = ""
    for rule in _RULES if official else _RULES[1:]:
        columns = data.patients, data.official_test, data.sites
        try:
            split_test(data.y, data.class_names, rule, np.random.default_rng(0), *columns)
        except DataError as error:
            reason = reason or str(error)
            continue
        if reason:
            found.unsure.append(f"test: {reason}")
        return dict(rule)
    found.unsure.append(f"test: {reason}")
    return {"name": "none"}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False) or [""]
