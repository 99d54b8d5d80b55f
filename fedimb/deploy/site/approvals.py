"""Study plans at a site: receiving, showing and deciding on them. Nothing is approved by default.

```
plans/<sha>/plan.json       as received; the folder is named by its hash
plans/<sha>/plan.md, .html  the same for people to read, written by the site's own fedimb
plans/<sha>/decision.json   approved or rejected, by whom, when; every decision is also logged in the audit log
```
"""

import getpass
import json
from pathlib import Path
from typing import Any, Literal

from fedimb.annotation.private import write_private
from fedimb.deploy.audit_log import AuditLog, utc_now
from fedimb.deploy.files import parse_settings
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import NOT_APPROVED, WAITING, Shareable
from fedimb.deploy.site.membership import plan_mismatch
from fedimb.deploy.study_plan.page import as_html, as_markdown
from fedimb.deploy.study_plan.plan import Line, Sha, StudyPlan, UtcTime, check_config, mismatch, read_plan, site_config
from fedimb.errors import ConfigError, DataError
from fedimb.schema import RunConfig, Strict

State = Literal["approved", "waiting", "rejected", "expired"]


class Decision(Strict):
    """A site's decision on a plan, as stored in decision.json.

    Attributes:
        sha: hash of the plan.
        state: approved or rejected.
        by, at: who decided, and when (UTC).
        reason: why; it stays at the site.
    """

    sha: Sha
    state: Literal["approved", "rejected"]
    by: Line
    at: UtcTime
    reason: str = ""


def receive_plan(home: NodeHome, plan_json: str) -> State:
    """Store a plan that the coordinator sent, and return its state. A new plan waits for a person's decision.

    Raises:
        ConfigError: it is not a plan.
        Shareable: it is a plan, but not for this installation.
    """
    plan = read_plan(plan_json)
    folder = home.file("plans", plan.sha)
    if not (folder / "plan.json").exists():
        if reason := mismatch(plan):
            raise Shareable(NOT_APPROVED, f"{home.site} cannot run plan {plan.sha}: {reason}")
        home.folder("plans", plan.sha)
        write_private(folder / "plan.md", as_markdown(plan).encode())
        write_private(folder / "plan.html", as_html(plan).encode())
        AuditLog(home.file("audit.jsonl")).append("plan received", {"sha": plan.sha, "purpose": plan.purpose})
        write_private(folder / "plan.json", plan.to_json().encode())  # last: a folder with it is complete
    return plan_state(home, plan.sha)


def load_plan(home: NodeHome, sha: str) -> StudyPlan:
    """Load a received plan. Raises DataError if there is none with this hash, or if it was changed here."""
    path = home.file("plans", sha, "plan.json")
    try:
        plan = read_plan(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise DataError(f"{path} cannot be read ({error}); have the coordinator send the plan again") from error
    if plan.sha != sha:
        raise DataError(f"{path} was changed: its hash is now {plan.sha}; delete its folder to receive it again")
    return plan


def read_decision(home: NodeHome, sha: str) -> Decision | None:
    """The decision on a plan, or None. Raises DataError if the file is damaged."""
    path = home.file("plans", sha, "decision.json")
    if not path.exists():
        return None
    try:
        found = parse_settings(json.loads(path.read_text(encoding="utf-8")), Decision, str(path))
    except (ValueError, ConfigError) as error:
        raise DataError(f"{path} is damaged ({error}); decide again: fedimb node approve or reject") from error
    if found.sha != sha:
        raise DataError(f"{path} is about another plan ({found.sha}); decide again: fedimb node approve or reject")
    return found


def plan_state(home: NodeHome, sha: str) -> State:
    """State of a received plan. After its expiry an approval no longer counts."""
    if load_plan(home, sha).expired():
        return "expired"
    found = read_decision(home, sha)
    return "waiting" if found is None else found.state


def approved_plan(home: NodeHome, plan_sha: str) -> StudyPlan | None:
    """The plan, if this site approved it, it has not expired, and this installation can run it; else None."""
    if not home.file("plans", plan_sha, "plan.json").is_file() or plan_state(home, plan_sha) != "approved":
        return None
    plan = load_plan(home, plan_sha)
    return None if mismatch(plan) else plan


def require_approval(home: NodeHome, plan_json: str, config_json: str) -> tuple[StudyPlan, RunConfig]:
    """The plan that covers a run, and the run's configuration.

    Args:
        plan_json: the plan, as received.
        config_json: the run's configuration, as received; classes it names by an import path are not imported.

    Raises:
        Shareable: the plan is waiting, rejected, expired or for another installation, or does not cover the
            configuration.
        ConfigError: it is not a plan.
    """
    sha, current = read_plan(plan_json).sha, receive_plan(home, plan_json)
    if current == "waiting":
        raise Shareable(WAITING, f"waiting: {home.site} (plan {sha})")
    if current != "approved":
        raise Shareable(NOT_APPROVED, f"{home.site}: plan {sha} is {current}")
    plan = load_plan(home, sha)
    if reason := mismatch(plan):
        raise Shareable(NOT_APPROVED, f"{home.site} cannot run plan {sha}: {reason}")
    try:
        config = site_config(config_json)
        check_config(plan, config)
    except ConfigError as error:
        raise Shareable(NOT_APPROVED, f"{home.site}: {error}") from None
    return plan, config


def decide_plan(
    home: NodeHome, sha: str, to: Literal["approved", "rejected"], by: str | None, reason: str = ""
) -> Decision:
    """Approve or reject a plan. A later decision replaces an earlier one. The audit line is written first.

    Args:
        sha: hash of the plan.
        to: the decision.
        by: who decides (default: the current user account).
        reason: why; it stays at the site.

    Raises:
        ConfigError: the plan has expired, or is not for this site or installation.
    """
    plan = load_plan(home, sha)
    if to == "approved":
        if why := plan_mismatch(home, plan):
            raise ConfigError(why)
        if plan.expired():
            raise ConfigError(f"plan {sha} expired on {plan.expires}: ask the coordinator for a new one")
        if why := mismatch(plan):
            raise ConfigError(f"plan {sha} cannot be approved here: {why}")
    made = parse_settings(
        {"sha": sha, "state": to, "by": decider(by), "at": utc_now(), "reason": reason},
        Decision,
        "decision",
    )
    log_decision(home, "plan", sha, made.state, made.by, reason)
    write_private(home.file("plans", sha, "decision.json"), (made.model_dump_json(indent=1) + "\n").encode())
    return made


def decider(by: str | None) -> str:
    """Who decides: the name that was given, or the current user account if none was. ConfigError if it is empty."""
    if by is not None and not by.strip():
        raise ConfigError("--by is empty: give the name of who decides, as the audit log shall say it")
    return getpass.getuser() if by is None else by


def log_decision(home: NodeHome, kind: str, item: str, to: str, by: str, reason: str) -> None:
    """Write a decision to the audit log."""
    facts: dict[str, Any] = {"item": kind, "sha": item, "to": to, "by": by, "reason": reason}
    AuditLog(home.file("audit.jsonl")).append("decision", facts)


def received_plans(home: NodeHome) -> list[str]:
    """Sorted hashes of the received plans."""
    folder: Path = home.file("plans")
    return sorted(path.parent.name for path in folder.glob("*/plan.json"))
