"""The inbox of a site: study plans, labels and releases that wait for a person.

Nothing runs while a person is asked: the run has ended with exit code 75 and is resumed after they have answered.
"""

import re
from dataclasses import dataclass
from typing import Literal

from fedimb.annotation.status import cycle_statuses, find_worklists
from fedimb.deploy.home import NodeHome
from fedimb.deploy.site.approvals import decide_plan, decider, load_plan, log_decision, plan_state, received_plans
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.errors import ConfigError, DataError, nearest

WORKLISTS = "worklists"
"""Subfolder of a node's folder for worklists: `fedimb.annotation` writes there if ``FEDIMB_SITE_DIR`` is the folder."""

_ANSWERED = ("ready", "imported")


@dataclass(frozen=True)
class InboxItem:
    """One item to decide on or to work on.

    Attributes:
        kind: study plan, labels or release of synthetic samples.
        id: ``plan-<sha>``, ``labels-s0-1a2b3c4d-03`` or ``release-4f0a...``, as approve and reject take it.
        text: description, one line.
        state: ``waiting``; for labels the progress, as in ``34/60``; for plans also approved, rejected or expired.
    """

    kind: Literal["plan", "labels", "release"]
    id: str
    text: str
    state: str


def inbox_items(home: NodeHome, include_decided: bool = False) -> list[InboxItem]:
    """List what is waiting for a decision. A damaged item is listed with a description of the damage.

    Args:
        include_decided: also list plans that have been decided on.
    """
    found = [*_plans(home), *_labels(home), *_releases(home)]
    return [item for item in found if include_decided or item.state not in ("approved", "rejected", "expired")]


def _plans(home: NodeHome) -> list[InboxItem]:
    listed = []
    for sha in received_plans(home):
        try:
            plan = load_plan(home, sha)
            text = f"{plan.purpose} (until {plan.expires[:10]}, {', '.join(plan.contacts)})"
            listed.append(InboxItem("plan", f"plan-{sha}", text, plan_state(home, sha)))
        except DataError as error:
            listed.append(InboxItem("plan", f"plan-{sha}", str(error), "damaged"))
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
            text = f"release synthetic samples of {len(classes)} classes; {look}"
            listed.append(InboxItem("release", f"release-{name}", text, "waiting"))
    return listed


def decide_item(
    home: NodeHome,
    item: str,
    to: Literal["approved", "rejected"],
    by: str | None,
    reason: str = "",
    word: str | None = None,
) -> str:
    """Approve or reject an item; a decision on a plan can be changed later. Returns one line on what it means.

    Args:
        home: the node's folder.
        item: its id, or a unique prefix of it.
        to: the decision.
        by: who decides (default: the current user account).
        reason: why; it stays at the site.
        word: a word of the plan's purpose: to approve a plan by less than its complete id.

    Raises:
        ConfigError: there is no such item, it cannot be approved or rejected, or a plan is named too vaguely to be
            approved.
        DataError: the item is damaged.
    """
    found = _find(home, item)
    if found.kind == "labels":
        raise ConfigError(f"{found.id} needs labels, not a decision: {found.text}")
    if found.kind == "plan":
        sha = found.id.removeprefix("plan-")
        plan = load_plan(home, sha) if to == "approved" else None
        if plan is not None and item.removeprefix("plan-") != sha:
            _check_word(plan, word)
        decide_plan(home, sha, to, by, reason)
        if plan is None:
            return f"{found.id} is rejected: nothing runs under this plan here"
        keys = [f"  {site.name}  {site.fingerprint}" for site in plan.sites]
        keys += [f"  coordinator  {plan.coordinator_fingerprint}"]
        return "\n".join([
            f"{found.id} is approved by {decider(by)}: runs under this plan may train here",
            "Compare these keys with the sites and the coordinator, by telephone; reject the plan if one differs:",
            *keys,
        ])  # fmt: skip
    from fedimb.generation.outbox import Outbox

    box = Outbox(home.file("outbox"))
    name = next(name for name in box.ids() if found.id == f"release-{name}")
    waiting = [label for label, now in box.state(name).items() if now == "waiting"]
    log_decision(home, "release", name, to, decider(by), reason)
    if to == "approved":
        box.release(name, waiting)
        return f"{found.id}: {len(waiting)} classes may leave"
    box.reject(name, waiting, reason)
    return f"{found.id}: {len(waiting)} classes will never leave"


def _check_word(plan: StudyPlan, word: str | None) -> None:
    """Refuse to approve a plan by the beginning of its id alone: another plan can be made with the same beginning."""
    words = {one.casefold() for one in re.findall(r"\w{4,}", plan.purpose)}
    if word is None or word.casefold() not in words:
        wrong = "" if word is None else f"'{word}' is not a word of its purpose, of at least four letters. "
        raise ConfigError(
            f"{wrong}To approve a plan, give its complete id or a word of its purpose, as in --word TEXT; read it "
            f"first: fedimb node inbox plan-{plan.sha}"
        )


def _find(home: NodeHome, item: str) -> InboxItem:
    listed = inbox_items(home, include_decided=True)
    exact = [one for one in listed if one.id == item] or [one for one in listed if one.id.startswith(item)]
    if not exact:
        raise ConfigError(f"there is no item '{item}'; see fedimb node inbox.{nearest(item, [i.id for i in listed])}")
    if len(exact) > 1:
        raise ConfigError(f"'{item}' matches {len(exact)} items: {', '.join(one.id for one in exact)}")
    return exact[0]


def waiting_line(home: NodeHome, run: str) -> str | None:
    """What a run waits for at this site, as in ``st-anna (labels 34/60, release)``; None if it waits for nothing.

    The text is for the coordinator: numbers and kinds, no paths. Plans are checked earlier, when the run joins
    (`fedimb.deploy.site.approvals.require_approval`).

    Args:
        run: the run's name in ``worklists/``, as in ``s0-1a2b3c4d``.
    """
    waiting = []
    for one in inbox_items(home):
        if one.kind == "labels" and one.id.startswith(f"labels-{run}"):
            waiting.append(f"labels {one.state}")
        elif one.kind == "release" and one.state == "waiting":
            waiting.append("release")
    return f"{home.site} ({', '.join(sorted(set(waiting)))})" if waiting else None
