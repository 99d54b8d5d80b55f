"""``fedimb node check``: can this node take part, and if not, who must do what."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb import __version__
from fedimb.deploy.checks import Check, packages
from fedimb.deploy.files import refuse_readable
from fedimb.deploy.home import NodeHome
from fedimb.deploy.pki import EXPIRES_SOON_DAYS, expires
from fedimb.deploy.site.data_checks import data_checks, refuse_unfit
from fedimb.deploy.site.limits import GB, disk
from fedimb.deploy.site.reach import TIMEOUT_S, reach
from fedimb.errors import ConfigError, FedimbError
from fedimb.plain import JsonObject

if TYPE_CHECKING:
    from fedimb.deploy.study_plan.plan import StudyPlan  # loads torch: only where there is a plan

__all__ = ["Check", "facts", "fit", "node_checks", "open_plan", "refuse_unfit"]


def node_checks(home: NodeHome, plan: "StudyPlan | None" = None, timeout_s: float = TIMEOUT_S) -> Iterator[Check]:
    """Every check, in the order it is printed: data, versions, key, authority, disk, proxy, coordinator, clock.

    Args:
        plan: the study's; None: what needs one is left out.
        timeout_s: for the coordinator to answer.
    """
    yield from data_checks(home, plan)
    yield from versions(plan)
    yield key(home)
    yield authority(home)
    yield space(home)
    yield from reach(home, timeout_s)


def fit(checks: Iterable[Check]) -> bool:
    """Whether none says fail."""
    return all(check.level != "fail" for check in checks)


def facts(home: NodeHome, checks: Iterable[Check]) -> JsonObject:
    """What was found, for JSON."""
    found = list(checks)
    return {
        "site": home.site,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "fit": fit(found),
        "checks": [vars(check) for check in found],
    }


def open_plan(path: str | Path) -> "StudyPlan":
    """A plan's file. ConfigError when it is missing or no plan."""
    from fedimb.deploy.study_plan.plan import read_plan

    try:
        return read_plan(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a study plan: {error}") from error


def versions(plan: "StudyPlan | None") -> Iterator[Check]:
    """The installation, and its release and contracts against the plan's."""
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
            "fail", "versions", f"fedimb {__version__}, the coordinator's {theirs.fedimb} ships another", remedy
        )
    elif theirs.fedimb != __version__:
        found = f"fedimb {__version__}, the coordinator's is {theirs.fedimb}; bundle and contracts are the same"
        yield Check("warn", "versions", found, "a plan is approved under its own release alone: install it")
    else:
        yield Check("ok", "versions", f"fedimb {__version__}; bundle and contracts are the plan's")


def key(home: NodeHome) -> Check:
    """The site's key: there, and its owner's alone."""
    path = home.file("key")
    if not path.is_file():
        return Check("fail", "key", f"there is no {path}", "fedimb node init makes it, at the site")
    try:
        refuse_readable(path)
    except ConfigError as error:
        return Check("fail", "key", str(error), "then fedimb node rotate, if others may have read it")
    return Check("ok", "key", f"{path}, read by its owner alone")


def authority(home: NodeHome) -> Check:
    """How long the coordinator's authority is valid; whether it is the one confirmed is `reach`'s to say."""
    path = home.file("ca.crt")
    try:
        end = expires(path.read_bytes())
    except (OSError, FedimbError) as error:
        return Check("fail", "ca.crt", f"{path}: {error}", "the coordinator gives it out")
    days = (end - datetime.now(UTC)).days
    if days < 0:
        return Check("fail", "ca.crt", f"expired on {end:%Y-%m-%d}", "ask the coordinator for the new one")
    if days <= EXPIRES_SOON_DAYS:
        return Check("warn", "ca.crt", f"ends in {days} days, {end:%Y-%m-%d}", "ask the coordinator for the new one")
    return Check("ok", "ca.crt", f"valid until {end:%Y-%m-%d}")


def space(home: NodeHome) -> Check:
    """Room for caches and client state, and the site's own limit."""
    now = disk(home.root, home.config.limits)
    if reason := now.refusal():
        return Check("fail", "disk", reason, "see limits: in node.yaml")
    if reason := now.warning():
        return Check("warn", "disk", reason, "free some, before the node stops")
    return Check("ok", "disk", f"{now.free / GB:.1f} GB free; the node's folder holds {now.used / GB:.2f} GB")
