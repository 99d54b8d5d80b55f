"""Study plans at a site: received, shown to a person, decided on. Default: nothing is approved.

```
plans/<sha>/plan.json       as received; the folder is named by its hash
plans/<sha>/plan.md, .html  the same for people, written by the site's own fedimb
plans/<sha>/decision.json   approved or rejected, by whom, when; every decision is also a line in the audit log
```
"""

import getpass
import json
from pathlib import Path
from typing import Any, Literal

from fedimb.annotation.private import write_private
from fedimb.deploy.audit_log import AuditLog, utc_now
from fedimb.deploy.files import parsed
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import NOT_APPROVED, WAITING, Shareable
from fedimb.deploy.study_plan.page import as_html, as_markdown
from fedimb.deploy.study_plan.plan import Line, Moment, Sha, StudyPlan, check_config, mismatch, read_plan, site_config
from fedimb.errors import ConfigError, DataError
from fedimb.schema import RunConfig, Strict

State = Literal["approved", "waiting", "rejected", "expired"]


class Decision(Strict):
    """decision.json. ``reason`` stays at the site."""

    sha: Sha
    state: Literal["approved", "rejected"]
    by: Line
    at: Moment
    reason: str = ""


def receive(home: NodeHome, plan_json: str) -> State:
    """Take in a plan the coordinator sent, and say how it stands. A new one waits for a person.

    Raises:
        ConfigError: it is no plan. `Shareable`: it is one, but not for this installation.
    """
    plan = read_plan(plan_json)
    folder = home.file("plans", plan.sha)
    if not (folder / "plan.json").exists():
        if reason := mismatch(plan):
            raise Shareable(NOT_APPROVED, f"{home.site} cannot run plan {plan.sha[:8]}: {reason}")
        home.folder("plans", plan.sha)
        write_private(folder / "plan.md", as_markdown(plan).encode())
        write_private(folder / "plan.html", as_html(plan).encode())
        AuditLog(home.file("audit.jsonl")).append("plan received", {"sha": plan.sha, "purpose": plan.purpose})
        write_private(folder / "plan.json", plan.to_json().encode())  # last: a folder with it is complete
    return state(home, plan.sha)


def load(home: NodeHome, sha: str) -> StudyPlan:
    """A plan received. DataError: none of this hash, or it was changed here."""
    path = home.file("plans", sha, "plan.json")
    try:
        plan = read_plan(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise DataError(f"{path} cannot be read ({error}); have the coordinator send the plan again") from error
    if plan.sha != sha:
        raise DataError(f"{path} was changed: its hash is {plan.sha[:8]}; remove its folder to receive it again")
    return plan


def decision(home: NodeHome, sha: str) -> Decision | None:
    """What was decided on a plan. DataError when the file is damaged."""
    path = home.file("plans", sha, "decision.json")
    if not path.exists():
        return None
    try:
        found = parsed(json.loads(path.read_text(encoding="utf-8")), Decision, str(path))
    except (ValueError, ConfigError) as error:
        raise DataError(f"{path} is damaged ({error}); decide again: fedimb node approve or reject") from error
    if found.sha != sha:
        raise DataError(f"{path} is about another plan ({found.sha[:8]}); decide again: fedimb node approve or reject")
    return found


def state(home: NodeHome, sha: str) -> State:
    """How a received plan stands; past its expiry no approval counts."""
    if load(home, sha).expired():
        return "expired"
    found = decision(home, sha)
    return "waiting" if found is None else found.state


def approved(home: NodeHome, plan_sha: str) -> StudyPlan | None:
    """The plan, if this site has received and approved it, its time is not over and this installation keeps to it."""
    if not home.file("plans", plan_sha, "plan.json").is_file() or state(home, plan_sha) != "approved":
        return None
    plan = load(home, plan_sha)
    return None if mismatch(plan) else plan


def require(home: NodeHome, plan_json: str, config_json: str) -> tuple[StudyPlan, RunConfig]:
    """The plan that covers a run, and its configuration; or why the site takes no part, in words for the coordinator.

    Args:
        config_json: the run's configuration, as it came; no class it names by a path is imported.

    Raises:
        Shareable: waiting, rejected, expired, for another installation, or the configuration is outside the plan.
        ConfigError: it is no plan.
    """
    sha, stands = read_plan(plan_json).sha, receive(home, plan_json)
    if stands == "waiting":
        raise Shareable(WAITING, f"waiting: {home.site} (plan {sha[:8]})")
    if stands != "approved":
        raise Shareable(NOT_APPROVED, f"{home.site}: plan {sha[:8]} is {stands}")
    plan = load(home, sha)
    if reason := mismatch(plan):
        raise Shareable(NOT_APPROVED, f"{home.site} cannot run plan {sha[:8]}: {reason}")
    try:
        config = site_config(config_json)
        check_config(plan, config)
    except ConfigError as error:
        raise Shareable(NOT_APPROVED, f"{home.site}: {error}") from None
    return plan, config


def decide(home: NodeHome, sha: str, to: Literal["approved", "rejected"], by: str | None, reason: str = "") -> Decision:
    """Approve or reject a plan; a later decision replaces an earlier one. The audit line is written first.

    Args:
        by: who decides; None: the account at work.

    Raises:
        ConfigError: the plan has expired, or is not for this installation.
    """
    plan = load(home, sha)
    if to == "approved":
        if plan.expired():
            raise ConfigError(f"plan {sha[:8]} expired on {plan.expires}: ask the coordinator for a new one")
        if why := mismatch(plan):
            raise ConfigError(f"plan {sha[:8]} cannot be approved here: {why}")
    made = parsed(
        {"sha": sha, "state": to, "by": by or getpass.getuser(), "at": utc_now(), "reason": reason},
        Decision,
        "decision",
    )
    record(home, "plan", sha, made.state, made.by, reason)
    write_private(home.file("plans", sha, "decision.json"), (made.model_dump_json(indent=1) + "\n").encode())
    return made


def record(home: NodeHome, kind: str, item: str, to: str, by: str, reason: str) -> None:
    """A decision's line in the audit log."""
    facts: dict[str, Any] = {"item": kind, "sha": item, "to": to, "by": by, "reason": reason}
    AuditLog(home.file("audit.jsonl")).append("decision", facts)


def received(home: NodeHome) -> list[str]:
    """Hashes of the plans received, sorted."""
    folder: Path = home.file("plans")
    return sorted(path.parent.name for path in folder.glob("*/plan.json"))
