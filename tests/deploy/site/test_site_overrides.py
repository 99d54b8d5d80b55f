"""Labels and releases at nodes: the run ends and says for whom it waits, and goes on when people have acted."""

import contextlib
import csv
import os
from pathlib import Path

import numpy as np
import pytest
from deployed import Study, small_study, usable
from flwr.app import RecordDict
from loopback import Loopback
from study_plans import node_home, run_config

from fedimb.annotation.oracles import SITE_DIR
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.home import NodeHome
from fedimb.deploy.site.approvals import receive_plan
from fedimb.deploy.site.inbox import decide_item, inbox_items
from fedimb.deploy.site.site_overrides import apply_site_overrides, needs_person, site_folder
from fedimb.errors import RunWaiting
from fedimb.records import array_record

LABELS = (
    "strategy=fairfal", "strategy.fairfal.cycles=1", "strategy.fairfal.budget=4", "strategy.fairfal.first=4",
    "strategy.fairfal.oracle={name: worklist}", "rounds=1",
)  # fmt: skip
SAMPLES = (
    "strategy=fedssg", "strategy.fedssg.source=client_generators", "strategy.fedssg.training={steps: 5}",
    "strategy.fedssg.pretrain=0", "strategy.fedssg.screen=false", "strategy.fedssg.release=auto", "rounds=1",
    "strategy.fedssg.audit={min_count: 5, power: 0.01, copied: 0.99, draws: 2, bootstrap: 5}",
)  # fmt: skip


def agreed(root: Path, rows: dict[str, int], *overrides: str) -> Study:
    study = small_study(root, rows, "tracking=none", *overrides)
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    return study


def label(home: NodeHome, count: int | None = None) -> None:
    """Return the worklist's first rows with a label, as a reader does; None: all of them."""
    (sheet,) = home.file("worklists").rglob("tasks.csv")
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))[:count]
    with (sheet.parent / "returned" / "anna.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"label": "ill" if float(row["x1"]) > 1 else "well"} for row in rows)


def test_a_run_waits_for_labels_and_goes_on_with_them(tmp_path):
    study = agreed(tmp_path, {"linz": 40, "st-anna": 50}, *LABELS)
    folder, homes = study.new(), study.homes
    with pytest.raises(RunWaiting, match=r"^waiting: linz \(labels 0/4\); st-anna \(labels 0/4\)\n"):
        serve(folder.path, Loopback(homes.values(), 1))
    assert folder.read_json("status.json")["reason"] == "waiting: linz (labels 0/4); st-anna (labels 0/4)"
    [item] = inbox_items(homes["linz"])
    assert (item.kind, item.state) == ("labels", "0/4")
    label(homes["linz"])
    label(homes["st-anna"], 3)
    with pytest.raises(RunWaiting, match=r"^waiting: st-anna \(labels 3/4\)\n"):
        serve(folder.path, Loopback(homes.values(), 2))
    label(homes["st-anna"])
    serve(folder.path, Loopback(homes.values(), 3))
    assert folder.status() == "finished"
    assert usable(folder) == [2]
    assert [line["metrics"]["data/labelled"] for line in folder.metrics() if "data/labelled" in line["metrics"]] == [8]
    assert SITE_DIR not in os.environ
    assert not (tmp_path / "sites").exists()
    said = [facts["text"] for facts in study.messages("st-anna", folder.path.name) if facts["outcome"] == "error"]
    assert said == ["waiting: st-anna (labels 0/4)", "waiting: st-anna (labels 3/4)"]


@pytest.mark.slow
def test_samples_leave_only_after_a_person_says_so_whatever_the_run_says(tmp_path):
    study = agreed(tmp_path, {"linz": 400, "st-anna": 500}, *SAMPLES)
    for home in study.homes.values():
        text = home.file("node.yaml").read_text()
        home.file("node.yaml").write_text(text + "\nsharing: {individual: true}\n")
    folder = study.new()
    with pytest.raises(RunWaiting, match=r"^waiting: linz \(release\); st-anna \(release\)\n"):
        serve(folder.path, Loopback(study.homes.values(), 1))
    sent = [r["key"] for facts in study.messages("linz", folder.path.name) for r in facts["records"]]
    assert "x.samples" not in sent
    for home in study.homes.values():
        [item] = inbox_items(home)
        decide_item(home, item.id, "approved", "Dr. Test")
    serve(folder.path, Loopback(study.homes.values(), 2))
    sent = [r["key"] for facts in study.messages("linz", folder.path.name) for r in facts["records"]]
    assert "x.samples" in sent


def test_the_sites_release_wins_over_the_runs(tmp_path):
    config = run_config("strategy=fedssg", "strategy.fedssg.release=auto", "strategy.fedssg.gate=off")
    manual = apply_site_overrides(node_home(tmp_path / "manual"), config)
    assert (manual.strategy["fedssg"]["release"], manual.strategy["fedssg"]["gate"]) == ("manual", "enforce")
    assert manual.strategy["fedssg"]["made"] == config.strategy["fedssg"]["made"]
    assert apply_site_overrides(node_home(tmp_path / "auto", "site: a\nrelease: auto\n"), config) == config
    plain = run_config("strategy=plain")
    assert apply_site_overrides(node_home(tmp_path / "plain"), plain) == plain
    both = run_config("strategy=[scope,fedssg]")
    assert list(apply_site_overrides(node_home(tmp_path / "both"), both).strategy) == ["scope", "fedssg"]


def test_the_sites_folder_holds_for_a_message_and_no_longer(tmp_path, monkeypatch):
    home = node_home(tmp_path / "st-anna")
    monkeypatch.setenv(SITE_DIR, "/elsewhere")
    with contextlib.suppress(KeyError), site_folder(home):
        assert os.environ[SITE_DIR] == str(home.root)
        raise KeyError
    assert os.environ[SITE_DIR] == "/elsewhere"
    monkeypatch.delenv(SITE_DIR)
    with site_folder(home):
        pass
    assert SITE_DIR not in os.environ


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"ready": np.array([0])}, True),
        ({"ready": np.array([1]), "counts": np.array([0])}, False),
        ({"waiting": np.array([1])}, True),
        ({"waiting": np.array([0])}, False),
        ({"counts": np.array([0])}, False),
    ],
)
def test_a_reply_says_that_it_waits(arrays, expected):
    assert needs_person(RecordDict({"x.some": array_record(arrays)})) is expected
