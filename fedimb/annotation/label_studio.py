"""Label Studio: writes the tasks and the labelling interface it imports, and reads its exports.

Formats: labelstud.io/guide/task_format and /guide/export: "JSON" (whole annotations) and "JSON-MIN" (flat).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from fedimb.annotation.tables import shown_cell
from fedimb.annotation.vocabulary import CANNOT_WORDS, Vocabulary
from fedimb.errors import DataError
from fedimb.plain import JsonObject

ITEM, ANSWER = "item", "label"
_LOCAL = "/data/local-files/?d=images/"


def tasks_json(
    ids: Sequence[str], shown: Mapping[str, str], pictures: bool, predicted: Mapping[str, str] | None = None
) -> bytes:
    """The tasks file that Label Studio imports.

    Args:
        ids: items, in the order of reading.
        shown: text by item where there are no pictures.
        pictures: whether ``images/<id>.png`` are shown.
        predicted: class names by item; None: not shown to readers.
    """
    found = []
    for item in ids:
        data = {ITEM: item, "image": f"{_LOCAL}{item}.png"} if pictures else {ITEM: item, "text": shown[item]}
        task: JsonObject = {"data": data}
        if predicted is not None:
            choice = {
                "from_name": ANSWER,
                "to_name": "shown",
                "type": "choices",
                "value": {"choices": [predicted[item]]},
            }
            task["predictions"] = [{"model_version": "fedimb", "result": [choice]}]
        found.append(task)
    return (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode()


def interface_xml(vocabulary: Vocabulary, pictures: bool) -> bytes:
    """The labelling interface: a single choice of a class or "cannot judge"."""
    shows = '<Image name="shown" value="$image"/>' if pictures else '<Text name="shown" value="$text"/>'
    choices = [f"    <Choice value={quoteattr(name)}/>" for name in (*vocabulary.class_names, CANNOT_WORDS)]
    lines = [
        "<View>",
        f"  {shows}",
        f'  <Choices name="{ANSWER}" toName="shown" choice="single" required="true">',
        *choices,
        "  </Choices>",
        "</View>",
    ]
    return ("\n".join(lines) + "\n").encode()


@dataclass(frozen=True)
class Annotation:
    """One answer in an export: its place, the reader (empty if unknown), the item and the text."""

    place: str
    reader: str
    item: str
    text: str


def read_export(path: Path) -> tuple[list[Annotation], list[str]]:
    """(answers, problems) of an export in either JSON format. Skipped tasks give an empty text.

    Raises:
        DataError: not JSON, or not a list of tasks.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path.name} line {error.lineno}: not JSON ({error.msg}); export it again") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path.name}: cannot be read ({error}); export it again") from error
    if not isinstance(content, list):
        raise DataError(f"{path.name} line 1: not a list of tasks; export from Label Studio as JSON or JSON-MIN")
    found: list[Annotation] = []
    problems: list[str] = []
    for number, task in enumerate(content, start=1):
        place = f"{path.name} task {number}"
        data = task.get("data", task) if isinstance(task, dict) else None
        item = data.get(ITEM) if isinstance(data, dict) else None
        if not isinstance(item, str):
            problems.append(f"{place}: has no '{ITEM}'; import the label-studio.json of this worklist as it is")
            continue
        for reader, answers in _answers(task):
            if len(answers) > 1:
                several = ", ".join(map(shown_cell, answers))
                problems.append(f"{place} ({item}): {len(answers)} answers ({several}); choose one")
            else:
                found.append(Annotation(place, reader, item, answers[0] if answers else ""))
    return found, problems


def _answers(task: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """(reader, choices) of each annotation of a task."""
    if "data" not in task:
        yield _who(task.get("annotator")), _texts(task.get(ANSWER))
        return
    given = task.get("annotations")
    for one in given if isinstance(given, list) else []:
        if not isinstance(one, dict) or one.get("was_cancelled"):
            continue
        result = one.get("result")
        chosen = [
            text
            for part in (result if isinstance(result, list) else [])
            if isinstance(part, dict) and part.get("from_name") == ANSWER and isinstance(part.get("value"), dict)
            for text in _texts(part["value"])
        ]
        yield _who(one.get("completed_by")), chosen


def _texts(value: Any) -> list[str]:
    """A choice as Label Studio writes it: a text, a list of them, or ``{"choices": [...]}``."""
    if isinstance(value, dict):
        return _texts(value.get("choices"))
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [] if value is None else [str(value)]


def _who(value: object) -> str:
    """The reader from ``completed_by``, which is a number, a record of a person, or missing."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return "" if value is None else str(value)
