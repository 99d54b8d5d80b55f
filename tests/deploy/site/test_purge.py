"""What runs built on withdrawn records is found by the runs' names and deleted, and nothing of other runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedimb.deploy.registered_data.datasets import open_data_set, register_data
from fedimb.deploy.registered_data.pins import pin_run, pinned_version, read_pins
from fedimb.deploy.site.withdraw import withdraw
from fedimb.errors import DataError

ROWS = ["p1,50,a,ill", "p1,51,b,ill", "p2,60,a,well", "Müller,61,b,well", "p4,61,b,well", "p5,40,a,ill"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "heads.csv"
    path.write_text("\n".join(["who,age,kind,label", *ROWS]) + "\n", encoding="utf-8")
    return path


def add(home, path):
    words = ["target=label", "categorical=[kind]"]
    return register_data(home, str(path), "heads", ["heads"], patient_column="who", settings=words)


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


@pytest.mark.parametrize("decision", ["stop", "continue", "retrain"])
def test_runs_that_used_them(home, table, decision):
    version = add(home, table)
    other = register_data(home, str(table), "others", ["o"], settings=["target=label", "categorical=[kind, who]"])
    assert pin_run(home, "abc123", version).version == version.version
    pin_run(home, "abc123", version)
    pin_run(home, "def456", other)
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
    assert pinned_version(home, "def456").version == other.version
    (record,) = home.file("data", "withdrawals").glob("*.json")
    assert json.loads(record.read_text())["decision"] == decision
    if decision == "continue":
        assert ages(pinned_version(home, "abc123")) == [60, 61, 61, 40]
        assert next(one for one in read_pins(home) if one.run == "abc123").before == (version.version,)
    else:
        with pytest.raises(DataError, match="no longer takes part" if decision == "stop" else "only in a new run"):
            pinned_version(home, "abc123")
        with pytest.raises(DataError, match="withdrawn"):
            pin_run(home, "abc123", open_data_set(home, "heads"))
        assert pin_run(home, "new", open_data_set(home, "heads")).version == done.new


def test_samples_made_from_them_are_recalled_and_gone(home, table):
    from fedimb.generation.outbox import Outbox
    from fedimb.privacy.audit.types import Audit, Batch, Verdict

    other = register_data(home, str(table), "others", ["o"], settings=["target=label", "categorical=[kind, who]"])
    pin_run(home, "abc123", add(home, table), names=["s0-1a2b"])
    pin_run(home, "def456", other)
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
