"""Findings are kept with the store, belong to no hash, and are found again for stores of earlier releases."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from fedimb.config.compose import compose
from fedimb.config.load import config_sha
from fedimb.config.validate import validate
from fedimb.data.arrays import SourceData
from fedimb.data.findings.finding import Finding
from fedimb.data.findings.look import look_at
from fedimb.data.findings.stage import unresolved
from fedimb.data.prepare import prepare_unsettled
from fedimb.data.store import Store, open_source, open_store
from fedimb.registry import register

LOADED = []


def source(name: str) -> dict[str, object]:
    class Kept:
        def fingerprint(self) -> str:
            return name

        def load(self) -> SourceData:
            LOADED.append(name)
            x = np.random.default_rng(0).random((40, 2)).astype(np.float32)
            x[7] = x[3]
            return SourceData(x, np.arange(40) % 2, ("Yes", "yes"), findings=(Finding("missing_marks", "column", "x"),))

    register("source", name)(Kept)
    return {"name": name}


def names(store: Store) -> list[str]:
    assert store.findings is not None
    return [one.name for one in store.findings]


FOUND = ["missing_marks", "look_alike_names", "repeated_rows"]


def test_findings_are_kept_and_change_no_hash(toys):
    store = open_source(source("looks_kept"))
    assert names(store) == FOUND
    assert store.groups is not None
    assert (np.flatnonzero(store.groups != np.arange(40)).tolist(), int(store.groups[7])) == ([7], 3)
    sha = store.content_sha
    open_store.cache_clear()
    again = open_source(source("looks_kept"))
    assert (names(again), again.content_sha, LOADED.count("looks_kept")) == (FOUND, sha, 1)


@pytest.mark.parametrize("left", ["nothing", "other rules", "damage", "an unknown finding"])
def test_a_store_of_an_earlier_release_is_looked_at_again(toys, left):
    name = f"looks_old_{left.replace(' ', '_')}"
    store = open_source(source(name))
    sha, file = store.content_sha, store.path / "findings.json"
    kept = json.loads(file.read_text())
    text = {
        "other rules": json.dumps({**kept, "rules": 0}),
        "damage": "{",
        "an unknown finding": json.dumps({**kept, "findings": [["no_such", "a", "b"]]}),
    }
    (store.path / "groups.npy").unlink()
    file.write_text(text[left]) if left in text else file.unlink()
    open_store.cache_clear()
    assert Store.open(store.path).findings is None
    again = open_source(source(name))
    assert (names(again), again.content_sha, LOADED.count(name)) == (FOUND, sha, 2)
    assert json.loads(file.read_text()) == kept
    open_store.cache_clear()
    assert names(open_source(source(name))) == FOUND
    assert LOADED.count(name) == 2


def test_accept_and_defaults_of_later_settings_keep_a_configurations_hash():
    plain = validate(compose([]))
    assert config_sha(validate(compose(["data.accept=[sentinels]"]))) == config_sha(plain)
    table = ["data=tabular_csv", "data.source.files=[t.csv]"]
    later = validate(compose(table))
    before = later.model_copy(deep=True)
    for key in ("missing", "decimal", "thousands"):
        del before.data["source"][key]
    del before.data["accept"]
    assert config_sha(before) == config_sha(later)
    assert config_sha(validate(compose([*table, "data.source.decimal=','"]))) != config_sha(later)


def test_accepted_findings_belong_to_the_files_of_their_yaml(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    text = "source: {name: npz, path: a.npz}\ntest: {name: official}\naccept: [id_column]\n"
    (folder / "mine.yaml").write_text(text)
    assert compose(["data=mine"], [tmp_path])["data"]["accept"] == ["id_column"]
    assert compose(["data=mine", "data.source.path=b.npz"], [tmp_path])["data"]["accept"] == []
    words = ["data=mine", "data.source.path=b.npz", "data.accept=[sentinels]"]
    assert compose(words, [tmp_path])["data"]["accept"] == ["sentinels"]


BUNDLED = ("digits", "digits_devices", "synthetic_table")
SHARED = Path("/work/shared/data")


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_data_run_without_accepting_anything(name):
    config = compose([f"data={name}"])
    found = prepare_unsettled(config["data"], config["partition"], 4, 0)[1]
    assert [one.line for one in found] == []


@pytest.mark.parametrize("load", ["load_iris", "load_wine", "load_breast_cancer", "load_digits", "load_diabetes"])
def test_well_known_tables_are_not_asked_about(load):
    import sklearn.datasets

    data = getattr(sklearn.datasets, load)()
    y = data.target.astype(np.int64) if load != "load_diabetes" else (data.target > 140).astype(np.int64)
    classes = tuple(map(str, range(int(y.max()) + 1)))
    found, _ = look_at(SourceData(data.data.astype(np.float32), y, classes))
    assert unresolved(found, []) == []


def test_looking_takes_little_time():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 1000, (150_000, 41)).astype(np.float32)
    data = SourceData(x, rng.integers(0, 5, len(x)), tuple("abcde"), scaled=np.ones(41, np.bool_))
    start = time.process_time()
    look_at(data)
    assert time.process_time() - start < 2
