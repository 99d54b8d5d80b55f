"""Explanations in a run folder: ``artifacts/explanations/<name>.json`` of a run, ``explanations/<name>.json`` of later.

The first are sealed with the run's result. `fedimb explain` writes the second, each with its own hash; of two with one
name the later is read.
"""

import json
from pathlib import Path
from typing import Any

from fedimb.atomic import write_atomic
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.seal import Damaged, own_hash_fits, with_own_hash

Facts = dict[str, Any]
OF_THE_RUN, LATER = "artifacts/explanations", "explanations"


def explanation_bytes(facts: Facts) -> bytes:
    """An explanation as it is stored."""
    return with_own_hash(facts)


def write_explanation(folder: RunFolder, name: str, facts: Facts) -> Path:
    """Keep an explanation that was made after the run."""
    path = folder.path / LATER / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, explanation_bytes(facts))
    return path


def read_explanations(path: Path) -> dict[str, Facts]:
    """All explanations of a run, by name in alphabetical order; empty if there are none.

    Raises:
        Damaged: a file is not as it was written.
    """
    folder = RunFolder.open(path)
    found: dict[str, Facts] = {}
    for place in (OF_THE_RUN, LATER):
        for file in sorted((folder.path / place).glob("*.json")):
            name = str(file.relative_to(folder.path))
            data = folder.read(name)
            try:
                facts = json.loads(data or b"")
                if not isinstance(facts, dict) or "sha256" not in facts or not own_hash_fits(facts):
                    raise ValueError("its content does not have the hash it was written with")
            except ValueError as error:
                raise Damaged(f"{file} is damaged ({error}): fedimb explain {folder.path} {file.stem}") from None
            facts.pop("sha256")
            found[file.stem] = facts
    return dict(sorted(found.items()))
