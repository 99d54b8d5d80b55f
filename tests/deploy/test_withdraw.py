"""Withdrawal: the patients are in no later version, what was built on them is gone, and each run knows the decision."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fedimb.deploy import withdraw as module
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.datasets import find, named, register_data
from fedimb.deploy.home import NodeHome
from fedimb.deploy.pins import Pin, decided, pin, pinned, pins
from fedimb.deploy.withdraw import withdraw
from fedimb.engine.processes import start_time
from fedimb.errors import ConfigError, DataError

ROWS = ["p1,50,a,ill", "p1,51,b,ill", "p2,60,a,well", "Müller,61,b,well", "p4,61,b,well", "p5,40,a,ill"]


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    root = tmp_path / "st-anna"
    root.mkdir(mode=0o700)
    (root / "node.yaml").write_text("site: st-anna\n")
    return NodeHome.open(root)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "heads.csv"
    write(path, ROWS)
    return path


def write(path: Path, rows: list[str]) -> None:
    path.write_text("\n".join(["who,age,kind,label", *rows]) + "\n", encoding="utf-8")


def add(home, path, patient="who"):
    words = ["target=label", "categorical=[kind]", *([] if patient else ["drop=[who]"])]
    return register_data(home, str(path), "heads", ["heads"], patient_column=patient, settings=words)


def ages(version):
    return version.open_store().x[:, 0].tolist()


def built(home, run):
    """What runs leave at a node, in each of its places."""
    made = [
        home.folder("state", run) / "client-000000",
        home.folder("state", "worklists", run) / "site-only-map.csv",
        home.folder("outbox") / f"{run}.synthetic.npz",
        home.folder("cache", run, "model") / "weights",
    ]
    for path in made:
        path.write_text("x")
    return made


def test_a_patient_leaves(home, table):
    before = add(home, table)
    assert ages(before) == [50, 51, 60, 61, 61, 40]
    content = table.read_bytes()
    done = withdraw(home, "heads", ["p1", "Müller"])
    after = find(home, ["heads"])
    assert (done.old, done.new, done.records, done.already) == (before.version, after.version, 3, 0)
    assert ages(after) == [60, 61, 40]
    assert after.facts["patients_per_class"] == {"ill": 1, "well": 2}
    assert after.facts["left_out"] == 3
    assert table.read_bytes() == content  # the hospital's file is the hospital's
    after.verify(full=True)
    for use in (before.open_store, lambda: before.verify(full=False), lambda: before.prove("2")):
        with pytest.raises(DataError, match="withdrawn since"):
            use()
    assert not home.file("cache", "stores", before.version).exists()
    for path in home.file("data").rglob("*"):
        assert path.is_dir() or "Müller" not in path.read_text(encoding="utf-8")


def test_nobody_comes_back(home, table):
    add(home, table)
    withdraw(home, "heads", ["p1"])
    again = add(home, table)  # registered anew
    assert ages(again) == [60, 61, 61, 40]
    write(table, ["p7,1,a,ill", *ROWS[2:], "p1,52,a,ill"])  # edited: other rows, one more of p1
    assert ages(add(home, table)) == [1, 60, 61, 61, 40]


def test_the_hospital_may_then_delete_the_rows_itself(home, table):
    add(home, table)
    withdraw(home, "heads", ["p1"])
    version = find(home, ["heads"])
    write(table, ROWS[2:])
    version.verify(full=False)
    version.verify(full=True)
    write(table, [*ROWS[2:5]])
    with pytest.raises(DataError, match="row 7 is gone"):
        version.verify(full=True)


def test_records_without_patients_go_by_row(home, table):
    write(table, ["-,50,a,ill", "-,50,a,ill", "-,61,b,well", "-,40,a,well"])
    add(home, table, patient=None)
    withdraw(home, "heads", ["3", "heads.csv row 5"])
    version = find(home, ["heads"])
    assert [place.rpartition(" ")[2] for place, _ in version.records] == ["2", "4"]
    write(table, ["-,9,b,ill", "-,50,a,ill", "-,50,a,ill", "-,61,b,well", "-,40,a,well"])
    assert sorted(ages(add(home, table, patient=None))) == [9, 50, 61]  # one of the two equal rows, as before


@pytest.mark.parametrize("ids", [["p1", "p9"], ["P1"], [], ["", " "]])
def test_a_wrong_id_changes_nothing(home, table, ids):
    version = add(home, table)
    before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"no record is of patient '(p9|P1)'|no id is given"):
        withdraw(home, "heads", ids)
    assert {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()} == before
    version.verify(full=True)


def test_not_everybody(home, table):
    version = add(home, table)
    with pytest.raises(DataError, match="withdraws every record"):
        withdraw(home, "heads", ["p1", "p2", "Müller", "p4", "p5"])
    version.verify(full=True)


def test_changed_files_are_refused_first(home, table):
    version = add(home, table)
    write(table, [*ROWS[:-1], "p5,41,a,ill"])
    with pytest.raises(DataError, match="row 7 changed"):
        withdraw(home, "heads", ["p1"])
    write(table, ROWS)
    version.verify(full=True)


@pytest.mark.parametrize("decision", ["stop", "continue", "retrain"])
def test_runs_that_used_them(home, table, decision):
    version = add(home, table)
    other = register_data(home, str(table), "others", ["o"], settings=["target=label", "categorical=[kind, who]"])
    assert pin(home, "abc123", version).version == version.version
    pin(home, "abc123", version)
    pin(home, "def456", other)
    mine, theirs = built(home, "abc123"), built(home, "def456")
    version.open_store()
    kept = other.open_store().path
    done = withdraw(home, "heads", ["p1"], decision)
    assert done.runs == ("abc123",)
    assert not any(path.exists() for path in mine)
    assert all(path.exists() for path in theirs)
    assert kept.exists()
    assert set(done.deleted) == {
        *("cache/abc123/", "outbox/abc123.synthetic.npz", "state/abc123/", "state/worklists/abc123/"),
        f"cache/stores/{version.version}/",
    }
    assert pinned(home, "def456").version == other.version
    (record,) = home.file("data", "withdrawals").glob("*.json")
    assert json.loads(record.read_text())["decision"] == decision
    if decision == "continue":
        assert ages(pinned(home, "abc123")) == [60, 61, 61, 40]
        assert next(one for one in pins(home) if one.run == "abc123").before == (version.version,)
    else:
        with pytest.raises(DataError, match="no further part" if decision == "stop" else "begins anew"):
            pinned(home, "abc123")
        with pytest.raises(DataError, match="withdrawn"):
            pin(home, "abc123", named(home, "heads"))
        assert pin(home, "new", named(home, "heads")).version == done.new


def test_samples_made_from_them_are_recalled_and_gone(home, table):
    from fedimb.privacy.audit.base import Audit, Batch, Verdict
    from fedimb.privacy.outbox import Outbox

    other = register_data(home, str(table), "others", ["o"], settings=["target=label", "categorical=[kind, who]"])
    pin(home, "abc123", add(home, table), names=["s0-1a2b"])
    pin(home, "def456", other)
    worklist = home.folder("worklists", "s0-1a2b") / "site-only-map.csv"
    worklist.write_text("x")
    box, audit = Outbox(home.file("outbox")), Audit({0: Verdict("pass", (), {})})

    def put(seed, about):
        x = np.random.default_rng(seed).random((6, 3)).astype(np.float32)
        return box.put(Batch(x, np.zeros(6, np.int64)), audit, about, Batch(x, np.zeros(6, np.int64)))

    mine, theirs = put(0, {"run": "abc123"}), put(1, {"runs": ["def456"]})
    unknown = put(2, {})
    used = put(3, {"run": "def456"})
    box.release(used, [0])
    box.used_by(used, "s0-1a2b")
    done = withdraw(home, "heads", ["p1"])
    gone = {mine, unknown, used}
    assert {name for name in done.deleted if name.startswith("outbox/")} == {f"outbox/{one}/" for one in gone}
    assert not worklist.exists()
    for batch in gone:
        assert "withdrawn" in box.recalled(batch)
        assert not (box.folder / batch / "batch.safetensors").exists()
    assert box.recalled(theirs) is None
    assert (box.folder / theirs / "batch.safetensors").exists()


def test_half_a_withdrawal_is_finished_by_the_same_command(home, table, monkeypatch):
    version = add(home, table)
    pin(home, "abc123", version)
    mine = built(home, "abc123")

    def killed(*_):
        raise KeyboardInterrupt

    for step in ("make_version", "purge", "write_pin"):
        with monkeypatch.context() as patch:
            patch.setattr(module, step, killed)
            with pytest.raises(KeyboardInterrupt):
                withdraw(home, "heads", ["p1"], "continue")
        with pytest.raises(DataError, match="withdrawn since"):
            pinned(home, "abc123").verify(full=False)
    done = withdraw(home, "heads", ["p1"], "continue")
    assert (done.already, done.runs) == (1, ("abc123",))
    assert not any(path.exists() for path in mine)
    assert ages(pinned(home, "abc123")) == [60, 61, 61, 40]


def test_a_running_node_is_left_alone(home, table):
    version = add(home, table)
    me = {str(os.getpid()): start_time(os.getpid())}
    home.file("status.json").write_text(json.dumps({"supervisor": me}))
    with pytest.raises(ConfigError, match=f"the node is running .process {os.getpid()}"):
        withdraw(home, "heads", ["p1"])
    version.verify(full=True)
    home.file("status.json").write_text(json.dumps({"supervisor": {str(os.getpid()): "another start"}}))
    assert withdraw(home, "heads", ["p1"]).records == 2


def test_the_audit_log_has_the_decision_and_no_id(home, table):
    pin(home, "abc123", add(home, table))
    withdraw(home, "heads", ["Müller"], "retrain")
    log = AuditLog(home.file("audit.jsonl"))
    assert log.verify() is None
    (line,) = home.file("audit.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(word in line for word in ('"withdrawal"', "abc123", "retrain", "heads"))
    assert "ller" not in line


def test_a_second_withdrawal_leaves_the_first_in_force(home, table):
    pin(home, "abc123", add(home, table))
    withdraw(home, "heads", ["p1"])
    withdraw(home, "heads", ["p2", "p1"], "continue")
    assert ages(find(home, ["heads"])) == [61, 61, 40]
    with pytest.raises(DataError, match="no further part"):
        pinned(home, "abc123")


def test_a_class_that_lost_its_rows_can_still_be_recorded(home, table):
    add(home, table)
    withdraw(home, "heads", ["p1", "p5"])
    facts = find(home, ["heads"]).facts
    assert (facts["class_counts"]["ill"], facts["recordable"]) == (0, ["ill", "well"])


def test_pins(home, table):
    version = add(home, table)
    with pytest.raises(ConfigError, match="no id of a run"):
        pin(home, "../up", version)
    with pytest.raises(ConfigError, match="never began here"):
        pinned(home, "abc123")
    pin(home, "abc123", version)
    write(table, [*ROWS, "p9,9,a,ill"])
    newer = add(home, table)
    with pytest.raises(DataError, match="a run keeps its data"):
        pin(home, "abc123", newer)
    with pytest.raises(DataError, match="row 8 is new"):
        pinned(home, "abc123").verify(full=True)
    home.file("data", "pins", "abc123.json").write_text("{}")
    with pytest.raises(DataError, match=r"abc123\.json is damaged"):
        pins(home)


def test_a_stop_is_not_undone():
    one = Pin("r", "heads", "old", "2026-01-01T00:00:00+00:00")
    stopped = decided(one, "stop", "new")
    assert decided(stopped, "continue", "newer") == stopped
    assert decided(decided(one, "continue", "new"), "stop", "newer").decision == "stop"
    assert decided(decided(one, "continue", "new"), "continue", "newer").before == ("old", "new")


def test_a_damaged_list_lets_nobody_back(home, table):
    version = add(home, table)
    withdraw(home, "heads", ["p1"])
    home.file("data", "sets", "heads", "withdrawn.json").write_text("[{}]")
    for use in (version.open_store, lambda: add(home, table)):
        with pytest.raises(DataError, match=r"withdrawn\.json is damaged"):
            use()
