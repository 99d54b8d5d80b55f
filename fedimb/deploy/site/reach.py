"""Check that the coordinator is reachable the way a node will reach it: address, proxy, certificate, clock.

One HTTPS request to ``/`` is sent, to which the coordinator's nginx responds with 403; any response is enough. Its
``Date`` header (RFC 9110 section 6.6.1) is compared with this machine's clock, because Flower's node authentication
rejects signatures that are 300 s old, and those of a clock that is 5 s ahead.
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
from fedimb.deploy.site.supernode import proxy_variables, trusted_roots
from fedimb.errors import ConfigError

WINDOW_S = 300
"""Age in seconds up to which Flower's node authentication accepts a signature."""
AHEAD_S = 5
"""Seconds by which a node's clock may be ahead."""
_WARN_S = 60
TIMEOUT_S = 15.0


def reach(home: NodeHome, timeout_s: float = TIMEOUT_S) -> Iterator[Check]:
    """The checks ``proxy``, ``coordinator``, ``certificate`` and ``clock``. Never raises.

    The last two are skipped if there is no response.
    """
    config = home.config
    if config.coordinator is None:
        yield Check(
            "fail",
            "coordinator",
            "node.yaml does not name one",
            "give host, port and ca_fingerprint (see fedimb node init)",
        )
        return
    try:
        proxy, trusted = proxy_for(config, os.environ), trusted_roots(home)
    except ConfigError as error:
        yield Check("fail", "coordinator", str(error), "fix node.yaml or ca.crt")
        return
    yield Check("ok", "proxy", _through(proxy))
    host, port = config.coordinator.host, config.coordinator.port
    try:
        response = _ask(host, port, proxy, str(trusted), timeout_s)
    except (OSError, http.client.HTTPException) as error:
        found, remedy = _explained(error, proxy)
        yield Check("fail", "coordinator", f"{host}:{port}: {found}", remedy)
        return
    yield Check("ok", "coordinator", f"{host}:{port} responds with {response.tls}, signed by the authority in ca.crt")
    yield _expiry(response.expires)
    yield _clock(response.date, response.asked)


def proxy_for(config: NodeConfig, given: Mapping[str, str]) -> str | None:
    """The proxy to the coordinator: from node.yaml, else from the environment; None if NO_PROXY excludes it.

    Raises:
        ConfigError: ``proxy:`` is not an address.
    """
    variables = {**given, **proxy_variables(config, given)}
    found = next((variables[name] for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY") if variables.get(name)), None)
    host = config.coordinator.host if config.coordinator else ""
    return None if found is None or proxy_bypass_environment(host, {"no": variables["NO_PROXY"]}) else found


class _Response:
    """TLS version, expiry of the certificate (UTC), the ``Date`` header, and this machine's time of the request."""

    def __init__(self, tls: str, expires: datetime, date: str | None, asked: float) -> None:
        self.tls, self.expires, self.date, self.asked = tls, expires, date, asked


def _ask(host: str, port: int, proxy: str | None, trusted: str, timeout_s: float) -> _Response:
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
        return _Response(version, datetime.fromtimestamp(end, UTC), date, (before + time.time()) / 2)
    finally:
        connection.close()


def _explained(error: Exception, proxy: str | None) -> tuple[str, str]:
    """What went wrong and what to do, worded for the hospital's network administrators."""
    through = "" if proxy is None else " through the proxy"
    firewall = "ask for outbound TCP to this address and port, or set proxy: in node.yaml"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message})",
            "if an inspecting firewall shows its own certificate, ask for an exception, or set its authority as "
            "ca_bundle: in "
            "node.yaml; else ask the coordinator (wrong host name, expired certificate, different ca.crt)",
        )
    if isinstance(error, ssl.SSLError):
        return f"no TLS on this port ({error.reason or error})", "check host and port in node.yaml"
    if isinstance(error, socket.gaierror):
        place = "the proxy's name" if proxy else "the name"
        return f"{place} cannot be resolved ({error.strerror})", "check it in node.yaml, and this machine's DNS"
    if isinstance(error, TimeoutError):
        return f"no response{through} in time", firewall
    if isinstance(error, ConnectionRefusedError):
        place = "the proxy refuses connections" if proxy else "nothing listens there"
        return place, "check host and port in node.yaml, and that the coordinator is up (fedimb deploy up)"
    if "Tunnel connection failed" in str(error):
        return (
            f"the proxy refuses: {error}",
            "ask for CONNECT to this address and port; proxy: may need a user name",
        )
    return f"no connection{through} ({type(error).__name__}: {error})", firewall


def _through(proxy: str | None) -> str:
    if proxy is None:
        return "none: the node connects directly"
    parts = urlsplit(proxy)  # the whole address may contain a password
    return f"{parts.hostname}:{parts.port or 80}"


def _expiry(end: datetime) -> Check:
    days = (end - datetime.now(UTC)).days
    if days <= EXPIRES_SOON_DAYS:
        return Check(
            "warn",
            "certificate",
            f"the coordinator's expires in {days} days, on {end:%Y-%m-%d}",
            "tell the coordinator",
        )
    return Check("ok", "certificate", f"the coordinator's is valid until {end:%Y-%m-%d}")


def _clock(date: str | None, asked: float) -> Check:
    try:
        away = asked - parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return Check("warn", "clock", "the coordinator's response has no date", "check this machine's clock yourself")
    words = f"{abs(away):.0f} s {'ahead of' if away > 0 else 'behind'} the coordinator's"
    remedy = "set this machine's clock (timedatectl set-ntp true), and ask the coordinator to check theirs"
    if away >= AHEAD_S + 0.5:  # the header has whole seconds: half a second late on average
        return Check("fail", "clock", f"{words}: node authentication fails at {AHEAD_S} s ahead or more", remedy)
    if -away >= WINDOW_S:
        return Check("fail", "clock", f"{words}: node authentication fails at {WINDOW_S} s or more", remedy)
    if away >= AHEAD_S - 2 or -away >= _WARN_S:
        return Check("warn", "clock", words, remedy)
    return Check("ok", "clock", words if abs(away) >= 2 else "agrees with the coordinator's")
