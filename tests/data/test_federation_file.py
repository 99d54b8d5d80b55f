"""A federation saved, pickled, loaded on another machine, damaged: the same index lists or an error."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fedimb.data.federation import Federation
from fedimb.data.prepare import prepare
from fedimb.data.store import open_store
from fedimb.errors import DataError


def remade(one, **changes):
    parts = (
        "source",
        "store_path",
        "train",
        "validation",
        "test",
        "counts",
        "class_names",
        "minority",
        "fingerprint",
    )
    return Federation(**{**{name: getattr(one, name) for name in parts}, **changes})


def test_the_sha_sees_every_change(federation):
    train = [rows.copy() for rows in federation.train]
    k = next(k for k in range(9) if len(train[k]))
    moved = [*train[:k], train[k][:-1], np.append(train[k][-1:], train[k + 1]), *train[k + 2 :]]
    shas = {
        federation.sha,
        remade(federation, train=moved).sha,
        remade(federation, train=train[::-1]).sha,
        remade(federation, train=federation.validation, validation=federation.train).sha,
        remade(federation, test=federation.test[1:]).sha,
        remade(federation, class_names=("x", *federation.class_names[1:])).sha,
        remade(federation, fingerprint="other").sha,
    }
    assert len(shas) == 7
    assert remade(federation).sha == federation.sha


def same(a, b):
    lists = zip([*a.train, *a.validation, a.test], [*b.train, *b.validation, b.test], strict=True)
    assert all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in lists)
    assert np.array_equal(a.counts, b.counts)
    assert (a.sha, a.minority, a.class_names, a.source, a.store_path) == (
        b.sha,
        b.minority,
        b.class_names,
        b.source,
        b.store_path,
    )


def test_saved_is_loaded(federation, tmp_path):
    federation.save(tmp_path)
    same(federation, Federation.load(tmp_path))
    facts = json.loads((tmp_path / "partition.json").read_text())
    assert facts["counts"] == federation.counts.tolist()
    assert facts["exposure"]["holders"] == (federation.counts > 0).sum(axis=0).tolist()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["partition.json", "partition.npz"]


def test_more_clients_than_rows_and_one_client_round_trip(digits, dirichlet, tmp_path):
    for clients in (1, 700):
        one = prepare(digits, dirichlet, clients, 1)
        one.save(tmp_path / str(clients))
        same(one, Federation.load(tmp_path / str(clients)))


def test_pickled_without_the_data(federation):
    assert federation.store.n_classes == 10
    copy = pickle.loads(pickle.dumps(federation))
    same(federation, copy)
    assert "store" not in copy.__dict__
    assert np.array_equal(copy.store.y, federation.store.y)


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(bytes(raw))


def edit(path):
    path.write_text(path.read_text().replace('"minority": [\n', '"minority": [\n  9,\n'))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("partition.npz", flip),
        ("partition.npz", lambda p: p.write_bytes(p.read_bytes()[:-20])),
        ("partition.npz", lambda p: p.unlink()),
        ("partition.json", edit),
        ("partition.json", lambda p: p.write_text("[]")),
        ("partition.json", lambda p: p.unlink()),
    ],
)
def test_a_damaged_file_is_refused(federation, tmp_path, file, damage):
    federation.save(tmp_path)
    before = (tmp_path / file).read_bytes()
    damage(tmp_path / file)
    assert not (tmp_path / file).exists() or (tmp_path / file).read_bytes() != before
    with pytest.raises(DataError, match="partition"):
        Federation.load(tmp_path)


def test_the_index_lists_of_another_run_are_refused(federation, digits, dirichlet, tmp_path):
    federation.save(tmp_path / "a")
    prepare(digits, dirichlet, 10, 4).save(tmp_path / "b")
    shutil.copy(tmp_path / "b" / "partition.npz", tmp_path / "a" / "partition.npz")
    with pytest.raises(DataError, match="not the one"):
        Federation.load(tmp_path / "a")


def test_a_missing_store_is_rebuilt_and_a_changed_source_refused(federation, tmp_path):
    open_store.cache_clear()
    moved = remade(federation, store_path=tmp_path / "gone")
    assert np.array_equal(moved.store.y, federation.store.y)
    with pytest.raises(DataError, match="were cut from other"):
        _ = remade(federation, fingerprint="other").store


def test_loading_needs_neither_torch_nor_sklearn(federation, tmp_path):
    federation.save(tmp_path)
    code = (
        "import sys; from fedimb.data.federation import Federation; "
        "f = Federation.load(sys.argv[1]); f.store.y; "
        "sys.exit([m for m in ('torch', 'sklearn', 'mlflow', 'ray', 'pandas') if m in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
