"""What a region's node and its coordinator hand each other: files in the node's folder, read and written by both.

A region is two programs of one institution: a node, which the root asks, and a coordinator, which asks the sites
(`fedimb.deploy.site.region`, `fedimb.deploy.coordinator.region`). Neither needs the other to be up at the same moment,
and each may be killed at any: an open question is answered later, and asked again it is over the same sites.

```
state/region/<run>/run.json                the run: plan, configuration, the region's name
state/region/<run>/<nonce>.ask             a message of the root; its note is {"kind", "digest", "wait_s", "asked"}
state/region/<run>/<nonce>.reply           its answer
state/region/<run>/<nonce>.error           or why there is none: {"code", "text"}, nothing of a single site
state/region/<run>/members/<digest>.json   the sites that the first answer to a message is over
state/region/<run>/at-work                 touched while a coordinator sees to the run
```

Times go down the tree: each level gives the one below it a part of the time that it has itself (`time_below`), so that
an answer without a late site still arrives in time.
"""

import contextlib
import json
import math
import secrets
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.app import RecordDict

from fedimb.annotation.private import write_private
from fedimb.deploy.files import Folder
from fedimb.errors import FedimbError
from fedimb.plain import JsonObject
from fedimb.records import note_of, pack, unpack

FOLDER = ("state", "region")
SILENT_S = 1800.0
"""Seconds that a question stays open while no coordinator sees to its run."""
_AT_WORK = "at-work"
_POLL_S = 0.2
_BELOW = 0.9


def time_below(seconds: float) -> float:
    """Seconds that the level below has of a level's own: the rest is for its messages, and to add up what came.

    Example:
        >>> time_below(60.0), time_below(math.inf)
        (54.0, inf)
    """
    return _BELOW * seconds


class Unanswered(FedimbError):
    """The region's coordinator gave no answer, or says why there is none.

    Attributes:
        code: error code; 0: nobody answered in time.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Ask:
    """An open question.

    Attributes:
        nonce: of this one; a message that comes again gets another.
        kind: type of the root's message.
        digest: of what is computed from it; the same when the message comes again.
        content: of the message.
        until: when its asker gives up, in seconds since the epoch; infinite: when nobody sees to it any more.
        wait_s: seconds that the asker waits.
    """

    nonce: str
    kind: str
    digest: str
    content: RecordDict
    until: float = math.inf
    wait_s: float = math.inf

    def left_s(self) -> float:
        """Seconds that are left for an answer, whatever happens to the clock no more than there were."""
        return min(self.wait_s, max(0.0, self.until - time.time()))


class Spool:
    """The questions of one run.

    Args:
        root: the node's folder.
        run: the run's name.
    """

    def __init__(self, root: Path, run: str) -> None:
        self._home, self.run = Folder(root), run

    def _folder(self, *names: str) -> Path:
        return self._home.folder(*FOLDER, self.run, *names)

    def open(self, about: JsonObject) -> None:
        """Write what the coordinator needs to know of the run."""
        write_private(self._folder() / "run.json", json.dumps(about).encode())

    def about(self) -> JsonObject:
        """What `open` wrote. Raises FedimbError if it cannot be read."""
        path = self._folder() / "run.json"
        try:
            found: JsonObject = json.loads(path.read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError) as error:
            raise FedimbError(f"{path} cannot be read ({error}): let the root start the run again") from error

    def ask(self, kind: str, digest: str, content: RecordDict, wait_s: float = math.inf) -> RecordDict:
        """Put a question and wait for its answer, which is then removed.

        Args:
            kind, digest, content: see `Ask`.
            wait_s: seconds; infinite: as long as a coordinator sees to the run, and `SILENT_S` without one.

        Raises:
            Unanswered: there is none.
        """
        nonce, folder = secrets.token_hex(8), self._folder()
        note = {"kind": kind, "digest": digest, "asked": time.time()}
        if math.isfinite(wait_s):
            note["wait_s"] = wait_s
        write_private(folder / f"{nonce}.ask", pack(content, json.dumps(note)))
        files = [folder / f"{nonce}.{end}" for end in ("ask", "reply", "error")]
        deadline, silence = time.monotonic() + wait_s, _Silence(folder / _AT_WORK)
        silent_s = math.inf if math.isfinite(wait_s) else SILENT_S  # a coordinator may wait for sites as long as asked
        try:
            while True:
                if files[1].exists():
                    return unpack(files[1].read_bytes())
                if files[2].exists():
                    said = json.loads(files[2].read_text(encoding="utf-8"))
                    raise Unanswered(int(said["code"]), str(said["text"]))
                if time.monotonic() > deadline:
                    raise Unanswered(
                        0, f"its coordinator did not answer within {wait_s:g} s: fedimb region run must run there"
                    )
                if silence.seconds() > silent_s:
                    raise Unanswered(
                        0,
                        f"no coordinator saw to this question for {SILENT_S:g} s: fedimb region run and fedimb deploy "
                        "up must run there",
                    )
                self.wait()
        finally:
            for path in files:
                path.unlink(missing_ok=True)

    def wait(self) -> None:
        """Let the coordinator work."""
        time.sleep(_POLL_S)

    def at_work(self) -> None:
        """Show that a coordinator sees to the run."""
        (self._folder() / _AT_WORK).touch(0o600)

    def pending(self, known: Collection[str] = ()) -> list[Ask]:
        """Questions without an answer that somebody may still wait for, oldest first.

        Args:
            known: nonces of those that are left out, and not read.
        """
        found = []
        with_time = []
        for path in self._folder().glob("*.ask"):
            if path.stem in known:
                continue
            with contextlib.suppress(OSError):  # its asker has just gone
                with_time.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(with_time):
            if any(path.with_suffix(end).exists() for end in (".reply", ".error")):
                continue
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                note = json.loads(note_of(data) or "{}")
                wait_s = float(note.get("wait_s", math.inf))
                until = float(note.get("asked", time.time())) + wait_s
                ask = Ask(path.stem, str(note["kind"]), str(note["digest"]), unpack(data), until, wait_s)
                if ask.left_s() > 0:  # else its asker was killed, or removes it
                    found.append(ask)
        return found

    def answer(self, ask: Ask, content: RecordDict) -> None:
        """Answer a question; if nobody waits for it any more, no answer is left."""
        self._put(f"{ask.nonce}.reply", ask, pack(content))

    def refuse(self, ask: Ask, code: int, text: str) -> None:
        """Say why there is no answer, in words that may leave the region."""
        self._put(f"{ask.nonce}.error", ask, json.dumps({"code": code, "text": text}).encode())

    def _put(self, name: str, ask: Ask, data: bytes) -> None:
        """Write an answer. Who gives up removes the question before the answer, so one of the two removes this."""
        path = self._folder() / name
        write_private(path, data)
        if not (self._folder() / f"{ask.nonce}.ask").exists():
            path.unlink(missing_ok=True)

    def members(self, digest: str) -> list[int] | None:
        """The sites that a message was answered for; None: it was not answered."""
        path = self._folder("members") / f"{digest}.json"
        if not path.exists():
            return None
        return [int(site) for site in json.loads(path.read_text(encoding="utf-8"))]

    def keep_members(self, digest: str, members: Sequence[int]) -> None:
        """Note them, before the answer leaves."""
        write_private(self._folder("members") / f"{digest}.json", json.dumps(list(members)).encode())


class _Silence:
    """For how long a file has not been touched, by this process's own clock.

    Args:
        path: of the file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen, self._since = self._touched(), time.monotonic()

    def _touched(self) -> int:
        with contextlib.suppress(OSError):
            return self._path.stat().st_mtime_ns
        return 0

    def seconds(self) -> float:
        """Since it was last touched, or since the first look."""
        if (touched := self._touched()) != self._seen:
            self._seen, self._since = touched, time.monotonic()
        return time.monotonic() - self._since


def spools(root: Path) -> Iterable[Spool]:
    """The spools of a node's folder, by run."""
    for path in sorted(Folder(root).file(*FOLDER).glob("*/run.json")):
        yield Spool(root, path.parent.name)
