"""Everything at a site that waits for a person, in one list: study plans, labels, releases.

Nothing runs while somebody is asked: the run has ended with exit code 75 and is resumed when the answers are there.
"""

import getpass
from dataclasses import dataclass
from typing import Literal

from fedimb.annotation.status import cycle_statuses, find_worklists
from fedimb.deploy.home import NodeHome
from fedimb.deploy.site.approvals import decide, load, received, record, state
from fedimb.errors import ConfigError, DataError, nearest

WORKLISTS = "worklists"
"""Sub-folder of a node's folder, where ``FEDIMB_SITE_DIR`` set to that folder puts them (`fedimb.annotation`)."""

_ANSWERED = ("ready", "imported")


@dataclass(frozen=True)
class InboxItem:
    """One thing to decide or do.

    Attributes:
        id: ``plan-1a2b3c4d``, ``labels-s0-1a2b3c4d-03``, ``release-4f0a...``: what approve and reject take.
        text: one line.
        state: ``waiting``; of labels how far they are, as in ``34/60``; of plans also approved, rejected, expired.
    """

    kind: Literal["plan", "labels", "release"]
    id: str
    text: str
    state: str


def items(home: NodeHome, every: bool = False) -> list[InboxItem]:
    """What waits; with ``every`` also plans that have been decided on. A damaged item is listed with its damage."""
    found = [*_plans(home), *_labels(home), *_releases(home)]
    return [item for item in found if every or item.state not in ("approved", "rejected", "expired")]


def _plans(home: NodeHome) -> list[InboxItem]:
    listed = []
    for sha in received(home):
        try:
            plan = load(home, sha)
            text = f"{plan.purpose} (until {plan.expires[:10]}, {', '.join(plan.contacts)})"
            listed.append(InboxItem("plan", f"plan-{sha[:8]}", text, state(home, sha)))
        except DataError as error:
            listed.append(InboxItem("plan", f"plan-{sha[:8]}", str(error), "damaged"))
    return listed


def _labels(home: NodeHome) -> list[InboxItem]:
    root = home.file(WORKLISTS)
    listed = []
    for folder in find_worklists(root) if root.is_dir() else []:
        try:
            found = cycle_statuses(folder)
        except DataError as error:
            listed.append(InboxItem("labels", f"labels-{folder.name}", str(error), "damaged"))
            continue
        for one in found:
            if one.state not in _ANSWERED:
                what = f"label {one.items} items in {one.folder}; {one.state}"
                what += f", {len(one.problems)} mistakes: fedimb worklist status {root}" if one.problems else ""
                done = f"{one.labelled + one.unjudged}/{one.items}"
                listed.append(InboxItem("labels", f"labels-{folder.name}-{one.cycle:02d}", what, done))
    return listed


def _releases(home: NodeHome) -> list[InboxItem]:
    root = home.file("outbox")
    if not root.is_dir():
        return []
    from fedimb.generation.outbox import Outbox

    box = Outbox(root)
    listed = []
    for name in box.ids():
        try:
            classes = [label for label, now in box.state(name).items() if now == "waiting"]
        except DataError as error:
            listed.append(InboxItem("release", f"release-{name}", str(error), "damaged"))
            continue
        if classes and box.recalled(name) is None:
            look = f"look first: fedimb outbox show {name} --folder {root}"
            text = f"let synthetic samples of {len(classes)} classes go; {look}"
            listed.append(InboxItem("release", f"release-{name}", text, "waiting"))
    return listed


def answer(home: NodeHome, item: str, to: Literal["approved", "rejected"], by: str | None, reason: str = "") -> str:
    """Decide on an item; a plan that was decided on may be decided on again. Returns one line on what that means.

    Args:
        item: its id, or the unique beginning of one.
        by: who decides; None: the account at work.

    Raises:
        ConfigError: no such item, or one that cannot be decided on in this way.
        DataError: the item is damaged.
    """
    found = _find(home, item)
    if found.kind == "labels":
        raise ConfigError(f"{found.id} is answered with labels, not with a decision: {found.text}")
    if found.kind == "plan":
        sha = next(sha for sha in received(home) if found.id == f"plan-{sha[:8]}")
        decide(home, sha, to, by, reason)
        then = "runs within it may train here" if to == "approved" else "nothing under it runs here"
        return f"{found.id} is {to}: {then}"
    from fedimb.generation.outbox import Outbox

    box = Outbox(home.file("outbox"))
    name = next(name for name in box.ids() if found.id == f"release-{name}")
    waiting = [label for label, now in box.state(name).items() if now == "waiting"]
    record(home, "release", name, to, by or getpass.getuser(), reason)
    if to == "approved":
        box.release(name, waiting)
        return f"{found.id}: {len(waiting)} classes may leave"
    box.reject(name, waiting, reason)
    return f"{found.id}: {len(waiting)} classes stay for good"


def _find(home: NodeHome, item: str) -> InboxItem:
    listed = items(home, every=True)
    exact = [one for one in listed if one.id == item] or [one for one in listed if one.id.startswith(item)]
    if not exact:
        raise ConfigError(
            f"nothing called '{item}' is here; see fedimb node inbox.{nearest(item, [i.id for i in listed])}"
        )
    if len(exact) > 1:
        raise ConfigError(f"'{item}' is the beginning of {len(exact)} items: {', '.join(one.id for one in exact)}")
    return exact[0]


def waiting_line(home: NodeHome, run: str) -> str | None:
    """``st-anna (labels 34/60, release)``: for whom and what a run waits here; None: for nothing.

    Written for the coordinator: numbers and kinds, no path. Of plans it is told before a run (`approvals.require`).

    Args:
        run: the run's name in ``worklists/``, as in ``s0-1a2b3c4d``.
    """
    waits = []
    for one in items(home):
        if one.kind == "labels" and one.id.startswith(f"labels-{run}"):
            waits.append(f"labels {one.state}")
        elif one.kind == "release" and one.state == "waiting":
            waits.append("release")
    return f"{home.site} ({', '.join(sorted(set(waits)))})" if waits else None
