"""``fedimb node check``: can this node take part, and if not, what must be done."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb import __version__
from fedimb.deploy.checks import Check, packages
from fedimb.deploy.files import refuse_readable
from fedimb.deploy.home import NodeHome
from fedimb.deploy.pki import EXPIRES_SOON_DAYS, expires
from fedimb.deploy.site.data_checks import data_checks
from fedimb.deploy.site.limits import GB, disk_usage
from fedimb.deploy.site.reach import TIMEOUT_S, reach
from fedimb.errors import ConfigError, FedimbError
from fedimb.plain import JsonObject

if TYPE_CHECKING:
    from fedimb.deploy.study_plan.plan import StudyPlan  # imports torch: only needed with a plan

__all__ = ["Check", "all_pass", "node_checks", "open_plan", "report"]


def node_checks(home: NodeHome, plan: "StudyPlan | None" = None, timeout_s: float = TIMEOUT_S) -> Iterator[Check]:
    """All checks, in the order they are printed: data, versions, key, authority, disk, proxy, coordinator, clock.

    Args:
        home: the node's folder.
        plan: the study plan; None: skip the checks that need one.
        timeout_s: seconds to wait for the coordinator's response.
    """
    yield from data_checks(home, plan)
    yield from versions(plan)
    if plan is not None:
        yield membership(home, plan)
    yield key(home)
    yield authority(home)
    yield space(home)
    yield from reach(home, timeout_s)


def all_pass(checks: Iterable[Check]) -> bool:
    """Whether no check failed."""
    return all(check.level != "fail" for check in checks)


def report(home: NodeHome, checks: Iterable[Check]) -> JsonObject:
    """The results, for JSON output."""
    found = list(checks)
    return {
        "site": home.site,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "fit": all_pass(found),
        "checks": [vars(check) for check in found],
    }


def open_plan(path: str | Path) -> "StudyPlan":
    """Read a plan's file. Raises ConfigError if it is missing or not a plan."""
    from fedimb.deploy.study_plan.plan import read_plan

    try:
        return read_plan(Path(path).expanduser().read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{path} cannot be read as a study plan: {why}; give the coordinator's plan.json") from error


def versions(plan: "StudyPlan | None") -> Iterator[Check]:
    """Check the installation, and compare its release and contracts with the plan's."""
    yield from (check for check in packages() if check.level != "ok")
    if plan is None:
        yield Check("ok", "versions", f"fedimb {__version__}; give --plan to compare it with the coordinator's")
        return
    from fedimb.deploy.bundle_hash import bundle_sha
    from fedimb.deploy.study_plan.plan import Release, mismatch

    if plan.expired():
        yield Check("fail", "plan", f"it expired on {plan.expires}", "ask the coordinator for a new plan")
    here, theirs = Release(fedimb=__version__, bundle=bundle_sha()), plan.release
    remedy = "install the coordinator's release of fedimb"
    if reason := mismatch(plan.model_copy(update={"release": here})):
        yield Check("fail", "contracts", reason, remedy)
    elif theirs.bundle != here.bundle or theirs.fedimb.partition(".")[0] != __version__.partition(".")[0]:
        yield Check(
            "fail", "versions", f"fedimb {__version__}; the coordinator's {theirs.fedimb} ships another bundle", remedy
        )
    elif theirs.fedimb != __version__:
        found = f"fedimb {__version__}, the coordinator's is {theirs.fedimb}; bundle and contracts are the same"
        yield Check("warn", "versions", found, "install the plan's release: an approval holds for that release only")
    else:
        yield Check("ok", "versions", f"fedimb {__version__}; bundle and contracts match the plan")


def membership(home: NodeHome, plan: "StudyPlan") -> Check:
    """Whether the plan lists this site with its key."""
    from fedimb.deploy.site.membership import plan_mismatch

    try:
        reason = plan_mismatch(home, plan)
    except FedimbError as error:
        reason = str(error)
    if reason is not None:
        return Check("fail", "plan", reason, "ask the coordinator for a plan with this site and its key")
    return Check("ok", "plan", f"lists this site as client {plan.client_of(home.site)}, with its key")


def key(home: NodeHome) -> Check:
    """The site's key exists and is readable by its owner only."""
    path = home.file("key")
    if not path.is_file():
        return Check("fail", "key", f"{path} does not exist", "make it with fedimb node init, at the site")
    try:
        refuse_readable(path)
    except ConfigError as error:
        return Check("fail", "key", str(error), "if others may have read it, run fedimb node rotate")
    return Check("ok", "key", f"{path}, readable by its owner only")


def authority(home: NodeHome) -> Check:
    """How long the coordinator's authority is valid. `reach` checks whether it is the confirmed one."""
    path = home.file("ca.crt")
    try:
        end = expires(path.read_bytes())
    except (OSError, FedimbError) as error:
        return Check("fail", "ca.crt", f"{path}: {error}", "ask the coordinator for it")
    days = (end - datetime.now(UTC)).days
    if days < 0:
        return Check("fail", "ca.crt", f"expired on {end:%Y-%m-%d}", "ask the coordinator for the new one")
    if days <= EXPIRES_SOON_DAYS:
        return Check("warn", "ca.crt", f"ends in {days} days, {end:%Y-%m-%d}", "ask the coordinator for the new one")
    return Check("ok", "ca.crt", f"valid until {end:%Y-%m-%d}")


def space(home: NodeHome) -> Check:
    """Disk space for caches and client state, and the site's own limit."""
    now = disk_usage(home.root, home.config.limits)
    if reason := now.refusal():
        return Check("fail", "disk", reason, "see limits: in node.yaml")
    if reason := now.warning():
        return Check("warn", "disk", reason, "free some space before the node stops")
    return Check("ok", "disk", f"{now.free / GB:.1f} GB free; the node's folder takes {now.used / GB:.2f} GB")
