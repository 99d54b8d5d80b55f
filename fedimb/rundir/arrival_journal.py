"""The replies of a training without rounds, in the order in which they arrived, written before they are used.

```
arrivals.jsonl                  one line per arrival, each with the hash of the line before
arrivals/000012.safetensors     the reply, until no checkpoint needs it any more
```

Where arrivals are not known before, a run that was killed goes on from its last checkpoint with the arrivals written
after it, and then with new ones: to the weights that this order gives.
"""

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from fedimb.atomic import named_errors, write_atomic
from fedimb.rundir.seal import Damaged

log = logging.getLogger("fedimb")

FILE = "arrivals.jsonl"
FOLDER = "arrivals"
RECORDED = "recorded.jsonl"
"""The arrivals that a run repeats, in its folder: a copy of another run's arrivals.jsonl."""
_GENESIS = "0" * 64


@dataclass(frozen=True)
class Arrival:
    """One line of arrivals.jsonl.

    Attributes:
        number: in the order of arrival, from 0.
        first: rounds of the run before the step that it belongs to.
        training: number of the training in its step (`fedimb.paces.schedule.Training`).
        client: stable id.
        version: of the model that it began with.
        ns: when it arrived, in nanoseconds since the step began, without the time in which no coordinator ran.
        failed: why the reply cannot be used; empty: it can.
        sha256: of the file with the reply (hex).
        after: hash of the line before (hex).
    """

    number: int
    first: int
    training: int
    client: int
    version: int
    ns: int
    failed: str
    sha256: str
    after: str = _GENESIS

    def line(self) -> str:
        """The line as it is written."""
        return json.dumps(asdict(self), sort_keys=True)


def read_arrivals(path: Path) -> tuple[list[Arrival], int]:
    """The arrivals in a file, and the bytes they take: a kill can leave a part of a line behind them.

    Raises:
        Damaged: a line is not as it was written, or one before it is missing.
    """
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    found: list[Arrival] = []
    after = _GENESIS
    for number, raw in enumerate(whole.splitlines()):
        try:
            one = Arrival(**json.loads(raw))
            if one.number != number or one.after != after or one.line().encode() != raw:
                raise ValueError("it does not follow the line before")
        except (ValueError, TypeError) as error:
            raise Damaged(
                f"{path}, line {number + 1}, is not as it was written ({error}): put back a copy of the file from a "
                "backup, or start a new run"
            ) from None
        found.append(one)
        after = hashlib.sha256(raw).hexdigest()
    return found, len(whole)


class ArrivalJournal:
    """Reads and appends the arrivals of one run.

    Args:
        folder: the run folder, whose lock is held.

    Raises:
        Damaged: see `read_arrivals`.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._folder = folder / FILE, folder / FOLDER
        self.arrivals, size = read_arrivals(self._path)
        if self._path.exists() and self._path.stat().st_size > size:
            os.truncate(self._path, size)

    def append(self, data: bytes, first: int, training: int, client: int, version: int, ns: int, failed: str) -> None:
        """Write an arrival: its reply, then its line. It is on the disk when this returns.

        Args:
            data: the reply, packed.
            The others are attributes of `Arrival`.
        """
        number = len(self.arrivals)
        after = hashlib.sha256(self.arrivals[-1].line().encode()).hexdigest() if self.arrivals else _GENESIS
        sha = hashlib.sha256(data).hexdigest()
        arrival = Arrival(number, first, training, client, version, ns, failed, sha, after)
        write_atomic(self._file(number), data)
        with named_errors(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(arrival.line() + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.arrivals.append(arrival)

    def reply(self, number: int) -> bytes:
        """The reply of an arrival, packed.

        Raises:
            Damaged: its file is missing, or is not the one that was written.
        """
        return _reply(self._file(number), self.arrivals[number])

    def forget_before(self, number: int) -> None:
        """Remove the replies of arrivals before ``number``; their lines stay."""
        for path in self._folder.glob("*.safetensors"):
            if path.stem.isdecimal() and int(path.stem) < number:
                path.unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self._folder / _name(number)


def check_replies(folder: Path, first: int, taken: int) -> None:
    """Check, changing nothing, that the replies are there which a resume takes from the journal.

    Args:
        folder: the run folder.
        first: rounds of the run before the step that the checkpoint is in.
        taken: arrivals of this step that the checkpoint covers.

    Raises:
        Damaged: see `read_arrivals` and `ArrivalJournal.reply`.
    """
    found, _ = read_arrivals(folder / FILE)
    for one in [arrival for arrival in found if arrival.first >= first][taken:]:
        _reply(folder / FOLDER / _name(one.number), one)


def follows_arrivals(folder: Path) -> bool:
    """Whether a run's numbers follow from an order of arrivals, its own or a recorded one, beside its configuration.

    Two such runs of one configuration and seed are two runs, and neither is the simulated one.
    """
    return (folder / FILE).exists() or (folder / RECORDED).exists()


def arrivals_differ(one: Path, other: Path) -> bool:
    """Whether two runs at sites took replies in different orders, or one of them was not at sites.

    Raises:
        Damaged: see `read_arrivals`.
    """
    (mine, _), (theirs, _) = read_arrivals(one / FILE), read_arrivals(other / FILE)
    return [(a.first, a.client, a.version) for a in mine] != [(a.first, a.client, a.version) for a in theirs]


def remove_replies(folder: Path) -> None:
    """Remove all replies of a run that has ended: nobody needs what single clients sent any more; the lines stay.

    If they cannot be removed, a warning says what to delete: they are what single clients sent.
    """
    try:
        shutil.rmtree(folder / FOLDER)
    except FileNotFoundError:
        return
    except OSError as error:
        path = folder / FOLDER
        log.warning("%s holds what single clients sent and could not be removed (%s): delete it", path, error)


def _name(number: int) -> str:
    return f"{number:06d}.safetensors"


def _reply(path: Path, arrival: Arrival) -> bytes:
    if path.is_symlink():
        raise Damaged(f"{path} is a link, and links in a run folder are not followed: put the file itself there")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise Damaged(
            f"{path} is missing, a reply that arrived after the last checkpoint (replies are removed when a run ends "
            f"or diverges): {_REMEDY}"
        ) from None
    if hashlib.sha256(data).hexdigest() != arrival.sha256:
        raise Damaged(f"{path} is not the reply that arrived: it was changed. To go on, {_REMEDY}")
    return data


_REMEDY = "put back a copy of the file from a backup, or start a new run"

__all__ = [
    *("FILE", "FOLDER", "RECORDED", "Arrival", "ArrivalJournal"),
    *("arrivals_differ", "check_replies", "follows_arrivals", "read_arrivals", "remove_replies"),
]
