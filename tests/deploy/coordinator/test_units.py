"""What is written out can be read by those it is for: systemd's syntax, and the README names real verbs."""

import configparser
import re
from pathlib import Path

import pytest
from coordinator import make_deployment, make_node

from fedimb.cli.main import _parser
from fedimb.deploy.coordinator import creation as founding
from fedimb.deploy.coordinator import units
from fedimb.deploy.coordinator.deployment import DeployConfig
from fedimb.deploy.files import refuse_readable
from fedimb.deploy.pki import fingerprint, format_fingerprint, signed_by
from fedimb.errors import ConfigError


def _read(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(text)
    return parser


def test_units_run_the_verbs_on_their_folder(tmp_path: Path) -> None:
    deployment = make_deployment(tmp_path / "50 % Süd")
    make_node(deployment, tmp_path / "a")
    unit = _read(deployment.file("fedimb-heart.service").read_text("utf-8"))["Service"]
    folder = str(deployment.root).replace("%", "%%")  # systemd's own escape
    assert unit["ExecStart"].endswith(f'fedimb" deploy up --deployment "{folder}"')
    node = _read((tmp_path / "a" / "fedimb-node.service").read_text("utf-8"))["Service"]
    assert node["ExecStart"].endswith(f'fedimb" node run --home "{tmp_path / "a"}"')
    assert int(node["RestartSec"]) >= 65  # Flower refuses a node that died less than 60 s ago
    for one in (unit, node):
        assert Path(one["ExecStart"].split('"')[1]).name == "fedimb"
        assert one["UMask"] == "0077"


@pytest.mark.parametrize(("port", "needed"), [(443, True), (9443, False)])
def test_only_a_low_port_gets_a_right(tmp_path: Path, port: int, needed: bool) -> None:
    unit = units.deploy_unit(DeployConfig(name="heart", host="a.example", port=port), tmp_path)
    assert ("AmbientCapabilities=CAP_NET_BIND_SERVICE" in unit) is needed
    assert ("CapabilityBoundingSet" in _read(unit)["Service"]) is needed


def test_the_readme_has_the_fingerprint_and_verbs_that_exist(tmp_path: Path) -> None:
    deployment = make_deployment(tmp_path / "heart")
    text = deployment.file("README.md").read_text("utf-8")
    assert format_fingerprint(fingerprint(deployment.file("ca.crt").read_bytes())) in text
    named = set(re.findall(r"fedimb (node|deploy) ([a-z-]+)", text))
    assert {("deploy", "up"), ("node", "init"), ("deploy", "renew")} <= named
    for verb, action in named - {("node", "check"), ("node", "run")}:  # those are in files of their own
        with pytest.raises(SystemExit) as caught:
            _parser(verb).parse_args([verb, action, "--help"])
        assert caught.value.code == 0


def test_a_deployment_is_never_made_over_another(tmp_path: Path) -> None:
    (tmp_path / "heart").mkdir()
    with pytest.raises(ConfigError, match="--to"):
        make_deployment(tmp_path / "heart")
    assert list((tmp_path / "heart").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("Herz", "a.example", 1, 2), "name"),
        (("heart", "kein name", 1, 2), "not a host name"),
        (("heart", "a.example", 70000, 2), "port"),
        (("heart", "a.example", 9092, 9092), "different ports"),
        (("heart", "2001:db8::1", 1, 2), "IPv4"),
    ],
)
def test_a_wrong_word_leaves_no_folder(tmp_path: Path, words: tuple[str, str, int, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        founding.create_deployment(tmp_path / "x", *words)
    assert not (tmp_path / "x").exists()


def test_renewal_keeps_the_authority_and_changes_the_server(tmp_path: Path) -> None:
    deployment = make_deployment(tmp_path / "heart")
    before = {name: deployment.file(name).read_bytes() for name in ("ca.crt", "ca.key", "server.key", "server.pem")}
    founding.renew_certificate(deployment)
    changed = {name for name, content in before.items() if deployment.file(name).read_bytes() != content}
    assert changed == {"server.key", "server.pem"}
    assert signed_by(deployment.file("server.pem").read_bytes(), before["ca.crt"])
    refuse_readable(deployment.file("server.key"))
    deployment.file("ca.key").chmod(0o640)
    with pytest.raises(ConfigError, match="0640"):
        founding.renew_certificate(deployment)
    deployment.file("ca.key").unlink()
    with pytest.raises(ConfigError, match="copy it back"):
        founding.renew_certificate(deployment)


def test_only_what_ends_soon_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = make_deployment(tmp_path / "heart")
    assert founding.expiry_warnings(deployment) == []
    monkeypatch.setattr(founding, "server_certificate", _short)
    founding.renew_certificate(deployment)
    (line,) = founding.expiry_warnings(deployment)
    assert line.startswith("server.pem expires in 19 days")
    assert "fedimb deploy renew" in line


def _short(ca: tuple[bytes, bytes], hosts: list[str]) -> tuple[bytes, bytes]:
    """A server certificate of 20 days."""
    from fedimb.deploy.pki import server_certificate

    return server_certificate(ca, hosts, days=20)
