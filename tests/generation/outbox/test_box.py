"""The outbox: what passed waits, is released or rejected class by class, and can be recalled."""

import json
import stat
import threading

import numpy as np
import pytest

from fedimb.errors import DataError
from fedimb.generation.outbox import Outbox, recalled_batches
from fedimb.privacy.audit.types import Audit, Batch, Verdict

FIGURES = {"near_copy_rate": 0.01, "power": 0.95}
AUDIT = Audit(
    {
        0: Verdict("pass", (), FIGURES),
        1: Verdict("fail", ("5 of 6 samples are near copies",), {"power": float("nan")}),
        2: Verdict("pass", (), FIGURES),
    }
)
ABOUT = {"class_names": ["naevus", "melanoma", "<b>other</b>"], "run": "fedssg-s0"}


def made(shape=(3,), seed=0):
    rng = np.random.default_rng(seed)
    return Batch(rng.random((18, *shape)).astype(np.float32), np.arange(18) % 3, np.arange(18) % 2)


def real(shape=(3,)):
    return Batch(np.random.default_rng(9).random((30, *shape)).astype(np.float32), np.arange(30) % 3)


@pytest.fixture
def box(tmp_path):
    return Outbox(tmp_path / "site" / "outbox")


def test_only_classes_that_passed_are_kept_and_wait(box):
    batch = made()
    id = box.put(batch, AUDIT, ABOUT, real())
    assert box.ids() == [id]
    assert box.state(id) == {0: "waiting", 2: "waiting"}
    assert len(box.released(id)) == 0
    kept = (box.folder / id / "batch.safetensors").read_bytes()
    assert all(row.tobytes() in kept for row in batch.x[batch.y == 0])
    failed = [row.tobytes() for row in batch.x[batch.y == 1]]
    assert not any(row in file.read_bytes() for file in (box.folder / id).iterdir() for row in failed)
    about = box.about(id)
    assert about["about"]["run"] == "fedssg-s0"
    assert about["audit"]["1"]["reasons"] == ["5 of 6 samples are near copies"]
    assert about["samples"] == {"0": 6, "2": 6}
    assert about["sha256"].startswith(id)
    assert len(set(about["sha256_of_class"].values())) == 2


def test_everything_is_private(box):
    id = box.put(made((1, 4, 4)), AUDIT, ABOUT, real((1, 4, 4)))
    files = list((box.folder / id).iterdir())
    assert len(files) == 5
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (box.folder, box.folder / id)} == {0o700}


def test_release_lets_go_of_one_class_with_its_devices_and_deletes_its_sheet(box):
    batch = made()
    id = box.put(batch, AUDIT, ABOUT, real())
    box.release(id, [2])
    assert box.state(id) == {0: "waiting", 2: "released"}
    free = box.released(id)
    assert free.x == pytest.approx(batch.x[batch.y == 2])
    assert free.d.tolist() == batch.d[batch.y == 2].tolist()
    assert set(free.y) == {2}
    assert not box.sheet(id, 2).exists()
    assert box.sheet(id, 0).exists()
    box.release(id, [2])  # again: nothing changes
    box.reject(id, [0], "blurred")
    assert box.reason(id, 0) == "blurred"
    assert box.reason(id, 2) == ""
    assert not box.sheet(id, 0).exists()
    assert len(box.released(id)) == 6


def test_decisions_are_final_and_all_or_nothing(box):
    id = box.put(made(), AUDIT, ABOUT, real())
    box.release(id, [0])
    with pytest.raises(DataError, match="class 0 is released already; to undo that, recall"):
        box.reject(id, [2, 0], "no")
    assert box.state(id)[2] == "waiting"
    assert box.sheet(id, 2).exists()
    box.reject(id, [2], "a name is seen")
    with pytest.raises(DataError, match="rejected already"):
        box.release(id, [2])
    with pytest.raises(DataError, match="no class 1; it has 0, 2"):
        box.release(id, [1])
    with pytest.raises(DataError, match="needs a reason"):
        box.reject(id, [0], " ")


def test_the_same_samples_are_the_same_batch_and_keep_what_was_decided(box):
    id = box.put(made(), AUDIT, ABOUT, real())
    box.release(id, [0])
    assert box.put(made(), AUDIT, ABOUT, real()) == id
    assert box.state(id) == {0: "released", 2: "waiting"}
    assert box.put(made(seed=1), AUDIT, ABOUT, real()) != id
    assert len(box.ids()) == 2


def test_a_batch_of_which_nothing_passed_is_not_put(box):
    with pytest.raises(DataError, match="no class of this batch passed"):
        box.put(made(), Audit({0: Verdict("undecidable"), 1: Verdict("fail")}), ABOUT, real())
    assert not box.folder.exists()


def test_a_half_written_batch_is_put_again(box, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("fedimb.generation.outbox.box.contact_sheet", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            box.put(made(), AUDIT, ABOUT, real())
    assert box.ids() == []
    id = box.put(made(), AUDIT, ABOUT, real())
    assert box.ids() == [id]
    assert box.sheet(id, 0).exists()


def test_a_recall_marks_the_runs_that_used_the_batch(box, tmp_path):
    run = tmp_path / "runs" / "r1"
    run.mkdir(parents=True)
    id = box.put(made(), AUDIT, ABOUT, real())
    with pytest.raises(DataError, match="no released class to use"):
        box.used_by(id, run)
    box.release(id, [0])
    box.used_by(id, run)
    box.used_by(id, "elsewhere-7")
    box.used_by(id, run)
    assert box.users(id) == [str(run), "elsewhere-7"]
    assert recalled_batches(run) == {}
    with pytest.raises(DataError, match="needs a reason"):
        box.recall(id, "")
    assert box.recall(id, "consent withdrawn") == [str(run), "elsewhere-7"]
    assert box.recalled(id) == "consent withdrawn"
    assert recalled_batches(run)[id]["reason"] == "consent withdrawn"
    assert not list((box.folder / id).glob("sheet-*"))
    for act in (lambda: box.released(id), lambda: box.release(id, [2]), lambda: box.used_by(id, "x")):
        with pytest.raises(DataError, match="was recalled"):
            act()
    with pytest.raises(DataError, match="was recalled"):
        box.put(made(), AUDIT, ABOUT, real())
    box.recall(id, "again")
    assert box.recalled(id) == "consent withdrawn"


def test_two_batches_mark_one_run(box, tmp_path):
    for seed in (0, 1):
        id = box.put(made(seed=seed), AUDIT, ABOUT, real())
        box.release(id, [0])
        box.used_by(id, tmp_path)
        box.recall(id, f"reason {seed}")
    assert sorted(one["reason"] for one in recalled_batches(tmp_path).values()) == ["reason 0", "reason 1"]


def test_changed_or_missing_files_are_told(box, tmp_path):
    id = box.put(made(), AUDIT, ABOUT, real())
    box.release(id, [0])
    path = box.folder / id / "batch.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataError, match="hash differs"):
        box.released(id)
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        box.released(id)
    with pytest.raises(DataError, match="holds no batch 00"):
        box.state("00")
    (box.folder / id / "state.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        box.state(id)
    (tmp_path / "recalled.json").write_text("[")
    with pytest.raises(DataError, match="damaged"):
        recalled_batches(tmp_path)


def test_people_who_decide_at_once_lose_nothing(box):
    audit = Audit({label: Verdict("pass") for label in range(12)})
    x = np.random.default_rng(0).random((24, 2)).astype(np.float32)
    id = box.put(Batch(x, np.arange(24) % 12), audit, {}, Batch(x, np.arange(24) % 12))
    people = [threading.Thread(target=box.release, args=(id, [label])) for label in range(12)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    assert set(box.state(id).values()) == {"released"}


def test_what_is_noted_is_json_with_times(box):
    id = box.put(made(), AUDIT, ABOUT, real())
    box.release(id, [0])
    state = json.loads((box.folder / id / "state.json").read_text())
    assert state["classes"]["0"]["at"].endswith("+00:00")
    assert "NaN" not in (box.folder / id / "about.json").read_text()
