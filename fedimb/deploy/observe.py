"""What a supervisor looks at besides its process: disk, inbox, certificate, and whether the coordinator answers."""

import ssl
from dataclasses import dataclass, field
from importlib.metadata import version

from fedimb import __version__
from fedimb.deploy.home import NodeHome
from fedimb.deploy.limits import Disk, disk
from fedimb.deploy.pki import expires, expiry_warning
from fedimb.deploy.status import Status
from fedimb.deploy.supernode import LOOPBACK, roots
from fedimb.errors import FedimbError

_ASK_S = 4.0


@dataclass
class Observed:
    """One look; see `observe`."""

    disk: Disk | None = None
    inbox: int = 0
    certificate: str | None = None
    warnings: list[str] = field(default_factory=list)

    def fill(self, status: Status) -> None:
        """Copy into a status."""
        status.inbox, status.certificate, status.warnings = self.inbox, self.certificate, list(self.warnings)
        status.fedimb, status.flower = __version__, version("flwr")
        if self.disk is not None:
            status.disk = {"used": self.disk.used, "free": self.disk.free, "limit": self.disk.limit}


def observe(home: NodeHome) -> Observed:
    """Disk, inbox and certificate of a node; what cannot be read becomes a warning."""
    found = Observed(disk=disk(home.root, home.config.limits))
    if found.disk is not None and (line := found.disk.warning()):
        found.warnings.append(line)
    authority = home.file("ca.crt")
    try:
        found.certificate = expires(authority.read_bytes()).strftime("%Y-%m-%dT%H:%M:%SZ")
        if line := expiry_warning(authority, "ask the coordinator for the new one"):
            found.warnings.append(line)
        found.inbox = _waiting(home)
    except (OSError, FedimbError) as error:
        found.warnings.append(str(error))
    return found


def _waiting(home: NodeHome) -> int:
    from fedimb.deploy.inbox import items

    return len(items(home))


def unreachable(home: NodeHome) -> str | None:
    """Why the coordinator cannot be reached from here, with what to look at; None when it answers at all.

    Flower itself tries for ever and says nothing, also when the certificate is wrong. The request names no site.
    """
    import httpx

    address = home.config.coordinator
    if address is None:
        return "node.yaml names no coordinator"
    host = f"[{address.host}]" if ":" in address.host else address.host
    context = ssl.create_default_context(cafile=str(roots(home)))
    proxy = None if address.host in LOOPBACK else home.config.proxy
    try:
        with httpx.Client(
            verify=context, proxy=proxy, trust_env=address.host not in LOOPBACK, timeout=_ASK_S
        ) as client:
            client.get(f"https://{host}:{address.port}/health")
    except httpx.ProxyError as error:
        return f"the proxy did not let the connection through ({error}): node.yaml's proxy, or the proxy's own rules"
    except (httpx.TransportError, httpx.InvalidURL) as error:
        if "CERTIFICATE_VERIFY" in str(error) or "certificate verify" in str(error):
            return (
                f"whoever answers there is not the coordinator that ca.crt vouches for ({error}); behind a proxy that "
                "opens TLS set ca_bundle"
            )
        return f"no connection ({type(error).__name__}: {error}): host, port, firewall, proxy"
    return None
