"""The files of one cycle for readers: CSV, Label Studio tasks, pictures, and five lines of instructions."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedimb.annotation import label_studio
from fedimb.annotation.agreement import Difference
from fedimb.annotation.items import Item
from fedimb.annotation.private import private_folder, write_private
from fedimb.annotation.settings import WorklistSettings
from fedimb.annotation.tables import csv_bytes, safe_cell
from fedimb.annotation.thumbnails import check_pictures, png
from fedimb.annotation.vocabulary import Vocabulary
from fedimb.data.store import Store

RETURNED, IMAGES, TASKS = "returned", "images", "tasks.csv"


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuse rows that can be shown neither as a table nor as pictures; see `check_pictures`."""
    if len(shape) != 1:
        check_pictures(shape)


def write_cycle(
    folder: Path,
    items: Sequence[Item],
    store: Store,
    settings: WorklistSettings,
    vocabulary: Vocabulary,
    predictions: Mapping[int, int] | None,
) -> None:
    """Write ``cycle-03/`` atomically; an existing folder is not touched, since a reader may be working in it.

    Args:
        folder: folder to create.
        predictions: class id by row; None: not shown to readers.

    Raises:
        DataError: rows that cannot be shown, or Pillow is missing.
    """
    check_shape(store.input_shape)
    if folder.exists():
        return
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    private_folder(building)
    private_folder(building / RETURNED)
    pictures = len(store.input_shape) > 1
    if pictures:
        private_folder(building / IMAGES)
        for item in items:
            write_private(building / IMAGES / f"{item.id}.png", png(store.x[item.row], store.scale))
    columns, cells = _table(items, store, settings.separator)
    told = None if predictions is None else {i.id: vocabulary.show(predictions[i.row]) for i in items}
    header = ["id", *columns, *([] if told is None else ["prediction"]), "label", "comment"]
    rows = [
        [item.id, *shown, *([] if told is None else [safe_cell(told[item.id])]), "", ""]
        for item, shown in zip(items, cells, strict=True)
    ]
    write_private(building / TASKS, csv_bytes([header, *rows], settings.separator))
    ids = [item.id for item in items]
    texts = {} if pictures else {i: _sentence(columns, shown) for i, shown in zip(ids, cells, strict=True)}
    write_private(building / "label-studio.json", label_studio.tasks_json(ids, texts, pictures, told))
    write_private(building / "label-studio-interface.xml", label_studio.interface_xml(vocabulary, pictures))
    write_private(building / "README.txt", _readme(folder, settings, vocabulary, pictures).encode())
    os.rename(building, folder)


def write_adjudication(folder: Path, differences: Sequence[Difference], separator: str, vocabulary: Vocabulary) -> None:
    """Write ``adjudication.csv``: the items on which two readers differ, without their names."""
    rows = [[d.id, *(safe_cell(vocabulary.show(label)) for label in d.labels), "", ""] for d in differences]
    header = ["id", "reading 1", "reading 2", "label", "comment"]
    write_private(folder / "adjudication.csv", csv_bytes([header, *rows], separator))


def delete_pictures(folder: Path) -> None:
    """Delete ``images/`` if it exists."""
    if (folder / IMAGES).exists():
        shutil.rmtree(folder / IMAGES)


def _table(items: Sequence[Item], store: Store, separator: str) -> tuple[list[str], list[list[str]]]:
    """(column names, cells): the picture's file, or the row's values as in the source; a missing value is empty."""
    if len(store.input_shape) > 1:
        return ["image"], [[f"{IMAGES}/{item.id}.png"] for item in items]
    columns = [f"x{i}" for i in range(1, store.input_shape[0] + 1)]
    return columns, [[_number(value, separator) for value in store.x[item.row]] for item in items]


def _number(value: np.generic, separator: str) -> str:
    text = "" if np.isnan(value) else str(value)
    return text.removesuffix(".0").replace(".", ",") if separator == ";" else text.removesuffix(".0")


def _sentence(columns: Sequence[str], cells: Sequence[str]) -> str:
    return "; ".join(f"{name} = {cell or 'missing'}" for name, cell in zip(columns, cells, strict=True))


def _readme(folder: Path, settings: WorklistSettings, vocabulary: Vocabulary, pictures: bool) -> str:
    what = "picture images/<id>.png" if pictures else "line of tasks.csv (each line is one case)"
    alone = " Two people do this, each alone, from a copy of their own." if settings.readers == 2 else ""
    return (
        f"1. Look at each {what} and decide what it shows.{alone}\n"
        f"2. Write it in the column 'label' of tasks.csv: {vocabulary.legend()}. Names or codes; both are read.\n"
        "3. Leave the column 'id' as it is; remarks go into 'comment'. A line left empty counts as not done yet.\n"
        f"4. Save as CSV under your own name in {RETURNED}/, as {RETURNED}/anna.csv. (With Label Studio: import "
        f"label-studio.json and label-studio-interface.xml, export JSON to {RETURNED}/anna.json.)\n"
        f"5. Tell the person who runs fedimb that you are done: they check the file (fedimb worklist check "
        f"{folder.name}/{RETURNED}/anna.csv) and resume the run.\n"
    )
