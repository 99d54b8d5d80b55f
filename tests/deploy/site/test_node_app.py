"""A node's answers in a run, with real folders and registered tables; only Flower's wires are short."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from deployed import Study, assert_same, events, small_study, usable, weights
from evil import order_id, sign_again
from flwr.app import ConfigRecord, Message, RecordDict
from loopback import Loopback, at_node

from fedimb import __version__
from fedimb.deploy.audit_chain import read_heads
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.registered_data.datasets import register_data
from fedimb.deploy.registered_data.pins import read_pins
from fedimb.deploy.site.approvals import decide_plan, receive_plan
from fedimb.engine.flower_private import ensure_identity
from fedimb.errors import DataError, RunFailed, RunWaiting
from fedimb.records import array_record, arrays_of
from fedimb.rundir.identity import read_identity
from fedimb.rundir.result import RunResult

SITES = {"linz": 60, "st-anna": 90, "va": 75}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return small_study(tmp_path, SITES, "tracking=none")


def approved(study: Study) -> Study:
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    return study


def run(study: Study, folder, grid=None) -> RunResult:
    serve(folder.path, grid or Loopback(study.homes.values()))
    return RunResult.read(folder.path)


def test_the_run_is_the_simulated_one(study, tmp_path):
    folder, grid = approved(study).new("seed=2"), Loopback(study.homes.values())
    assert_same(run(study, folder, grid), study.simulated(tmp_path / "simulated", "seed=2"), 1e-6)
    assert grid.asked.count(("va", "train")) == 2
    assert len([site for site, _ in grid.asked if site == "va"]) <= 5
    assert folder.read_json("partition.json")["sha"]
    made = read_identity(folder.path)
    assert {site: code.split()[0] for site, code in made.sites.items()} == dict.fromkeys(study.homes, __version__)
    assert len(set(made.sites.values())) == 1  # these sites share one installation
    assert made.versions["device"] == "of each site"
    for site, home in study.homes.items():
        told = read_heads(folder.path / "heads" / f"{site}.jsonl")
        assert AuditLog(home.file("audit.jsonl")).verify(told) is None
        [one] = read_pins(home)
        assert one.run == folder.path.name
        assert one.names == (f"s2-{folder.path.name[-8:]}",)


def test_nobody_has_agreed_and_then_one_withdraws(study):
    folder = study.new()
    with pytest.raises(RunWaiting, match=r"^waiting: linz \(plan .{64}\); st-anna \(plan .{64}\); va \(plan .{64}\)$"):
        serve(folder.path, Loopback(study.homes.values()))
    assert folder.status() == "waiting"
    study.approve()
    home = study.homes["va"]

    def withdrawn(site, message):
        if site == "va" and message.metadata.message_type == "train":
            decide_plan(home, study.plan.sha, "rejected", "Dr. No")

    run(study, folder, Loopback(study.homes.values(), 2, withdrawn))
    assert set(events(folder)) == {f"va: plan {study.plan.sha} is no longer approved"}
    assert usable(folder) == [2, 2]


def test_a_node_that_never_joined_says_so(study):
    ensure_identity()
    step = ConfigRecord({"round": 1, "step": 1, "state-base": 0, "state-keep": 0})
    reply = at_node(study.homes["va"], Message(RecordDict({"x.fedimb": step}), 103, "train"), run_id=77)
    assert reply.error.reason == "va has not joined this run: start it with fedimb deploy run"


def test_changed_data_stop_the_run_and_name_the_site(study, tmp_path):
    folder, table = approved(study).new(), tmp_path / "va.csv"
    before = table.read_text()
    table.write_text(before.replace("ill", "well", 1))
    with pytest.raises(RunFailed, match=r"va does not take part: va failed in query\.join_site \(incident"):
        serve(folder.path, Loopback(study.homes.values()))
    assert folder.status() == "failed"
    table.write_text(before)
    assert_same(run(study, folder, Loopback(study.homes.values(), 2)), study.simulated(tmp_path / "simulated"))


def test_other_data_under_the_same_tags_do_not_go_on(study, tmp_path):
    folder = approved(study).new()

    def lost(site, message):
        return 1304 if message.metadata.message_type == "train" else None

    with pytest.raises(RunFailed, match="only 0 of 3 clients"):
        serve(folder.path, Loopback(study.homes.values(), 1, lost))
    table = tmp_path / "va.csv"
    table.write_text(table.read_text() + "1,2,3,4,ill\n")
    register_data(study.homes["va"], str(table), "heads", ["heads"], like=str(tmp_path / "group.yaml"))
    with pytest.raises(RunFailed, match="va does not take part"):  # its run keeps the version it pinned
        serve(folder.path, Loopback(study.homes.values(), 2))
    pin = study.homes["va"].file("data", "pins", f"{folder.path.name}.json")
    pin.unlink()
    with pytest.raises(DataError, match="changed to another version since the run started"):
        serve(folder.path, Loopback(study.homes.values(), 3))


def test_data_that_do_not_suit_the_plan(study, tmp_path):
    approved(study)
    home = study.homes["va"]
    table = tmp_path / "va.csv"
    wider = [f"{line},{'more' if i == 0 else i % 7}" for i, line in enumerate(table.read_text().splitlines())]
    table.write_text("\n".join(wider) + "\n")
    register_data(home, str(table), "heads", ["heads"], like=str(tmp_path / "group.yaml"))
    with pytest.raises(RunFailed, match=r"va: data set 'heads' has classes ill, well and rows of \[5\]; the plan says"):
        serve(study.new().path, Loopback(study.homes.values()))
    home.file("data", "sets", "heads", "current").unlink()
    with pytest.raises(RunFailed, match="va: no data set has the tags heads"):
        serve(study.new().path, Loopback(study.homes.values()))


def test_what_fails_the_node_check_does_not_join(study, tmp_path, caplog):
    """Also where classes and the shape of rows are the plan's."""
    approved(study)
    home, table, own = study.homes["va"], tmp_path / "va.csv", tmp_path / "own.yaml"
    group, (head, *rows) = yaml.safe_load((tmp_path / "group.yaml").read_text()), table.read_text().splitlines()

    def joins_with(**source: object) -> None:
        own.write_text(yaml.safe_dump({**group, "source": {**group["source"], "files": str(table), **source}}))
        register_data(home, str(table), "heads", ["heads"], like=str(own))
        serve(study.new().path, Loopback(study.homes.values()))

    says = "va: data set 'heads' is read otherwise than the plan says: the reason is in the node's log"
    with pytest.raises(RunFailed, match=says):
        joins_with(indicators=True)
    assert "data set 'heads': indicators is True, in the plan None: register the data with" in caplog.text
    several = [
        head.replace("label", "ill,well"),
        *(f"{row.rpartition(',')[0]},1,{i % 2}" for i, row in enumerate(rows)),
    ]
    table.write_text("\n".join(several) + "\n")
    says = "va: rows of data set 'heads' have several labels each, in a study one: register the data with one label per"
    with pytest.raises(RunFailed, match=says):
        joins_with(target=["ill", "well"], classes=None)


def test_a_node_of_another_name_is_not_taken_for_it(study):
    approved(study)
    swapped = Loopback([study.homes["st-anna"], study.homes["linz"], study.homes["va"]])
    names = {101: "linz", 102: "st-anna", 103: "va"}
    honest = swapped.get_nodes

    def get_nodes():
        nodes = honest()
        for node in nodes:
            node.name = names[node.node_id]
        return nodes

    swapped.get_nodes = get_nodes
    with pytest.raises(RunFailed, match=r"linz did not sign this error .* st-anna refused a message whose sig"):
        serve(study.new().path, swapped)


def test_killed_in_the_middle_it_goes_on_where_it_stood(study, tmp_path):
    folder = approved(study).new()

    def dies(site, message):
        if message.metadata.message_type == "train" and message.content["x.fedimb"]["round"] == 2 and site == "va":
            raise OSError("the servers are gone")

    with pytest.raises(OSError, match="gone"):
        serve(folder.path, Loopback(study.homes.values(), 1, dies))
    assert folder.status() == "failed"
    grid = Loopback(study.homes.values(), 2)
    assert_same(run(study, folder, grid), study.simulated(tmp_path / "simulated"))
    assert grid.asked.count(("va", "train")) == 1
    again = {
        site: [one["round"] for one in study.messages(site, folder.path.name) if one.get("again")] for site in SITES
    }
    assert again == {"linz": [2], "st-anna": [2], "va": []}  # they had answered; the node's ledger has what they sent


def test_what_is_written_down_at_a_node(study):
    folder = approved(study).new()
    run(study, folder)
    home = study.homes["va"]
    kept = json.loads(home.file("state", "runs", folder.path.name, "run.json").read_text())
    assert (kept["format"], kept["plan"], kept["client"], kept["clients"]) == (1, study.plan.sha, 2, 3)
    assert home.file("state", "flower", "1").read_text() == folder.path.name


def test_state_of_another_releases_form_is_not_read(study):
    folder = approved(study).new()

    def older(site, message):
        if site == "va" and message.metadata.message_type == "train":
            path = study.homes["va"].file("state", "runs", folder.path.name, "run.json")
            path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))

    run(study, folder, Loopback(study.homes.values(), 2, older))
    assert events(folder)[0].startswith("va stored this run in the format of another release of fedimb")


class Tampering(Loopback):
    """One site's trained weights are changed by itself, and signed, in one round each."""

    def __init__(self, homes, changes):
        super().__init__(homes)
        self.changes = changes

    def pull_messages(self, ids):
        sent = {id_: self._open[id_] for id_ in ids}
        numbers = {id_: order_id(one) for id_, one in sent.items()}
        replies = super().pull_messages(ids)
        for reply in replies:
            asked = sent[reply.metadata.reply_to_message_id]
            site = self.homes[asked.metadata.dst_node_id].site
            change = self.changes.get((site, asked.content["x.fedimb"]["round"] if "x.fedimb" in asked.content else 0))
            if change and asked.metadata.message_type == "train":
                before, after = arrays_of(asked.content, "arrays"), arrays_of(reply.content, "arrays")
                reply.content["arrays"] = array_record({n: change(before[n], after[n]) for n in after})
                number = numbers[reply.metadata.reply_to_message_id]
                sign_again(self.homes[asked.metadata.dst_node_id], self.run_id, asked, number, reply)
        return replies


def test_replies_that_cannot_be_right_are_left_out_and_named(study, tmp_path):
    changes = {
        ("va", 1): lambda before, after: np.full_like(after, np.nan),
        ("linz", 2): lambda before, after: after.reshape(-1)[:-1].copy(),
        ("st-anna", 3): lambda before, after: (before + 1e6 * (after - before)).astype(after.dtype),
    }
    folder = approved(study).new("rounds=4")
    run(study, folder, Tampering(study.homes.values(), changes))
    nan, shape, huge = events(folder)
    assert nan.startswith("va: the reply holds a value that is not finite")
    assert shape.startswith("linz: record 'arrays', '")
    assert re.fullmatch(r"st-anna's update is \de\+0[67] times as long as the others'; left out", huge)
    assert usable(folder) == [2, 2, 2, 3]
    honest = study.new("rounds=4")
    run(study, honest, Loopback(study.homes.values(), 2))
    found, wanted = weights(RunResult.read(folder.path)), weights(RunResult.read(honest.path))
    assert all(np.abs(found[name] - wanted[name]).max() < 1 for name in found)
