"""The progress of worklists, and the mistakes in a returned file: what ``fedimb worklist`` prints."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedimb.annotation.items import MAP, read_map
from fedimb.annotation.pages import RETURNED
from fedimb.annotation.returned import read_file
from fedimb.annotation.settings import WorklistSettings
from fedimb.annotation.vocabulary import CANNOT_JUDGE, Vocabulary
from fedimb.annotation.worklist import FACTS, cycle_folder, imported_file, is_ready, read_json, read_outcome
from fedimb.errors import ConfigError, DataError
from fedimb.plain import JsonObject


@dataclass(frozen=True)
class CycleStatus:
    """Progress of one cycle of a worklist.

    Attributes:
        folder: ``.../cycle-03``.
        state: ``imported``, ``mistakes``, ``to adjudicate``, ``ready`` (the run can be resumed), ``partly`` or
            ``waiting``.
        items, labelled, unjudged, missing, undecided: numbers of items.
        left_out: requested rows that ``per_patient`` left out.
        kappa: Cohen's kappa of two readers; NaN if undefined.
        problems: mistakes in the returned files.
    """

    folder: Path
    cycle: int
    state: str
    items: int
    labelled: int
    unjudged: int
    missing: int
    undecided: int
    left_out: int = 0
    kappa: float = math.nan
    problems: list[str] = field(default_factory=list)


def find_worklists(root: Path) -> list[Path]:
    """Worklist folders below ``root``, including itself. DataError if ``root`` is not a folder."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder in oracle.folder, or a worklist's folder")
    return sorted(path.parent for path in root.rglob(MAP))


def cycle_statuses(folder: Path) -> list[CycleStatus]:
    """All cycles of a run's worklist. DataError for damaged files."""
    facts, settings, vocabulary = _read_facts(folder)
    return [
        _status(folder, int(cycle), about, settings, vocabulary)
        for cycle, about in sorted(facts["asked"].items(), key=lambda pair: int(pair[0]))
    ]


def check_file(path: Path, cycle: Path | None = None) -> tuple[list[str], int, int]:
    """(mistakes, answers, items) of one returned file.

    Args:
        cycle: the worklist's folder ``cycle-03``; None: the file is in its ``returned/``.

    Raises:
        ConfigError: the worklist of the file is not known.
        DataError: the file cannot be read at all.
    """
    path = path.expanduser()
    if not path.is_file():
        raise DataError(f"{path} is not a file; check the name")
    folder = (cycle.expanduser() if cycle is not None else path.absolute().parent.parent).absolute()
    number = folder.name.removeprefix("cycle-")
    if (
        not number.isdigit()
        or not (folder.parent / MAP).exists()
        or (cycle is None and path.absolute().parent.name != RETURNED)
    ):
        raise ConfigError(
            f"{path}: which worklist does it belong to? Put it into that worklist's cycle-../{RETURNED}/, or give "
            "the worklist: --worklist .../cycle-03"
        )
    _, _, vocabulary = _read_facts(folder.parent)
    items = read_map(folder.parent)
    given, problems = read_file(path, items, int(number), vocabulary)
    answered = {one.id for one in given if one.label is not None}
    return problems + _conflicts(given, vocabulary), len(answered), sum(i.cycle == int(number) for i in items)


def _conflicts(given: Any, vocabulary: Vocabulary) -> list[str]:
    from fedimb.annotation.agreement import settle

    found: list[str] = []
    for reader in sorted({one.reader for one in given}):
        found += settle([], [one for one in given if one.reader == reader], 1, vocabulary).problems
    return found


def _read_facts(folder: Path) -> tuple[JsonObject, WorklistSettings, Vocabulary]:
    facts = read_json(folder / FACTS)
    try:
        settings = WorklistSettings(readers=facts["readers"], partial=facts["partial"])
        return facts, settings, Vocabulary(facts["classes"])
    except KeyError as error:
        raise DataError(f"{folder / FACTS} is damaged: it has no {error}; restore it from a copy") from error


def _status(
    folder: Path, cycle: int, about: JsonObject, settings: WorklistSettings, vocabulary: Vocabulary
) -> CycleStatus:
    count = sum(item.cycle == cycle for item in read_map(folder))
    imported = imported_file(folder, cycle)
    if imported.exists():
        facts = read_json(imported)
        settled, problems = facts["settled"], []
        missing, undecided = len(facts["missing"]), len(facts["undecided"])
        state, kappa = "imported", math.nan if facts["kappa"] is None else float(facts["kappa"])
    else:
        outcome = read_outcome(folder, cycle, settings, vocabulary)
        settled, problems, kappa = outcome.settled, outcome.problems, outcome.kappa
        missing, undecided = len(outcome.missing), len(outcome.differences)
        if problems:
            state = "mistakes"
        elif count == 0 or is_ready(outcome, settings):
            state = "ready"
        elif undecided and not missing:
            state = "to adjudicate"
        else:
            state = "partly" if settled or undecided else "waiting"
    unjudged = sum(label == CANNOT_JUDGE for label in settled.values())
    return CycleStatus(
        cycle_folder(folder, cycle), cycle, state, count, len(settled) - unjudged, unjudged, missing, undecided,
        about["left_out"], kappa, problems,
    )  # fmt: skip
