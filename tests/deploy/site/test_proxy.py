"""Proxies: what a node's processes are told, and a real node behind a real CONNECT proxy (Debian's tinyproxy)."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from real_node import connected, forwarded, joined_node, make_deployment, wait_for, watched

from fedimb.deploy.coordinator.servers import Servers
from fedimb.deploy.home import NODE_HOME, NodeConfig, NodeHome
from fedimb.deploy.pki import fingerprint, make_ca, make_site_key
from fedimb.deploy.site.observe import check_coordinator
from fedimb.deploy.site.supernode import node_environment, proxy_variables, supernode_command, trusted_roots
from fedimb.errors import ConfigError


def node(**settings: object) -> NodeConfig:
    return NodeConfig.model_validate({"site": "a", **settings})


def test_loopback_never_goes_through_a_proxy() -> None:
    """With HTTP_PROXY set and no NO_PROXY, Flower's parts at the node could not talk to each other: it hangs."""
    for config, given in [
        (node(), {}),
        (node(), {"HTTP_PROXY": "http://p:1", "NO_PROXY": "intranet.example"}),
        (node(proxy="http://p:1"), {"no_proxy": "intranet.example"}),
    ]:
        found = proxy_variables(config, given)
        for name in ("NO_PROXY", "no_proxy"):
            assert {"localhost", "127.0.0.1", "::1"} <= set(found[name].split(","))
        assert ("intranet.example" in found["NO_PROXY"]) is bool(set(given) - {"HTTP_PROXY"})


def test_httpx_reads_them_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library Flower calls with: proxied to the coordinator, direct to loopback."""
    for name, value in proxy_variables(node(proxy="http://proxy.example:3128"), {}).items():
        monkeypatch.setenv(name, value)
    client = httpx.Client()
    direct = client._transport_for_url(httpx.URL("http://127.0.0.1:9094/v1/runtime/acquire-task"))
    away = client._transport_for_url(httpx.URL("https://coordinator.example:9443/v1/fleet/get-run"))
    assert direct is client._transport
    assert away is not client._transport
    assert client._transport_for_url(httpx.URL("http://[::1]:9094/")) is client._transport


def test_the_sites_proxy_wins_over_the_shells() -> None:
    found = proxy_variables(node(proxy="http://p:3128"), {"https_proxy": "http://old:1"})
    assert found["https_proxy"] == found["HTTPS_PROXY"] == found["http_proxy"] == "http://p:3128"


@pytest.mark.parametrize("proxy", ["proxy.example:3128", "socks5://p:1", "http://", "geheim@p"])
def test_a_proxy_that_is_no_address_is_refused(proxy: str) -> None:
    with pytest.raises(ConfigError, match="proxy") as caught:
        proxy_variables(node(proxy=proxy), {})
    assert "geheim" not in str(caught.value)


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    root = tmp_path / "st anna"
    root.mkdir()
    _, certificate = make_ca("heart")
    (root / "ca.crt").write_bytes(certificate)
    private, _ = make_site_key()
    (root / "key").write_bytes(private)
    (root / "key").chmod(0o600)
    told = fingerprint(certificate)
    (root / "node.yaml").write_text(
        f"site: st-anna\ncoordinator: {{host: fl.example.org, port: 9443, ca_fingerprint: {told}}}\n"
    )
    return NodeHome.open(root)


def test_the_command_and_its_environment(home: NodeHome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    unguarded = tmp_path / "bin" / "flwr-clientapp"
    unguarded.write_text("#!/bin/sh\n")
    unguarded.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:.:/bin")
    monkeypatch.setenv("PYTHONPATH", "/old/code")
    monkeypatch.setenv("FLWR_HOME", "/somebody/elses")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    words, found = supernode_command(home, port=9094)
    assert words[words.index("--superlink") + 1] == "fl.example.org:9443"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert "--insecure" not in words
    assert "PYTHONPATH" not in found
    assert found["FLWR_HOME"] == str(home.root / "flwr")
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert found[NODE_HOME] == str(home.root)
    assert shutil.which("flwr-clientapp", path=found["PATH"]) == str(home.root / "flwr" / "shims" / "flwr-clientapp")
    assert str(tmp_path / "bin") not in found["PATH"].split(":")  # nothing unguarded can be found
    assert "." not in found["PATH"].split(":")
    for name in ("flwr-agentapp", "flower-superexec"):
        assert str(shutil.which(name, path=found["PATH"])).startswith(str(home.root))


def test_the_guard_stands_even_where_it_may_not_run(home: NodeHome) -> None:
    """A folder mounted noexec: the name is not found, instead of Flower's own program behind it."""
    found = node_environment(home, os.environ)
    for shim in home.file("flwr", "shims").iterdir():
        shim.chmod(0o600)
    assert shutil.which("flwr-clientapp", path=found["PATH"]) is None


def test_a_key_others_read_and_a_foreign_authority_are_refused(home: NodeHome) -> None:
    home.file("key").chmod(0o644)
    with pytest.raises(ConfigError, match="0644"):
        supernode_command(home)
    home.file("key").chmod(0o600)
    home.file("ca.crt").write_bytes(make_ca("other")[1])
    with pytest.raises(ConfigError, match="fingerprint"):
        supernode_command(home)


def test_a_bundle_of_authorities_is_added_not_put_instead(home: NodeHome) -> None:
    assert trusted_roots(home) == home.file("ca.crt")
    text = home.file("node.yaml").read_text()
    home.file("node.yaml").write_text(text + "ca_bundle: klinik-proxy.pem\n")
    again = NodeHome.open(home.root)
    with pytest.raises(ConfigError, match=r"klinik-proxy\.pem"):
        trusted_roots(again)
    proxys = make_ca("proxy")[1]
    home.file("klinik-proxy.pem").write_bytes(proxys)
    both = trusted_roots(again).read_bytes()
    assert home.file("ca.crt").read_bytes().strip() in both
    assert proxys.strip() in both


@contextlib.contextmanager
def tinyproxy(folder: Path, allowed: int) -> Iterator[tuple[str, Path]]:
    """A real CONNECT proxy on a free port that lets through to port ``allowed`` alone; its address and its log."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "tinyproxy.log"
    settings = [f"Port {port}", "Listen 127.0.0.1", f"ConnectPort {allowed}", f'LogFile "{log}"', "LogLevel Connect"]
    (folder / "tinyproxy.conf").write_text("\n".join([*settings, "Timeout 600", "MaxClients 50", ""]))
    process = subprocess.Popen(["tinyproxy", "-d", "-c", str(folder / "tinyproxy.conf")], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 0.1).close()
                break
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tinyproxy") is None, reason="tinyproxy is not installed")
@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed")
def test_a_node_behind_a_real_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator under an address that is not loopback to the node, reached through CONNECT and not without."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    deployment = make_deployment(tmp_path / "heart", "127.0.0.2")
    port = deployment.config.port
    with (
        Servers(deployment),
        forwarded(("127.0.0.2", port), ("127.0.0.1", port)),
        tinyproxy(tmp_path, port) as (to, log),
    ):
        home = joined_node(deployment, tmp_path / "st-anna")
        settings = home.file("node.yaml")
        plain = settings.read_text()
        settings.write_text(plain + f"\nproxy: {to}\n")
        home = NodeHome.open(home.root)
        assert check_coordinator(home) == (None, [])
        with watched(home):
            wait_for(home, connected, 60)
        asked = re.findall(r"Request \(.*\): (\S+ \S+)", log.read_text())
        assert set(asked) == {f"CONNECT 127.0.0.2:{port}"}  # and none of the node's calls to itself
        assert len(asked) >= 2  # the question whether it answers, and Flower's own connection

        settings.write_text(plain + "\nproxy: http://127.0.0.1:9\n")
        reason, _ = check_coordinator(NodeHome.open(home.root))
        assert reason is not None  # so the proxy is the way, not an ornament
        settings.write_text(plain.replace(str(port), str(port + 1)) + f"\nproxy: {to}\n")
        assert "proxy refuses" in str(check_coordinator(NodeHome.open(home.root))[0])
