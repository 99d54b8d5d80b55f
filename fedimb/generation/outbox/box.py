"""A site's outbox: samples that passed the gate wait here for a person's decision, and every decision is recorded.

```
<site folder>/outbox/<batch id>/
  batch.safetensors   the samples of the classes that passed; its SHA-256 begins with the batch id
  about.json          hashes of the file and of each class, verdicts with figures, the caller's facts about the run
  state.json          per class waiting | released | rejected, who used the batch, whether it was recalled
  sheet-03.html       each sample beside the nearest real record; deleted once the class is decided
```

File modes are 0600, folders 0700. Nothing is decided automatically: with ``release: manual`` a run waits.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedimb.annotation.private import private_folder, write_private
from fedimb.errors import DataError
from fedimb.generation.outbox.contents import (
    as_json,
    class_hashes,
    class_title,
    mark_recalled,
    now,
    pack_batch,
    unpack_batch,
)
from fedimb.generation.outbox.sheet import check_shape, contact_sheet
from fedimb.plain import JsonObject
from fedimb.privacy.audit.types import Audit, Batch

BATCH, ABOUT, STATE = "batch.safetensors", "about.json", "state.json"
WAITING, RELEASED, REJECTED = "waiting", "released", "rejected"
_FORMAT = 1


class Outbox:
    """The outbox of one site.

    Args:
        folder: ``<site folder>/outbox``; created on the first `put`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()

    def put(self, batch: Batch, audit: Audit, about: Mapping[str, Any], real: Batch) -> str:
        """Store the classes that passed, all waiting; putting the same samples again keeps the decisions made.

        Args:
            batch: the samples; those of classes that did not pass are not written anywhere.
            audit: its verdicts.
            about: JSON facts; ``class_names`` (a list) is used in texts for people.
            real: the generator's training records, for the contact sheet.

        Returns:
            The batch id: 16 hexadecimal digits of the SHA-256 of the samples.

        Raises:
            DataError: no class passed, the samples cannot be shown, or the same samples were recalled.
        """
        kept = batch.cut(np.isin(batch.y, audit.passed))
        if not len(kept):
            states = ", ".join(f"{label}: {verdict.state}" for label, verdict in sorted(audit.verdicts.items()))
            raise DataError(
                f"no class of this batch passed the export gate ({states}); nothing was put into the outbox"
            )
        check_shape(kept.x.shape[1:])
        data = pack_batch(kept)
        digest = hashlib.sha256(data).hexdigest()
        id = digest[:16]
        if (self.folder / id / STATE).exists():
            self._usable(id)
            return id
        where = self.folder / id
        private_folder(self.folder)
        private_folder(where)
        labels = np.unique(kept.y).tolist()
        facts = {"format": _FORMAT, "sha256": digest, "made": now(), **class_hashes(kept), "audit": audit.facts()}
        write_private(where / BATCH, data)
        write_private(where / ABOUT, as_json({**facts, "about": dict(about)}))
        for label in labels:
            title = f"batch {id}, class {class_title(about, label)}"
            write_private(self.sheet(id, label), contact_sheet(kept.of(label), real, title))
        # Written last: a batch without a state does not count as in the outbox, and is put again from the start.
        state = {str(label): {"state": WAITING} for label in labels}
        write_private(where / STATE, as_json({"classes": state, "used_by": [], "recalled": None}))
        return id

    def ids(self) -> list[str]:
        """Ids of its batches, oldest first."""
        found = [file.parent.name for file in self.folder.glob(f"*/{STATE}")]
        return sorted(found, key=lambda id: (self.about(id)["made"], id))

    def about(self, id: str) -> JsonObject:
        """``about.json``: hashes, counts, verdicts, and under ``about`` the facts given to `put`."""
        return self._read(id, ABOUT)

    def state(self, id: str) -> dict[int, str]:
        """Per class of the batch: waiting, released or rejected."""
        return {int(label): one["state"] for label, one in self._state(id)["classes"].items()}

    def reason(self, id: str, label: int) -> str:
        """Why a class was rejected; empty for others."""
        return str(self._state(id)["classes"].get(str(label), {}).get("reason", ""))

    def recalled(self, id: str) -> str | None:
        """Why the batch was recalled; None if it was not."""
        told = self._state(id)["recalled"]
        return None if told is None else str(told["reason"])

    def users(self, id: str) -> list[str]:
        """Runs that used the batch, in order of use."""
        return list(self._state(id)["used_by"])

    def sheet(self, id: str, label: int) -> Path:
        """The contact sheet of a class; it exists only while the class waits."""
        return self.folder / id / f"sheet-{label:02d}.html"

    def release(self, id: str, classes: Iterable[int]) -> None:
        """Release classes. DataError: not of this batch, already rejected, or the batch was recalled."""
        self._usable(id)
        self._decide(id, classes, RELEASED, {})

    def reject(self, id: str, classes: Iterable[int], reason: str) -> None:
        """Reject classes for good. DataError: not of this batch, already released (recall it), or no reason."""
        if not reason.strip():
            raise DataError("a rejection needs a reason: what was seen")
        self._decide(id, classes, REJECTED, {"reason": reason})

    def released(self, id: str) -> Batch:
        """The samples of the released classes; of length 0 if none is released yet.

        Raises:
            DataError: the batch was recalled, or its file is no longer the one that was audited.
        """
        self._usable(id)
        path = self.folder / id / BATCH
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} is missing ({error.strerror}); restore it from a copy") from error
        if hashlib.sha256(data).hexdigest() != self.about(id)["sha256"]:
            raise DataError(f"{path} is not the file that passed the gate (its hash differs); restore it from a copy")
        batch, free = unpack_batch(data), [label for label, state in self.state(id).items() if state == RELEASED]
        return batch.cut(np.isin(batch.y, free))

    def used_by(self, id: str, run: str | Path) -> None:
        """Record that a run trains on the batch: its id, or its folder, which a recall can then mark.

        Raises:
            DataError: the batch was recalled, or none of its classes is released.
        """
        self._usable(id)
        if RELEASED not in self.state(id).values():
            raise DataError(f"batch {id} has no released class to use; see fedimb outbox show {id}")
        name = str(Path(run).absolute()) if Path(run).is_dir() else str(run)

        def note(state: JsonObject) -> None:
            if name not in state["used_by"]:
                state["used_by"].append(name)

        self._change(id, note)

    def recall(self, id: str, reason: str) -> list[str]:
        """Recall a batch: it is no longer released, and the runs that used it are marked.

        A run's folder that can be reached gets ``recalled.json``. Can be repeated to mark folders not reached before.

        Returns:
            All runs that used it.

        Raises:
            DataError: no reason.
        """
        if not reason.strip():
            raise DataError("a recall needs a reason: the owners of the marked runs will read it")

        def note(state: JsonObject) -> None:
            state["recalled"] = state["recalled"] or {"reason": reason, "at": now()}

        told = self._change(id, note)["recalled"]
        for label in self.state(id):
            self.sheet(id, label).unlink(missing_ok=True)
        for run in self.users(id):
            if Path(run).is_dir():
                mark_recalled(Path(run), id, told)
        return self.users(id)

    def _decide(self, id: str, classes: Iterable[int], to: str, more: Mapping[str, str]) -> None:
        chosen = sorted(set(classes))

        def decide(state: JsonObject) -> None:
            for label in chosen:
                one = state["classes"].get(str(label))
                if one is None:
                    valid = ", ".join(state["classes"])
                    raise DataError(f"batch {id} has no class {label}; it has {valid}")
                if one["state"] not in (WAITING, to):
                    other = "recall the batch" if one["state"] == RELEASED else "put another batch"
                    raise DataError(f"batch {id}, class {label} is {one['state']} already; to undo that, {other}")
                if one["state"] == WAITING:
                    one |= {"state": to, "at": now(), **more}

        self._change(id, decide)
        for label in chosen:
            self.sheet(id, label).unlink(missing_ok=True)

    def _usable(self, id: str) -> None:
        if (reason := self.recalled(id)) is not None:
            raise DataError(f"batch {id} was recalled ({reason}); use another one")

    def _change(self, id: str, change: Callable[[JsonObject], None]) -> JsonObject:
        import fcntl

        self._state(id)
        with (self.folder / id / ABOUT).open("rb") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)  # two people may decide at once
            state = self._state(id)
            change(state)
            write_private(self.folder / id / STATE, as_json(state))
        return state

    def _state(self, id: str) -> JsonObject:
        return self._read(id, STATE)

    def _read(self, id: str, name: str) -> JsonObject:
        path = self.folder / id / name
        if not path.parent.is_dir():
            raise DataError(f"{self.folder} holds no batch {id}; see fedimb outbox list")
        try:
            content: JsonObject = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is missing or damaged ({error}); restore it from a copy") from error
        return content
