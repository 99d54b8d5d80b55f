"""The journal of arrivals: what is in it is on the disk, in its order; anything else is refused with its place."""

import json

import pytest

from fedimb.engine.open import open_engine
from fedimb.errors import RunDiverged, RunFailed
from fedimb.rundir.arrival_journal import (
    ArrivalJournal,
    arrivals_differ,
    check_replies,
    follows_arrivals,
    read_arrivals,
    remove_replies,
)
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.seal import Damaged
from fedimb.serverapp.launch import _ending
from fedimb.tracking.mlflow import NoTracker


@pytest.fixture
def folder(tmp_path):
    journal = ArrivalJournal(tmp_path)
    for number, (client, failed) in enumerate([(2, ""), (0, "it diverged"), (1, "")]):
        journal.append(f"reply {number}".encode(), 0, number, client, 0, 10 * number, failed)
    return tmp_path


def test_what_was_written_is_read_in_its_order(folder):
    journal = ArrivalJournal(folder)
    assert [(one.client, one.ns, one.failed) for one in journal.arrivals] == [
        (2, 0, ""),
        (0, 10, "it diverged"),
        (1, 20, ""),
    ]
    assert journal.reply(1) == b"reply 1"


def test_a_cut_line_is_taken_off_and_its_number_used_again(folder):
    path = folder / "arrivals.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"after": "00')
    journal = ArrivalJournal(folder)
    assert path.read_bytes() == whole
    journal.append(b"again", 0, 3, 2, 1, 30, "")
    assert [one.number for one in read_arrivals(path)[0]] == [0, 1, 2, 3]


def test_a_replaced_reply_is_not_taken(folder):
    (folder / "arrivals" / "000001.safetensors").write_bytes((folder / "arrivals" / "000002.safetensors").read_bytes())
    with pytest.raises(Damaged, match=r"000001\.safetensors is not the reply that arrived: it was changed"):
        ArrivalJournal(folder).reply(1)
    (folder / "arrivals" / "000001.safetensors").unlink()
    with pytest.raises(Damaged, match="is missing, a reply that arrived after the last checkpoint"):
        ArrivalJournal(folder).reply(1)


def swapped(lines):
    return [lines[1], lines[0], lines[2]]


def without_one(lines):
    return [lines[0], lines[2]]


def of_another_client(lines):
    return [lines[0], json.dumps(json.loads(lines[1]) | {"client": 3}, sort_keys=True), lines[2]]


@pytest.mark.parametrize(("change", "line"), [(swapped, 1), (without_one, 2), (of_another_client, 3)])
def test_changed_lines_are_refused(folder, change, line):
    path = folder / "arrivals.jsonl"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(Damaged, match=f"arrivals.jsonl, line {line}, is not as it was written"):
        ArrivalJournal(folder)


def test_replies_that_no_checkpoint_needs_are_removed_and_lines_stay(folder):
    ArrivalJournal(folder).forget_before(2)
    assert [path.name for path in (folder / "arrivals").iterdir()] == ["000002.safetensors"]
    remove_replies(folder)
    assert not (folder / "arrivals").exists()
    assert len(ArrivalJournal(folder).arrivals) == 3


def test_what_a_resume_needs_is_checked_without_a_change(folder):
    (folder / "arrivals" / "000000.safetensors").unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    check_replies(folder, first=0, taken=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(Damaged, match=r"000000\.safetensors is missing"):
        check_replies(folder, first=0, taken=0)
    check_replies(folder, first=5, taken=0)  # of a later step, which has none yet


def test_replies_that_cannot_be_removed_are_said(folder, monkeypatch, caplog):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("fedimb.rundir.arrival_journal.shutil.rmtree", refused)
    remove_replies(folder)
    assert "arrivals holds what single clients sent and could not be removed" in caplog.text


@pytest.mark.parametrize(("error", "kept"), [(RunDiverged("weights are not finite"), False), (RunFailed("x"), True)])
def test_a_run_that_diverged_keeps_no_replies_and_one_that_failed_does(folder, error, kept):
    with pytest.raises(type(error)), _ending(RunFolder(folder), NoTracker(), open_engine({"name": "inline"})):
        raise error
    assert (folder / "arrivals").exists() is kept


def test_two_orders_of_arrivals_are_told_apart(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    assert arrivals_differ(folder, other)
    assert not arrivals_differ(folder, folder)
    assert [follows_arrivals(path) for path in (folder, other)] == [True, False]
