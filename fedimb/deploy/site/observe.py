"""What a supervisor checks apart from its process: disk, inbox, certificate, and whether the coordinator responds."""

from dataclasses import dataclass, field
from importlib.metadata import version

from fedimb import __version__
from fedimb.deploy.checks import Check
from fedimb.deploy.home import NodeHome
from fedimb.deploy.pki import expires, expiry_warning
from fedimb.deploy.site.limits import Disk, disk_usage
from fedimb.deploy.site.reach import reach
from fedimb.deploy.site.status import Status
from fedimb.errors import FedimbError

_ASK_S = 4.0


@dataclass
class Observation:
    """Results of one check, see `observe`.

    Attributes:
        disk: disk usage.
        inbox: number of items that wait for a person.
        certificate: when the coordinator's authority expires, UTC.
        warnings: things that need attention.
    """

    disk: Disk | None = None
    inbox: int = 0
    certificate: str | None = None
    warnings: list[str] = field(default_factory=list)

    def fill(self, status: Status) -> None:
        """Copy the results into a status."""
        status.inbox, status.certificate, status.warnings = self.inbox, self.certificate, list(self.warnings)
        status.fedimb, status.flower = __version__, version("flwr")
        if self.disk is not None:
            status.disk = {"used": self.disk.used, "free": self.disk.free, "limit": self.disk.limit}


def observe(home: NodeHome) -> Observation:
    """Check a node's disk, inbox and certificate. Anything that cannot be read becomes a warning."""
    found = Observation(disk=disk_usage(home.root, home.config.limits))
    if found.disk is not None and (line := found.disk.warning()):
        found.warnings.append(line)
    authority = home.file("ca.crt")
    try:
        found.inbox = _waiting(home)
        found.certificate = expires(authority.read_bytes()).strftime("%Y-%m-%dT%H:%M:%SZ")
        if line := expiry_warning(authority, "ask the coordinator for the new one"):
            found.warnings.append(line)
    except (OSError, FedimbError) as error:
        found.warnings.append(str(error))
    return found


def _waiting(home: NodeHome) -> int:
    from fedimb.deploy.site.inbox import inbox_items

    return len(inbox_items(home))


def check_coordinator(home: NodeHome) -> tuple[str | None, list[str]]:
    """Why the coordinator cannot be reached, with the remedy (None if it responds), and a list of warnings.

    Flower itself retries forever and says nothing, even if the certificate or the clock is wrong.
    """
    checks = list(reach(home, _ASK_S))
    lines = {level: [_line(check) for check in checks if check.level == level] for level in ("fail", "warn")}
    return next(iter(lines["fail"]), None), lines["warn"]


def preflight(home: NodeHome) -> list[str]:
    """Warnings before the node starts: checks of the installation and of all registered data sets.

    The node starts in any case, because plans and approvals need a running node. Data that fail a check are refused
    when a run asks for them.
    """
    from fedimb.deploy.site.check import versions
    from fedimb.deploy.site.data_checks import data_checks

    return [_line(check) for check in (*versions(None), *data_checks(home, None)) if check.level != "ok"]


def _line(check: Check) -> str:
    return f"{check.name}: {check.found}" + (f": {check.remedy}" if check.remedy else "")
