"""Replies that were left out because they broke their contract, and clients that are set aside for it.

``left_out.jsonl`` in the run folder has one line per such reply. A client is set aside after `MOST` of them, from the
next message on. What happened is counted by the number of the message, so a run that is killed and resumed sets the
same clients aside at the same step.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedimb.engine.record_checks import Refusal
from fedimb.errors import ConfigError, nearest
from fedimb.text import clean_text

log = logging.getLogger("fedimb")

FILE = "left_out.jsonl"
_SHOWN = 100
MASKED = "masked sum"
"""In place of a record: a client's figures are not in this sum."""
MOST = 3
"""Refused replies after which a client is set aside."""


@dataclass(frozen=True)
class LeftOutReply:
    """One line of left_out.jsonl.

    Attributes:
        message: number of the message it replied to.
        where: the round or query.
        client, site: client id, and in a deployment the site's name, else empty.
        record, field, reason: see `Refusal`.
        counts: whether it counts against the client: its sender is known, and its training did not just diverge.
        aside: whether the client is set aside from the next message on, whatever it sent before.
    """

    message: int
    where: str
    client: int
    site: str
    record: str
    field: str
    reason: str
    counts: bool = True
    aside: bool = False

    def __str__(self) -> str:
        who = self.site or f"client {self.client}"
        if not self.record:
            return f"{self.where}: {who}: {self.reason}"
        field = f", '{self.field}'" if self.field else ""
        return f"{self.where}: {who}: record '{self.record}'{field}: {self.reason}"


class LeftOut:
    """The replies that were left out in a run.

    Args:
        folder: the run folder; None keeps them in memory.
        sites: names of the sites by client id; empty in a simulation.
        event: called with a journal line for each.
    """

    def __init__(
        self, folder: Path | None = None, sites: Sequence[str] = (), event: Callable[..., None] = lambda **line: None
    ) -> None:
        self._path, self._sites, self._event = None if folder is None else folder / FILE, tuple(sites), event
        self.replies = [] if self._path is None else read_left_out(self._path)
        self._known = {(one.message, one.client, one.record == MASKED) for one in self.replies}

    def add(self, message: int, where: str, client: int, refusal: Refusal, signed: bool) -> None:
        """Add a reply; one that was left out before the run was resumed is not added twice."""
        counts = signed and refusal.counts and not refusal.not_finite
        about = (refusal.record, refusal.field, refusal.reason)
        self._append(LeftOutReply(message, where, client, self._site(client), *about, counts))
        if sum(one.counts for one in self.replies if one.client == client) == MOST:
            who = self.name(client)
            log.warning("%s: %d replies were refused: it is set aside for the rest of the run", who, MOST)
            self._event(event="set aside", client=client, site=self._site(client), refused=MOST)

    def add_missing(self, message: int, query: str, client: int, reason: str) -> None:
        """Add that a client's figures are not in a masked sum, once per query; it does not count against it."""
        if any((one.where, one.client, one.reason) == (query, client, reason) for one in self.replies):
            return  # a resume has run the program up to here again
        log.warning("%s: %s %s", query, self.name(client), reason)
        self._append(LeftOutReply(message, query, client, self._site(client), MASKED, "", reason, counts=False))

    def add_cut(self, where: str, client: int, what: str) -> None:
        """Tell, in the log and in the run's journal, that a reply counted for less than it claimed."""
        log.warning("%s: %s: %s", where, self.name(client), what)
        self._event(event="cut", where=where, client=client, site=self._site(client), reason=what)

    def add_partial(self, where: str, client: int, members: int, sites: int) -> None:
        """Tell, in the log and in the run's journal, that a region's sum is over some of its sites alone."""
        log.warning("%s: %s: its sum is over %d of its %d sites", where, self.name(client), members, sites)
        self._event(
            event="sites missing", where=where, client=client, site=self._site(client), members=members, sites=sites
        )

    def aside(self, message: int) -> dict[int, str]:
        """Clients that are set aside when this message is sent, with the reason."""
        before = [one for one in self.replies if one.message < message]
        found = {one.client: f"set aside: {one.reason}" for one in before if one.aside}
        for client in {one.client for one in before}:
            if sum(one.counts for one in before if one.client == client) >= MOST:
                found.setdefault(client, f"set aside: {MOST} of its replies were refused (left_out.jsonl)")
        return found

    def facts(self) -> list[dict[str, object]]:
        """What result.json keeps: the first `_SHOWN` replies that were left out, and every client set aside."""
        kept = [one for one in self.replies if one.record][:_SHOWN] + [one for one in self.replies if one.aside]
        keys = ("where", "client", "site", "record", "field", "reason")
        found: list[dict[str, object]] = [{key: asdict(one)[key] for key in keys} for one in kept]
        for client, why in self.aside(2**62).items():
            if not any(one.aside and one.client == client for one in kept):
                about = {"where": "from then on", "client": client, "site": self._site(client)}
                found.append(about | {"record": "", "field": "", "reason": why})
        return found

    def name(self, client: int) -> str:
        """The site's name, or ``client 3``."""
        return self._site(client) or f"client {client}"

    def _site(self, client: int) -> str:
        return self._sites[client] if client < len(self._sites) else ""

    def _append(self, reply: LeftOutReply) -> None:
        if (reply.message, reply.client, reply.record == MASKED) in self._known:
            return
        self._known.add((reply.message, reply.client, reply.record == MASKED))
        self.replies.append(reply)
        line = asdict(reply)
        self._event(event="left out", **line)
        if self._path is not None:
            _write(self._path, reply)


def _write(path: Path, reply: LeftOutReply) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(reply), ensure_ascii=False) + "\n")


def read_left_out(path: Path) -> list[LeftOutReply]:
    """Read left_out.jsonl; a line that a kill cut off is skipped. Empty if there is no file."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(LeftOutReply(**json.loads(line)))
        except (ValueError, TypeError):
            log.warning("%s: a line is cut off; it is skipped", path)
    return found


def set_aside(folder: Path, sites: Sequence[str], site: str, why: str) -> None:
    """Set a site aside from the next message on, because a person says so.

    Raises:
        ConfigError: there is no such site in the run.
    """
    if site not in sites:
        raise ConfigError(f"no site '{site}' in this run.{nearest(site, sites)}")
    client = list(sites).index(site)
    if not any(one.aside and one.client == client for one in read_left_out(folder / FILE)):
        _write(folder / FILE, LeftOutReply(-1, "before the run", client, site, "", "", clean_text(why), False, True))


def by_client(replies: Sequence[LeftOutReply]) -> Mapping[str, int]:
    """Number of left-out replies by site, or by client in a simulation."""
    found: dict[str, int] = {}
    for one in replies:
        if one.record:
            who = one.site or f"client {one.client}"
            found[who] = found.get(who, 0) + 1
    return found


__all__ = ["FILE", "MOST", "LeftOut", "LeftOutReply", "by_client", "read_left_out", "set_aside"]
