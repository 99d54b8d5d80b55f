"""A node's and a deployment's folder: opened only if they are one, and their YAML read strictly."""

from pathlib import Path

import pytest

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.files import refuse_readable, write_private
from fedimb.deploy.home import NODE_HOME, NodeHome
from fedimb.errors import ConfigError


def test_a_folder_without_node_yaml_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fedimb node init"):
        NodeHome.open(tmp_path)


def test_the_home_is_found_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "node.yaml").write_text("site: st-anna\n")
    monkeypatch.setenv(NODE_HOME, str(tmp_path))
    home = NodeHome.open()
    assert home.site == "st-anna"
    assert home.config.release == "manual"  # nothing leaves unseen unless the site says so
    assert not home.config.sharing.individual


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("site: st-anna\nsharin: {}\n", "sharing"),
        ("site: st-anna\nsharing: {class_count: false}\n", "class_counts"),
        ("site: Saint Anna\n", "site"),
        ("site: a\nlimits: {cpus: 0}\n", "limits.cpus"),
        ("site: a\nlimits: {hours: always}\n", "limits.hours"),
        (
            "site: a\nsharing: {min_patients: 5}\nsharing: {individual: true}\n",
            "'sharing' is given twice, in lines 2 and 3",
        ),
        ("site: a\nsharing: {synthetic: false, synthetic: true}\n", "'synthetic' is given twice"),
        ("site: a\nlimits: {hours: 25:00-26:00}\n", "limits.hours"),
        ("site: a\nabsent: [tomorrow]\n", "'tomorrow' is not a day or range"),
        ("[1, 2]\n", "key: value"),
        ("site: [\n", "not valid YAML"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "node.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"node\.yaml") as caught:
        _ = NodeHome.open(tmp_path).config
    assert says in str(caught.value)


def test_sites_are_listed_in_order(tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_text("name: heart\nhost: localhost\n")
    found = Deployment.open(tmp_path)
    for site in ("va", "cleveland"):
        (found.folder("sites") / f"{site}.join.json").write_text("{}")
    assert found.sites() == ("cleveland", "va")


def test_a_secret_others_can_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_bytes(b"open")
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="0644"):
        refuse_readable(secret)
    write_private(secret, b"closed")  # a file that was there does not keep its mode
    refuse_readable(secret)
    assert secret.read_bytes() == b"closed"
