"""A site joins with a public file, changes nobody else's, and nothing secret or false is taken."""

import json
import stat
from pathlib import Path

import pytest
from coordinator import contents, make_deployment, make_node

from fedimb.deploy import joining, pki
from fedimb.deploy.coordinator import sites
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.home import LimitsConfig, NodeConfig, NodeHome, SharingConfig
from fedimb.deploy.site import identity
from fedimb.errors import ConfigError


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return make_deployment(tmp_path / "Herz-Studie Süd")


def test_a_node_is_made_with_a_key_of_its_own(deployment: Deployment, tmp_path: Path) -> None:
    join = make_node(deployment, tmp_path / "Klinik Süd" / "st-anna")
    home = NodeHome.open(tmp_path / "Klinik Süd" / "st-anna")
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.file("key").stat().st_mode) == 0o600
    assert home.site == join.site == "st-anna"
    assert home.config.coordinator is not None
    assert home.config.coordinator.ca_fingerprint == pki.fingerprint(deployment.file("ca.crt").read_bytes())
    assert home.file("ca.crt").read_bytes() == deployment.file("ca.crt").read_bytes()
    sent = joining.read_join(home.file("st-anna.join.json"))
    assert sent == join
    assert sent.contact == "Dr. Jürgen Müller"
    assert b"PRIVATE" not in home.file("st-anna.join.json").read_bytes()
    assert pki.key_fingerprint(home.file("key.pub").read_bytes(), "key.pub") == join.key_fingerprint


def test_node_yaml_shows_every_setting_and_its_default(deployment: Deployment, tmp_path: Path) -> None:
    make_node(deployment, tmp_path / "a")
    text = (tmp_path / "a" / "node.yaml").read_text("utf-8")
    for shape in (NodeConfig, SharingConfig, LimitsConfig):
        assert [name for name in shape.model_fields if f"{name}:" not in text] == []
    (tmp_path / "a" / "node.yaml").write_text(_uncommented(text), "utf-8")  # what the comments show is accepted
    shown = NodeHome(tmp_path / "a").config
    assert shown.limits.hours == "20:00-06:00"
    assert shown.sharing == SharingConfig()
    assert shown.release == NodeConfig.model_fields["release"].default


def _uncommented(text: str) -> str:
    """node.yaml with its example settings switched on."""
    lines = []
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        setting = bare.lstrip().partition(":")[0]
        lines.append(bare if line.startswith("# ") and setting.replace("_", "").isalpha() and ":" in bare else line)
    return "\n".join(lines) + "\n"


def test_an_unknown_authority_leaves_no_folder(deployment: Deployment, tmp_path: Path) -> None:
    wrong = pki.fingerprint(pki.make_ca("heart")[1])
    with pytest.raises(ConfigError, match="another fingerprint"):
        identity.init_node(tmp_path / "a", "a", ("localhost", 9443), deployment.file("ca.crt"), wrong, "")
    with pytest.raises(ConfigError, match=r"ask the coordinator for ca\.crt"):
        identity.init_node(tmp_path / "a", "a", ("localhost", 9443), tmp_path / "none", wrong, "")
    with pytest.raises(ConfigError, match="st-anna"):
        make_node(deployment, tmp_path / "St. Änna")
    right = pki.fingerprint(deployment.file("ca.crt").read_bytes())
    with pytest.raises(ConfigError, match=r"coordinator\.port"):  # found when the folder is nearly done
        identity.init_node(tmp_path / "a", "a", ("localhost", 0), deployment.file("ca.crt"), right, "")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "St. Änna").exists()


def test_a_node_is_never_made_over_another(deployment: Deployment, tmp_path: Path) -> None:
    make_node(deployment, tmp_path / "a")
    before = contents(tmp_path / "a")
    with pytest.raises(ConfigError, match="node rotate"):
        make_node(deployment, tmp_path / "a")
    assert contents(tmp_path / "a") == before


def test_one_site_comes_changes_and_goes_and_no_other_file_changes(deployment: Deployment, tmp_path: Path) -> None:
    for site in ("cleveland", "va"):
        sites.add_site(deployment, make_node(deployment, tmp_path / site))
    before = contents(deployment.root)
    join = make_node(deployment, tmp_path / "zuerich")
    sites.add_site(deployment, join)
    assert deployment.sites() == ("cleveland", "va", "zuerich")
    sites.add_site(deployment, join)  # the same again is no error
    sites.rotate_key(deployment, identity.new_identity(tmp_path / "zuerich", "zuerich", "neu"))
    after = contents(deployment.root)
    assert after.keys() - before.keys() == {"sites/zuerich.join.json"}
    assert {name: after[name] for name in before} == before
    assert sites.joined_sites(deployment)["zuerich"].contact == "neu"
    sites.remove_site(deployment, "zuerich")
    assert contents(deployment.root) == before


def test_a_second_key_under_a_name_needs_a_rotation(deployment: Deployment, tmp_path: Path) -> None:
    first = make_node(deployment, tmp_path / "va")
    sites.add_site(deployment, first)
    second = identity.new_identity(tmp_path / "va", "va", "")
    with pytest.raises(ConfigError, match="deploy rotate"):
        sites.add_site(deployment, second)
    assert sites.joined_sites(deployment)["va"] == first
    with pytest.raises(ConfigError, match="already has this key"):
        sites.rotate_key(deployment, first)
    copied = second.model_copy(update={"site": "other"})
    sites.rotate_key(deployment, second)
    with pytest.raises(ConfigError, match="the key of va"):
        sites.add_site(deployment, copied)


@pytest.mark.parametrize("act", ["rotate", "remove"])
def test_a_site_nobody_added_is_named(deployment: Deployment, tmp_path: Path, act: str) -> None:
    sites.add_site(deployment, make_node(deployment, tmp_path / "cleveland"))
    join = make_node(deployment, tmp_path / "clevelnd")
    acts = {
        "rotate": lambda: sites.rotate_key(deployment, join),
        "remove": lambda: sites.remove_site(deployment, "clevelnd"),
    }
    with pytest.raises(ConfigError, match="Did you mean 'cleveland'"):
        acts[act]()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"site": "../../etc"}, "site"),
        ({"site": "St Anna"}, "site"),
        ({"schema": 2}, "schema"),
        ({"public_key": "hello"}, "does not contain a public key"),
        ({"publik_key": "x"}, "publik_key"),
        ({"created": None}, "created"),
    ],
)
def test_a_wrong_join_file_is_refused_with_its_place(
    deployment: Deployment, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    make_node(deployment, tmp_path / "a")
    path = tmp_path / "a" / "a.join.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change))
    with pytest.raises(ConfigError, match=says) as caught:
        joining.read_join(path)
    assert str(path) in str(caught.value)


def test_what_is_no_join_file_is_refused(deployment: Deployment, tmp_path: Path) -> None:
    make_node(deployment, tmp_path / "a")
    with pytest.raises(ConfigError, match="must never leave"):
        joining.read_join(tmp_path / "a" / "key")  # the private key, sent by mistake
    (tmp_path / "x.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not a join file"):
        joining.read_join(tmp_path / "x.json")
    with pytest.raises(ConfigError, match="cannot read"):
        joining.read_join(tmp_path / "none.json")


def test_a_renamed_join_file_is_noticed(deployment: Deployment, tmp_path: Path) -> None:
    sites.add_site(deployment, make_node(deployment, tmp_path / "va"))
    deployment.file("sites", "va.join.json").rename(deployment.file("sites", "other.join.json"))
    with pytest.raises(ConfigError, match="belongs to site 'va'"):
        sites.joined_sites(deployment)
