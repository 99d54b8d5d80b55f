"""The withdrawal list of a data set: keyed hashes of the patients or single records to leave out.

The source's files are not edited, and the list identifies nobody without the site's secret. It applies to all later
versions, even if the files are registered again.
"""

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedimb.annotation.private import write_private
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data.commitment import patient_mark
from fedimb.deploy.registered_data.source_records import Reading
from fedimb.errors import DataError

Entry = dict[str, str]
"""``{"patient": mark}``, or ``{"record": mark, "place": its place}``."""


def read_withdrawn(home: NodeHome, name: str) -> list[Entry]:
    """The withdrawal list of data set ``name``. A damaged list raises DataError, so that nobody is included again."""
    path = home.file("data", "sets", name, "withdrawn.json")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(one, dict) and ("patient" in one or "record" in one) for one in found):
            raise ValueError("unexpected entries")
        return list(found)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); restore it from a backup before anything else") from error


def write_withdrawn(home: NodeHome, name: str, entries: Sequence[Entry]) -> None:
    """Replace the list atomically."""
    folder = home.folder("data", "sets", name)
    write_private(folder / "withdrawn.json", json.dumps(list(entries), ensure_ascii=False, indent=1).encode())


def withdrawn_mask(
    reading: Reading, marks: Sequence[str], entries: Sequence[Entry], secret: bytes
) -> NDArray[np.bool_]:
    """Boolean mask [n] of the records that the list leaves out.

    A single record is identified by its content. If several records have the same content, the one at the listed place
    is taken, otherwise the first: for training, equal records are interchangeable.
    """
    out = np.zeros(len(marks), dtype=np.bool_)
    patients = {one["patient"] for one in entries if "patient" in one}
    if patients:
        # 0.1 marked the spelling that was typed; whoever it names is left out in every spelling.
        spelled = {(own, row.person) for row in reading.rows if (own := row.patient) is not None}
        known = {
            person
            for own, person in spelled
            if patient_mark(secret, own) in patients or patient_mark(secret, str(person)) in patients
        }
        out |= np.array([row.person in known for row in reading.rows], dtype=np.bool_)
    single = Counter((one["record"], one["place"]) for one in entries if "record" in one)
    wanted = Counter(mark for mark, _ in single.elements())
    for by_place in (True, False):
        for i, (row, mark) in enumerate(zip(reading.rows, marks, strict=True)):
            if wanted[mark] > 0 and not out[i] and (not by_place or (mark, row.place) in single):
                wanted[mark] -= 1
                out[i] = True
    return out
