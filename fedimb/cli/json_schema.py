"""The schemas of ``--json``, from the handlers' return annotations: docs/json.schema.json and docs/json.md's list.

``python -m fedimb.cli.json_schema docs`` writes both again after a change.
"""

import argparse
import functools
import importlib
import json
import pkgutil
import sys
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic.json_schema import models_json_schema

import fedimb.cli.output
from fedimb.cli.json_mode import SILENT
from fedimb.cli.main import every_leaf
from fedimb.cli.output.base import Failure, Output, Part

_START, _END = "<!-- outputs -->\n", "<!-- end of outputs -->\n"


def outputs_of(leaf: argparse.ArgumentParser) -> tuple[type[Output], ...]:
    """What an action may answer with: the classes in its handler's return annotation.

    Raises:
        TypeError: it returns something else, too.
    """
    handler = leaf.get_default("handler")
    found = typing.get_type_hints(handler, localns=_records()).get("return")
    classes: tuple[type[Output], ...] = typing.get_args(found) or (found,)
    if not all(isinstance(each, type) and issubclass(each, Output) and each is not Output for each in classes):
        raise TypeError(f"{leaf.prog}: its handler returns {found}; return outputs of fedimb.cli.output")
    return classes


@functools.cache
def _records() -> dict[str, type[Part]]:
    """Every record of this package by its name: handlers import theirs when they run, or for type checkers alone."""
    found: dict[str, type[Part]] = {}
    for file in pkgutil.iter_modules(fedimb.cli.output.__path__, f"{fedimb.cli.output.__name__}."):
        of_file = vars(importlib.import_module(file.name))
        found |= {name: each for name, each in of_file.items() if isinstance(each, type) and issubclass(each, Part)}
    return found


def outputs() -> dict[str, tuple[type[Output], ...]]:
    """The outputs of every action that has one, by what is typed."""
    return {path: outputs_of(leaf) for path, leaf in every_leaf() if path not in SILENT}


def schema() -> dict[str, Any]:
    """One JSON Schema: ``$defs`` by class, and an object with ``properties`` by verb for looking one up."""
    found = outputs()
    classes: list[type[Output]] = list(
        dict.fromkeys([*(each for several in found.values() for each in several), Failure])
    )
    modes: list[tuple[type[Output], Literal["serialization"]]] = [(each, "serialization") for each in classes]
    _, defined = models_json_schema(modes, by_alias=True)
    verbs = {
        path: {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in (*(each.__name__ for each in several), "Failure")]}
        for path, several in found.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What fedimb prints with --json, by verb",
        "properties": verbs,
        "$defs": {name: _brief(each) for name, each in sorted(defined["$defs"].items())},
    }


def _brief(record: dict[str, Any]) -> dict[str, Any]:
    """A record's schema with the first line of its docstring, and without titles that repeat names."""
    fields = {name: {k: v for k, v in field.items() if k != "title"} for name, field in record["properties"].items()}
    return record | {"description": record["description"].partition("\n")[0], "properties": fields}


def page(text: str) -> str:
    """docs/json.md with its list made again."""
    before, rest = text.split(_START)
    _, after = rest.split(_END)
    found = outputs()
    lines = ["| command | prints | what it is |", "| --- | --- | --- |"]
    for path, several in found.items():
        names = ", ".join(f"[{each.__name__}](#{each.__name__.lower()})" for each in several)
        lines.append(f"| `fedimb {path} --json` | {names} | {'; '.join(_summary(each) for each in several)} |")
    records = schema()["$defs"]
    for name, record in records.items():
        lines += ["", f"### {name}", "", record["description"], "", *_fields(record)]
    return f"{before}{_START}\n" + "\n".join(lines) + f"\n\n{_END}{after}"


def _summary(each: type[Output]) -> str:
    return (each.__doc__ or "").partition("\n")[0].strip().rstrip(".")


def _fields(record: dict[str, Any]) -> list[str]:
    lines = ["| field | type | what it is |", "| --- | --- | --- |"]
    for name, field in record["properties"].items():
        if name not in Output.model_fields:
            lines.append(f"| `{name}` | {_type(field)} | {field.get('description', '')} |")
    return lines


def _type(field: dict[str, Any]) -> str:
    """A JSON schema as a reader says it: ``list of [Row](#row)``, ``number or null``."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(map(_type, field["anyOf"]))
    if field.get("type") == "array":
        inner = _type(field["items"]) if field.get("items") else "any"
        return f"list of ({inner})" if " or " in inner else f"list of {inner}"
    if isinstance(field.get("additionalProperties"), dict):
        inner = _type(field["additionalProperties"])
        return f"object of ({inner})" if " or " in inner else f"object of {inner}"
    return str(field.get("type", "any"))


def write(folder: Path) -> None:
    """Write ``json.schema.json`` and the list in ``json.md``."""
    (folder / "json.schema.json").write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
    file = folder / "json.md"
    file.write_text(page(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
