"""Reads and checks returned files: every answer with its place, every mistake with its remedy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedimb.annotation.items import Item, is_id
from fedimb.annotation.label_studio import ITEM, read_export
from fedimb.annotation.tables import read_table, shown_cell
from fedimb.annotation.vocabulary import Vocabulary
from fedimb.errors import DataError, nearest

ADJUDICATION = "adjudication"
"""Name of the file, and of the reader, that decides when two readers differ."""
_TABLES, _EXPORTS = (".csv", ".tsv", ".txt"), (".json",)
_IGNORED = (".", "~$")  # temporary files of spreadsheets and operating systems


@dataclass(frozen=True)
class ReaderAnswer:
    """One answer of one reader.

    Attributes:
        place: ``anna.csv line 7``.
        reader: who gave it.
        id: id of the item.
        label: a class id, `vocabulary.CANNOT_JUDGE`, or None for an empty cell.
    """

    place: str
    reader: str
    id: str
    label: int | None


def read_folder(
    folder: Path, items: Sequence[Item], cycle: int, vocabulary: Vocabulary
) -> tuple[list[ReaderAnswer], list[str]]:
    """(answers, problems) of all files in ``returned/``; both empty if the folder is empty or missing.

    Args:
        folder: ``.../cycle-03/returned``.
        items: items of all cycles, so that an answer to another cycle's item is recognised.
    """
    given: list[ReaderAnswer] = []
    problems: list[str] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(_IGNORED):
            continue
        try:
            answers, wrong = read_file(path, items, cycle, vocabulary)
        except DataError as error:
            answers, wrong = [], [str(error)]
        given += answers
        problems += wrong
    return given, problems


def read_file(
    path: Path, items: Sequence[Item], cycle: int, vocabulary: Vocabulary
) -> tuple[list[ReaderAnswer], list[str]]:
    """(answers, problems) of one file.

    Raises:
        DataError: the file cannot be read at all: not CSV or JSON, or a column is missing.
    """
    kind = path.suffix.lower()
    if kind in _EXPORTS:
        found, problems = read_export(path)
        raw = [(one.place, one.reader, one.item, one.text) for one in found]
    elif kind in _TABLES:
        # Label Studio's own CSV has the item's id in a column "item"; its column "id" is the task's number.
        lines, problems = read_table(path, ((ITEM, "id"), ("label",)))
        raw = []
        for line in lines:
            cells = line.cells
            reader = cells.get("reader") or cells.get("annotator") or ""
            raw.append(
                (f"{path.name} line {line.number}", reader, cells.get(ITEM) or cells.get("id", ""), cells["label"])
            )
    else:
        raise DataError(f"{path.name}: neither .csv nor .json; save it as CSV, or export JSON from Label Studio")
    of_id = {item.id: item for item in items}
    given = []
    for place, reader, word, text in raw:
        word = word.strip().lower()
        try:
            _check_id(word, of_id, cycle)
            label = vocabulary.read(text)
        except ValueError as error:
            problems.append(f"{place}{f' ({word})' if is_id(word) else ''}: {error}")
            continue
        named = path.stem if path.stem.casefold() == ADJUDICATION else reader or path.stem
        given.append(ReaderAnswer(place, named.casefold(), word, label))
    return given, problems


def _check_id(word: str, of_id: Mapping[str, Item], cycle: int) -> None:
    item = of_id.get(word)
    if item is None:
        own = [i for i, one in of_id.items() if one.cycle == cycle]
        hint = nearest(word, own) if word else " Every line needs the id it had in tasks.csv."
        raise ValueError(f"unknown id '{shown_cell(word)}'.{hint}")
    if item.cycle != cycle:
        raise ValueError(f"this item is of cycle {item.cycle}, this worklist of cycle {cycle}; move the file there")
