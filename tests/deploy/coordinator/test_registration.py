"""A running SuperLink follows the folder, whatever was interrupted; played by one that keeps Flower's rules."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coordinator import contents, make_deployment, make_node

from fedimb.deploy import joining
from fedimb.deploy.coordinator import registration, sites
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.site import identity
from fedimb.errors import RunFailed


class _SuperLink:
    """Registers a key once and for all, as Flower 1.41 does: the key of a node that was unregistered stays taken."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.nodes: dict[str, str] = {}
        self.names: dict[str, str] = {}

    def flwr(self, deployment: Deployment, *words: str) -> dict[str, Any]:
        match words:
            case ("supernode", "list", "fedimb"):
                return {"nodes": [{"node-id": node, "status": status} for node, status in self.nodes.items()]}
            case ("supernode", "register", path, "fedimb", "--name", site):
                key = Path(path).read_text()
                if key in self.keys:
                    raise RunFailed("flwr supernode register said: [code: 2] Public key already in use.")
                node = self.keys[key] = str(len(self.keys) + 100)
                self.nodes[node], self.names[node] = "registered", site
                return {"success": True, "node-id": int(node)}
            case ("supernode", "unregister", node, "fedimb"):
                assert self.nodes[node] != "unregistered"
                self.nodes[node] = "unregistered"
                return {"success": True}
        raise AssertionError(words)

    def taking_part(self) -> list[str]:
        return sorted(self.names[node] for node, status in self.nodes.items() if status != "unregistered")


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return make_deployment(tmp_path / "heart")


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> _SuperLink:
    made = _SuperLink()
    monkeypatch.setattr(registration, "flwr", made.flwr)
    return made


@pytest.fixture
def node(deployment: Deployment, tmp_path: Path) -> Callable[[str], joining.JoinFile]:
    return lambda site: make_node(deployment, tmp_path / site)


def test_sites_are_registered_by_name_and_only_once(
    deployment: Deployment, link: _SuperLink, node: Callable[[str], joining.JoinFile]
) -> None:
    for site in ("va", "cleveland"):
        sites.add_site(deployment, node(site))
    assert registration.reconcile(deployment) == ["cleveland: registered", "va: registered"]
    before = contents(deployment.root)
    assert registration.reconcile(deployment) == []
    assert contents(deployment.root) == before
    assert link.taking_part() == ["cleveland", "va"]
    assert {site: link.names[told["node_id"]] for site, told in registration.registered_sites(deployment).items()} == {
        "cleveland": "cleveland",
        "va": "va",
    }
    sites.add_site(deployment, node("zuerich"))  # a third one, later: the others' files stay as they are
    assert registration.reconcile(deployment) == ["zuerich: registered"]
    after = contents(deployment.root)
    assert {name: after[name] for name in before} == before


def test_a_rotated_key_replaces_the_old_one(
    deployment: Deployment, link: _SuperLink, node: Callable[[str], joining.JoinFile], tmp_path: Path
) -> None:
    sites.add_site(deployment, node("va"))
    registration.reconcile(deployment)
    old = registration.registered_sites(deployment)["va"]["node_id"]
    sites.rotate_key(deployment, identity.new_identity(tmp_path / "va", "va", ""))
    assert registration.reconcile(deployment) == ["va: its old key is no longer valid", "va: registered"]
    assert link.nodes[old] == "unregistered"
    assert link.taking_part() == ["va"]


def test_a_removed_site_is_out_and_its_key_cannot_return(
    deployment: Deployment, link: _SuperLink, node: Callable[[str], joining.JoinFile]
) -> None:
    join = node("va")
    sites.add_site(deployment, join)
    sites.add_site(deployment, node("b"))
    registration.reconcile(deployment)
    sites.remove_site(deployment, "va")
    assert registration.reconcile(deployment) == ["va: removed"]
    assert link.taking_part() == ["b"]
    sites.add_site(deployment, join)
    sites.add_site(deployment, node("c"))
    lines = registration.reconcile(deployment)
    assert lines[0] == "c: registered"  # one site's trouble keeps no other out
    assert lines[1].startswith("problem: va: ")
    assert "fedimb node rotate" in lines[1]
    assert link.taking_part() == ["b", "c"]


def test_a_lost_database_is_filled_again(
    deployment: Deployment, link: _SuperLink, node: Callable[[str], joining.JoinFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    sites.add_site(deployment, node("va"))
    registration.reconcile(deployment)
    fresh = _SuperLink()
    monkeypatch.setattr(registration, "flwr", fresh.flwr)
    assert registration.reconcile(deployment) == ["va: registered"]
    assert fresh.taking_part() == ["va"]


def test_a_removal_that_was_interrupted_is_finished(
    deployment: Deployment, link: _SuperLink, node: Callable[[str], joining.JoinFile]
) -> None:
    sites.add_site(deployment, node("va"))
    registration.reconcile(deployment)
    sites.remove_site(deployment, "va")
    link.flwr(
        deployment, "supernode", "unregister", registration.registered_sites(deployment)["va"]["node_id"], "fedimb"
    )
    assert registration.reconcile(deployment) == []
    assert registration.registered_sites(deployment) == {}


def test_a_node_nobody_added_is_told_of(deployment: Deployment, link: _SuperLink, tmp_path: Path) -> None:
    (tmp_path / "stranger.pub").write_text("a key\n")
    link.flwr(deployment, "supernode", "register", str(tmp_path / "stranger.pub"), "fedimb", "--name", "va")
    (line,) = registration.reconcile(deployment)
    assert line.startswith("problem: the SuperLink knows node 100")


def test_any_other_refusal_is_passed_on(
    deployment: Deployment, node: Callable[[str], joining.JoinFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Deployment, *words: str) -> dict[str, Any]:
        if words[1] == "list":
            return {"nodes": []}
        raise RunFailed("flwr supernode register said: no route")

    monkeypatch.setattr(registration, "flwr", refuse)
    sites.add_site(deployment, node("va"))
    with pytest.raises(RunFailed, match="no route"):
        registration.reconcile(deployment)
    assert registration.registered_sites(deployment) == {}
    assert not list(deployment.file("state").glob("*.pub"))
    assert json.loads(deployment.file("sites", "va.join.json").read_text("utf-8"))["site"] == "va"
