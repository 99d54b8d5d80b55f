"""Withdrawal: the patients are in no later version, what was built on them is gone, and each run knows the decision."""

import json
import os
from pathlib import Path

import pytest

from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.registered_data.datasets import find_data_set, register_data
from fedimb.deploy.registered_data.pins import pin_run, pinned_version
from fedimb.deploy.site import withdraw as module
from fedimb.deploy.site.withdraw import withdraw
from fedimb.engine.processes import start_time
from fedimb.errors import ConfigError, DataError

ROWS = ["p1,50,a,ill", "p1,51,b,ill", "p2,60,a,well", "Müller,61,b,well", "p4,61,b,well", "p5,40,a,ill"]


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


def test_a_patient_leaves(home, table):
    before = add(home, table)
    assert ages(before) == [50, 51, 60, 61, 61, 40]
    content = table.read_bytes()
    done = withdraw(home, "heads", ["p1", "Müller"])
    after = find_data_set(home, ["heads"])
    assert (done.old, done.new, done.records, done.already) == (before.version, after.version, 3, 0)
    assert ages(after) == [60, 61, 40]
    assert after.facts["patients_per_class"] == {"ill": 1, "well": 2}
    assert after.facts["left_out"] == 3
    assert table.read_bytes() == content  # the hospital's file is the hospital's
    after.verify(full=True)
    for use in (before.open_store, lambda: before.verify(full=False), lambda: before.prove("2")):
        with pytest.raises(DataError, match="have been withdrawn"):
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
    version = find_data_set(home, ["heads"])
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
    version = find_data_set(home, ["heads"])
    assert [place.rpartition(" ")[2] for place, _ in version.records] == ["2", "4"]
    write(table, ["-,9,b,ill", "-,50,a,ill", "-,50,a,ill", "-,61,b,well", "-,40,a,well"])
    assert sorted(ages(add(home, table, patient=None))) == [9, 50, 61]  # one of the two equal rows, as before


@pytest.mark.parametrize("ids", [["p1", "p9"], ["P1"], [], ["", " "]])
def test_a_wrong_id_changes_nothing(home, table, ids):
    version = add(home, table)
    before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"there is no record of patient '(p9|P1)'|no id was given"):
        withdraw(home, "heads", ids)
    assert {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()} == before
    version.verify(full=True)


def test_not_everybody(home, table):
    version = add(home, table)
    with pytest.raises(DataError, match="would withdraw every record"):
        withdraw(home, "heads", ["p1", "p2", "Müller", "p4", "p5"])
    version.verify(full=True)


def test_changed_files_are_refused_first(home, table):
    version = add(home, table)
    write(table, [*ROWS[:-1], "p5,41,a,ill"])
    with pytest.raises(DataError, match="row 7 changed"):
        withdraw(home, "heads", ["p1"])
    write(table, ROWS)
    version.verify(full=True)


def test_half_a_withdrawal_is_finished_by_the_same_command(home, table, monkeypatch):
    version = add(home, table)
    pin_run(home, "abc123", version)
    mine = home.folder("state", "abc123")

    def killed(*_):
        raise KeyboardInterrupt

    for step in ("make_version", "purge", "write_pin"):
        with monkeypatch.context() as patch:
            patch.setattr(module, step, killed)
            with pytest.raises(KeyboardInterrupt):
                withdraw(home, "heads", ["p1"], "continue")
        with pytest.raises(DataError, match="have been withdrawn"):
            pinned_version(home, "abc123").verify(full=False)
    done = withdraw(home, "heads", ["p1"], "continue")
    assert (done.already, done.runs) == (1, ("abc123",))
    assert not mine.exists()
    assert ages(pinned_version(home, "abc123")) == [60, 61, 61, 40]


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
    pin_run(home, "abc123", add(home, table))
    withdraw(home, "heads", ["Müller"], "retrain")
    log = AuditLog(home.file("audit.jsonl"))
    assert log.verify() is None
    (line,) = home.file("audit.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(word in line for word in ('"withdrawal"', "abc123", "retrain", "heads"))
    assert "ller" not in line


def test_a_second_withdrawal_leaves_the_first_in_force(home, table):
    pin_run(home, "abc123", add(home, table))
    withdraw(home, "heads", ["p1"])
    withdraw(home, "heads", ["p2", "p1"], "continue")
    assert ages(find_data_set(home, ["heads"])) == [61, 61, 40]
    with pytest.raises(DataError, match="no longer takes part"):
        pinned_version(home, "abc123")


def test_a_class_that_lost_its_rows_can_still_be_recorded(home, table):
    add(home, table)
    withdraw(home, "heads", ["p1", "p5"])
    facts = find_data_set(home, ["heads"]).facts
    assert (facts["class_counts"]["ill"], facts["recordable"]) == (0, ["ill", "well"])


def test_a_damaged_list_lets_nobody_back(home, table):
    version = add(home, table)
    withdraw(home, "heads", ["p1"])
    home.file("data", "sets", "heads", "withdrawn.json").write_text("[{}]")
    for use in (version.open_store, lambda: add(home, table)):
        with pytest.raises(DataError, match=r"withdrawn\.json is damaged"):
            use()
