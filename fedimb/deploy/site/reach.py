"""Is the coordinator reachable as a node will reach it: its address, a proxy, its certificate, its clock.

One HTTPS request to ``/``, which the coordinator's nginx answers with 403: that it answers is enough. Its ``Date``
header (RFC 9110 section 6.6.1) is compared with this machine's clock, as Flower's node authentication refuses what is
signed more than 300 s away.
"""

import base64
import http.client
import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from fedimb.deploy.checks import Check
from fedimb.deploy.home import NodeConfig, NodeHome
from fedimb.deploy.pki import EXPIRES_SOON_DAYS
from fedimb.deploy.site.supernode import proxy_variables, roots
from fedimb.errors import ConfigError

WINDOW_S = 300
"""Flower's node authentication accepts a signature so many seconds old."""
_WARN_S = 60
TIMEOUT_S = 15.0


def reach(home: NodeHome, timeout_s: float = TIMEOUT_S) -> Iterator[Check]:
    """The checks ``proxy``, ``coordinator``, ``certificate``, ``clock``; no certificate and no clock where nothing
    answers. Raises nothing."""
    config = home.config
    if config.coordinator is None:
        yield Check(
            "fail", "coordinator", "node.yaml names none", "give host, port and ca_fingerprint (fedimb node init)"
        )
        return
    try:
        proxy, trusted = proxy_for(config, os.environ), roots(home)
    except ConfigError as error:
        yield Check("fail", "coordinator", str(error), "mend node.yaml or ca.crt")
        return
    yield Check("ok", "proxy", _through(proxy))
    host, port = config.coordinator.host, config.coordinator.port
    try:
        answer = _ask(host, port, proxy, str(trusted), timeout_s)
    except (OSError, http.client.HTTPException) as error:
        found, remedy = _explained(error, proxy)
        yield Check("fail", "coordinator", f"{host}:{port}: {found}", remedy)
        return
    yield Check("ok", "coordinator", f"{host}:{port} answers with {answer.tls}, signed by the authority in ca.crt")
    yield _expiry(answer.expires)
    yield _clock(answer.date, answer.asked)


def proxy_for(config: NodeConfig, given: Mapping[str, str]) -> str | None:
    """The proxy a node will use to its coordinator: node.yaml's, else the environment's; None where NO_PROXY says so.

    Raises:
        ConfigError: ``proxy:`` is no address.
    """
    variables = {**given, **proxy_variables(config, given)}
    found = next((variables[name] for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY") if variables.get(name)), None)
    host = config.coordinator.host if config.coordinator else ""
    return None if found is None or proxy_bypass_environment(host, {"no": variables["NO_PROXY"]}) else found


class _Answer:
    """TLS version, end of the certificate (UTC), the ``Date`` header, and this machine's time in between."""

    def __init__(self, tls: str, expires: datetime, date: str | None, asked: float) -> None:
        self.tls, self.expires, self.date, self.asked = tls, expires, date, asked


def _ask(host: str, port: int, proxy: str | None, trusted: str, timeout_s: float) -> _Answer:
    context = ssl.create_default_context(cafile=trusted)
    if proxy is None:
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    else:
        parts = urlsplit(proxy)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 80, timeout=timeout_s, context=context
        )
        headers = {}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login).decode()
        connection.set_tunnel(host, port, headers)
    try:
        connection.connect()
        tls = connection.sock
        assert isinstance(tls, ssl.SSLSocket)
        end = ssl.cert_time_to_seconds(str((tls.getpeercert() or {})["notAfter"]))
        version = tls.version() or "TLS"
        before = time.time()
        connection.request("GET", "/", headers={"User-Agent": "fedimb-node-check"})
        date = connection.getresponse().getheader("Date")
        return _Answer(version, datetime.fromtimestamp(end, UTC), date, (before + time.time()) / 2)
    finally:
        connection.close()


def _explained(error: Exception, proxy: str | None) -> tuple[str, str]:
    """What happened, and what to do, in words for the hospital's network people."""
    through = "" if proxy is None else " through the proxy"
    firewall = "ask for outbound TCP to this address and port, or give proxy: in node.yaml"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is refused ({error.verify_message})",
            "an inspecting firewall shows its own: ask for an exception, or give its authority as ca_bundle: in "
            "node.yaml; else ask the coordinator (wrong host name, expired certificate, another ca.crt)",
        )
    if isinstance(error, ssl.SSLError):
        return f"no TLS on this port ({error.reason or error})", "check host and port in node.yaml"
    if isinstance(error, socket.gaierror):
        place = "the proxy's name" if proxy else "the name"
        return f"{place} is not known here ({error.strerror})", "check it in node.yaml, and this machine's DNS"
    if isinstance(error, TimeoutError):
        return f"no answer{through} in time", firewall
    if isinstance(error, ConnectionRefusedError):
        place = "the proxy refuses connections" if proxy else "nothing listens there"
        return place, "check host and port in node.yaml; is the coordinator up? (fedimb deploy up)"
    if "Tunnel connection failed" in str(error):
        return (
            f"the proxy refuses: {error}",
            "ask for CONNECT to this address and port; is a user name needed in proxy:?",
        )
    return f"no connection{through} ({type(error).__name__}: {error})", firewall


def _through(proxy: str | None) -> str:
    if proxy is None:
        return "none: the node connects directly"
    parts = urlsplit(proxy)  # the whole address may hold a password
    return f"{parts.hostname}:{parts.port or 80}"


def _expiry(end: datetime) -> Check:
    days = (end - datetime.now(UTC)).days
    if days <= EXPIRES_SOON_DAYS:
        return Check(
            "warn", "certificate", f"the coordinator's ends in {days} days, {end:%Y-%m-%d}", "tell the coordinator"
        )
    return Check("ok", "certificate", f"the coordinator's is valid until {end:%Y-%m-%d}")


def _clock(date: str | None, asked: float) -> Check:
    try:
        away = asked - parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return Check("warn", "clock", "the coordinator's answer has no date", "compare this machine's clock yourself")
    words = f"{abs(away):.0f} s {'ahead of' if away > 0 else 'behind'} the coordinator's"
    remedy = "set this machine's clock (timedatectl set-ntp true), and ask the coordinator to check theirs"
    if abs(away) >= WINDOW_S:
        return Check("fail", "clock", f"{words}: node authentication fails from {WINDOW_S} s on", remedy)
    if abs(away) >= _WARN_S:
        return Check("warn", "clock", words, remedy)
    return Check("ok", "clock", words if abs(away) >= 2 else "agrees with the coordinator's")
