import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fedimb.data import store as module
from fedimb.data.arrays import SourceData
from fedimb.data.store import Store, open_source
from fedimb.errors import ConfigError, DataError
from fedimb.registry import register


def source(n=6):
    return SourceData(
        x=np.arange(n * 2, dtype=np.uint8).reshape(n, 2),
        y=np.arange(n) % 2,
        class_names=("a", "b"),
        scale=0.5,
        sites=np.arange(n) % 3,
        site_names=("p", "q", "r"),
        patients=np.arange(n) // 2,
        official_test=np.arange(n) < 2,
    )


def test_what_is_built_is_what_is_opened_and_memory_mapped(tmp_path):
    Store.build(source(), tmp_path / "s", "f1")
    opened = Store.open(tmp_path / "s")
    for name in ("x", "y", "sites", "patients", "official_test"):
        assert np.array_equal(getattr(opened, name), getattr(source(), name)), name
    assert isinstance(opened.x, np.memmap)
    assert not opened.x.flags.writeable
    assert (opened.class_names, opened.site_names, opened.scale, opened.fingerprint) == (
        ("a", "b"),
        ("p", "q", "r"),
        0.5,
        "f1",
    )
    assert (opened.n_classes, opened.input_shape, len(opened)) == (2, (2,), 6)


def test_optional_columns_may_be_absent(tmp_path):
    bare = SourceData(np.zeros((2, 1), np.float32), np.array([0, 1]), ("a", "b"))
    opened = Store.build(bare, tmp_path / "s", "")
    assert (opened.sites, opened.patients, opened.official_test) == (None, None, None)


def test_many_builders_at_once_leave_one_whole_store_and_nothing_else(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: Store.build(source(), tmp_path / "s", "f"), range(16)))
    assert all(np.array_equal(s.x, source().x) for s in stores)
    assert os.listdir(tmp_path) == ["s"]


def test_a_builder_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(module.np, "save", full)
    with pytest.raises(OSError, match="No space"):
        Store.build(source(), tmp_path / "s", "f")
    assert os.listdir(tmp_path) == []


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("file", ["x.npy", "y.npy", "patients.npy", "meta.json"])
@pytest.mark.parametrize("damage", [os.remove, truncate, lambda p: p.write_bytes(b"")])
def test_a_damaged_store_is_refused_by_path(tmp_path, file, damage):
    Store.build(source(), tmp_path / "s", "f")
    damage(tmp_path / "s" / file)
    with pytest.raises(DataError, match=str(tmp_path / "s")) as caught:
        Store.open(tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path):
    Store.build(source(), tmp_path / "s", "f")
    np.save(tmp_path / "s" / "y.npy", np.zeros(5, np.int64))
    with pytest.raises(DataError, match="do not match"):
        Store.open(tmp_path / "s")


def test_a_missing_store_is_refused_by_path(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        Store.open(tmp_path / "nowhere")


def test_open_source_loads_once_and_again_when_the_fingerprint_changes(toys):
    loads = []

    @register("source", "counted")
    class Counted:
        version = "1"

        def __init__(self, rows: int = 4) -> None:
            self.rows = rows

        def fingerprint(self):
            return self.version

        def load(self):
            loads.append(self.rows)
            return source(self.rows)

    first = open_source({"name": "counted", "rows": 4})
    assert open_source({"name": "counted", "rows": 4}).path == first.path
    assert loads == [4]
    assert len(open_source({"name": "counted", "rows": 6})) == 6
    Counted.version = "2"
    assert open_source({"name": "counted", "rows": 4}).path != first.path
    assert loads == [4, 6, 4]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"name": "digit"}, "Did you mean 'digits'"),
        ({"rows": 3}, "needs a name"),
        ({"name": "synthetic_table", "row": 3}, "Did you mean 'rows'"),
    ],
)
def test_a_wrong_source_is_refused(config, says):
    with pytest.raises(ConfigError, match=says):
        open_source(config)
