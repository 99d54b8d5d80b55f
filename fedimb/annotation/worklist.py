"""The oracle that asks people: it writes items to a folder, the run stops, and continues when the answers are there.

```
<site folder>/worklists/<run id>/
  site-only-map.csv      row, patient and accession number of each item: never passed on (0600)
  worklist.json          classes and settings of the worklist (0600)
  cycle-03/              for readers: tasks.csv, label-studio.json, images/w-00042.png, README.txt
  cycle-03/returned/     their answers: anna.csv, anna.json, adjudication.csv
  problems-03.txt        mistakes in the answers, with file and line
  imported-03.json       the imported answers; the pictures are then deleted
```

Readers' files are never changed or deleted. Every interrupted step can be repeated.
"""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedimb.annotation import pages
from fedimb.annotation.agreement import Outcome, settle
from fedimb.annotation.base import Answers, Oracle, Rows
from fedimb.annotation.items import Item, first_per_patient, new_items, read_map, write_map
from fedimb.annotation.private import private_folder, write_private
from fedimb.annotation.returned import read_folder
from fedimb.annotation.settings import WorklistSettings
from fedimb.annotation.vocabulary import CANNOT_JUDGE, Vocabulary
from fedimb.data.store import Store
from fedimb.errors import DataError
from fedimb.plain import JsonObject

FACTS = "worklist.json"
log = logging.getLogger("fedimb")


class WorklistOracle(Oracle):
    """Asks people through a folder.

    Args:
        folder: ``<site folder>/worklists/<run id>``.
        store: the client's store, shown to readers; its labels are not read.
        settings: settings of the worklist.
        seed: seed for shuffling the items.
        accessions: the site's accession numbers by row, for the map.

    Raises:
        ConfigError, DataError: classes that look the same to a reader; rows that cannot be shown; data without the
            patients that ``per_patient`` needs.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        settings: WorklistSettings,
        seed: int,
        accessions: Mapping[int, str] | None = None,
    ) -> None:
        check_store(store, settings)
        self.folder, self._store, self._settings, self._seed = folder, store, settings, seed
        self._vocabulary = Vocabulary(store.class_names)
        self._accessions = accessions

    def ask(self, rows: Rows, cycle: int, predictions: Rows | None = None) -> None:
        """Write the cycle's folder. Rows of a patient beyond ``per_patient`` are left out.

        Raises:
            DataError: other rows were requested for this cycle before: the folder belongs to another run, or the run
                has changed.
        """
        rows = np.asarray(rows, dtype=np.int64)
        kept = first_per_patient(rows, self._store.patients, self._settings.per_patient)
        items = read_map(self.folder)
        own = [item for item in items if item.cycle == cycle]
        if own or str(cycle) in self._facts()["asked"]:
            if sorted(item.row for item in own) != sorted(kept.tolist()):
                raise DataError(
                    f"{self.folder}, cycle {cycle}: other rows were asked for before; this worklist belongs to another "
                    "run: set another oracle.folder, or move that folder away once nobody works in it"
                )
        else:
            rng = np.random.default_rng([self._seed, cycle])
            own = new_items(kept, cycle, len(items), rng, self._store.patients, self._accessions)
            items = [*items, *own]
        private_folder(self.folder)
        write_map(self.folder, items)  # before the pages, so that every id has its row
        told = None
        if self._settings.show_prediction and predictions is not None:
            told = dict(zip(rows.tolist(), np.asarray(predictions).tolist(), strict=True))
        if own and not self._imported(cycle).exists():
            pages.write_cycle(self._cycle(cycle), own, self._store, self._settings, self._vocabulary, told)
        self._note(cycle, len(rows) - len(kept))

    def collect(self, cycle: int) -> Answers | None:
        """The answers, once they are complete (or ``partial`` allows it) and without mistakes."""
        if str(cycle) not in self._facts()["asked"]:
            raise DataError(
                f"{self.folder.absolute()}: no rows were asked for in cycle {cycle}; resume in the folder "
                "where the run was started, or give oracle.folder as an absolute path"
            )
        own = {item.id: item for item in read_map(self.folder) if item.cycle == cycle}
        if not own:
            return _answers({}, own)
        if not self._imported(cycle).exists():
            outcome = self._outcome(cycle)
            if not is_ready(outcome, self._settings):
                return None
            facts = {
                "settled": outcome.settled,
                "missing": outcome.missing,
                "undecided": [one.id for one in outcome.differences],
                "readers": outcome.readers,
                "kappa": None if math.isnan(outcome.kappa) else outcome.kappa,
            }
            write_private(self._imported(cycle), (json.dumps(facts, indent=1) + "\n").encode())
        settled: dict[str, int] = read_json(self._imported(cycle))["settled"]
        pages.delete_pictures(self._cycle(cycle))
        return _answers(settled, own)

    def _outcome(self, cycle: int) -> Outcome:
        """Read the answers; write a note of mistakes and a list of differences for people."""
        outcome = read_outcome(self.folder, cycle, self._settings, self._vocabulary)
        note = self.folder / f"problems-{cycle:02d}.txt"
        if outcome.problems:
            write_private(note, ("\n".join(outcome.problems) + "\n").encode())
            log.warning(
                "worklist %s, cycle %d: %d mistakes in the answers, listed in %s; first: %s",
                self.folder, cycle, len(outcome.problems), note, outcome.problems[0],
            )  # fmt: skip
        else:
            note.unlink(missing_ok=True)
        if outcome.differences:
            folder, separator = self._cycle(cycle), self._settings.separator
            pages.write_adjudication(folder, outcome.differences, separator, self._vocabulary)
        return outcome

    def _cycle(self, cycle: int) -> Path:
        return cycle_folder(self.folder, cycle)

    def _imported(self, cycle: int) -> Path:
        return imported_file(self.folder, cycle)

    def _facts(self) -> JsonObject:
        path = self.folder / FACTS
        return read_json(path) if path.exists() else {"asked": {}}

    def _note(self, cycle: int, left_out: int) -> None:
        """Record that the cycle was requested, with what a command needs to check the answers."""
        asked = {**self._facts()["asked"], str(cycle): {"left_out": left_out}}
        facts = {
            "format": 1,
            "classes": list(self._store.class_names),
            "readers": self._settings.readers,
            "partial": self._settings.partial,
            "asked": asked,
        }
        write_private(self.folder / FACTS, (json.dumps(facts, indent=1) + "\n").encode())


def check_store(store: Store, settings: WorklistSettings) -> None:
    """Refuse settings that a worklist cannot fulfil with these rows.

    Raises:
        ConfigError, DataError: why, and the remedy.
    """
    pages.check_shape(store.input_shape)
    Vocabulary(store.class_names)
    if settings.per_patient is not None and not store.names_patients:
        raise DataError(
            f"oracle 'worklist': per_patient={settings.per_patient}, but these data name no patients; set the patient "
            "column of the source, or leave per_patient out"
        )


def cycle_folder(folder: Path, cycle: int) -> Path:
    """The folder for the readers of a cycle."""
    return folder / f"cycle-{cycle:02d}"


def imported_file(folder: Path, cycle: int) -> Path:
    """The file of imported answers."""
    return folder / f"imported-{cycle:02d}.json"


def read_outcome(folder: Path, cycle: int, settings: WorklistSettings, vocabulary: Vocabulary) -> Outcome:
    """The answers of one cycle so far; changes nothing."""
    items = read_map(folder)
    given, problems = read_folder(cycle_folder(folder, cycle) / pages.RETURNED, items, cycle, vocabulary)
    outcome = settle([i.id for i in items if i.cycle == cycle], given, settings.readers, vocabulary)
    outcome.problems = [*problems, *outcome.problems]
    return outcome


def is_ready(outcome: Outcome, settings: WorklistSettings) -> bool:
    """Whether answers may be imported: no mistakes, and all are there, or with ``accept`` at least one."""
    if outcome.problems:
        return False
    if settings.partial == "accept":
        return bool(outcome.settled)
    return not outcome.missing and not outcome.differences


def read_json(path: Path) -> JsonObject:
    """Read a worklist's JSON file. DataError if it is damaged."""
    try:
        content: JsonObject = json.loads(path.read_text(encoding="utf-8"))
        return content
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is missing or damaged ({error}); restore it from a copy") from error


def _answers(settled: Mapping[str, int], own: Mapping[str, Item]) -> Answers:
    found = sorted((own[id].row, label) for id, label in settled.items())
    judged = [(row, label) for row, label in found if label != CANNOT_JUDGE]
    rows, labels = np.array(judged, dtype=np.int64).reshape(-1, 2).T
    unjudged = np.array([row for row, label in found if label == CANNOT_JUDGE], dtype=np.int64)
    return Answers(rows, labels, unjudged)
