"""Final scores of each test row: what a run keeps, what their hash covers, and what is refused."""

import types

import numpy as np
import pytest
from small_runs import launch_in

from fedimb.errors import FedimbError
from fedimb.evaluation.probabilities import ranking_scores
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.row_scores import RowScores, hash_of_rows

TINY = ("engine=inline", "rounds=1", "clients.count=2")
ROWS = np.array([1, 4, 5, 9])


def a_store(**change):
    """The columns of a store that the hash reads."""
    rng = np.random.default_rng(0)
    facts = {
        "x": rng.normal(size=(10, 3)).astype(np.float32),
        "y": np.arange(10) % 2,
        "targets": None,
        "class_names": ("a", "b"),
        "task": "multiclass",
        "scale": 1.0,
    }
    return types.SimpleNamespace(**(facts | change))


def some_scores(**change):
    logits = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)
    facts = {"rows": ROWS, "labels": np.array([0, 1, 1, 0]), "logits": logits, "patients": np.array([0, 1, 1, 2])}
    return RowScores(**(facts | {"test_set": "abc", "class_names": ("a", "b")} | change))


def test_they_are_what_the_result_was_computed_from(tmp_path):
    result = launch_in(tmp_path, *TINY, "calibration=[none,la_post]")
    found = [RowScores.read(result.folder, row.label) for row in result.rows]
    for row, scores in zip(result.rows, found, strict=True):
        assert scores.logits.dtype == np.float32
        assert (np.diff(scores.rows) > 0).all()
        np.testing.assert_array_equal(scores.confusion(), row.confusion)
        np.testing.assert_array_equal(ranking_scores(scores.probabilities, scores.labels)[0], row.auroc)
    assert found[0].test_set == found[1].test_set
    assert found[0].logits.tolist() != found[1].logits.tolist()
    sizes = [path.stat().st_size for path in result.folder.glob("artifacts/rows/*/test_scores.npz")]
    assert max(sizes) < len(found[0].rows) * (10 * 4 + 8) + 1500


def test_a_resumed_run_writes_the_same_bytes(tmp_path, monkeypatch):
    from fedimb.serverapp import launch

    whole = launch_in(tmp_path / "whole", *TINY)
    original = launch.write_result
    monkeypatch.setattr(launch, "write_result", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        launch_in(tmp_path, *TINY)
    monkeypatch.setattr(launch, "write_result", original)
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    name = "artifacts/rows/fedavg/test_scores.npz"
    assert not (folder / name).exists()
    launch.resume(folder)
    assert (folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_scores_of_the_clients_rows_are_not_kept(tmp_path):
    result = launch_in(tmp_path, *TINY, "data.test={name: none}", "data.validation=0.3")
    assert not list(result.folder.rglob("test_scores.npz"))


@pytest.mark.parametrize("several", [False, True])
def test_they_come_back_as_they_were(tmp_path, several):
    change = {"labels": np.array([[1, 0], [1, 1], [0, 1], [0, 1]], np.uint8)} if several else {}
    scores = some_scores(**change)
    scores.write(RunFolder(tmp_path), "a/b")
    back = RowScores.read(tmp_path, "a/b")
    for name in ("rows", "labels", "logits", "patients"):
        kept, found = getattr(scores, name), getattr(back, name)
        assert found.dtype == kept.dtype
        np.testing.assert_array_equal(found, kept)
    assert (back.test_set, back.class_names, back.several) == ("abc", ("a", "b"), several)
    assert back.targets.sum() == (5 if several else 4)
    some_scores(patients=None).write(RunFolder(tmp_path), "c")
    assert RowScores.read(tmp_path, "c").patients is None


@pytest.mark.parametrize("damage", [lambda b: b[:200], lambda b: b[:-40] + bytes(40), lambda b: b"", lambda b: b"[1]"])
def test_a_damaged_file_is_one_line(tmp_path, damage):
    some_scores().write(RunFolder(tmp_path), "a")
    path = tmp_path / "artifacts/rows/a/test_scores.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FedimbError, match=r"test_scores\.npz is damaged .*; run the configuration again$"):
        RowScores.read(tmp_path, "a")


def test_the_hash_is_of_the_rows_contents():
    first = hash_of_rows(a_store(), ROWS)
    assert hash_of_rows(a_store(), ROWS) == first
    moved = a_store()
    order = np.r_[ROWS, np.setdiff1d(np.arange(10), ROWS)]
    moved.x, moved.y = moved.x[order], moved.y[order]
    assert hash_of_rows(moved, np.arange(4)) == first  # the same rows under other numbers
    changed = a_store()
    changed.x[4, 0] += 1e-3
    training = a_store()
    training.x[0] = 0
    assert hash_of_rows(training, ROWS) == first
    others = [
        hash_of_rows(changed, ROWS),
        hash_of_rows(a_store(y=1 - np.arange(10) % 2), ROWS),
        hash_of_rows(a_store(class_names=("b", "a")), ROWS),
        hash_of_rows(a_store(targets=np.eye(2, dtype=np.uint8)[np.arange(10) % 2]), ROWS),
        hash_of_rows(a_store(scale=0.5), ROWS),
        hash_of_rows(a_store(), ROWS[:3]),
        hash_of_rows(a_store(), ROWS[::-1]),
    ]
    assert len({first, *others}) == 8
