"""Registered data: a version is one fixed list of records, and any change in the files is named by file and row."""

import json
import os
import stat
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_images import image

from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data.commitment import verify_proof
from fedimb.deploy.registered_data.data_version import differences
from fedimb.deploy.registered_data.datasets import data_sets, find_data_set, open_data_set, register_data
from fedimb.errors import ConfigError, DataError

CONFIGS = Path(__file__).parents[3] / "configs" / "data"
ROWS = ["p1,50,a,ill", "p1,51,b,ill", "p2,60,a,well", "Müller,61,b,well", "p4,61,b,well"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "Köpfe 2026.csv"
    write(path, ROWS)
    return path


def write(path: Path, rows: list[str]) -> None:
    path.write_text("\n".join(["who,age,kind,label", *rows]) + "\n", encoding="utf-8")


def add(home, path, name="heads", **args):
    words = ["target=label", "categorical=[kind]"]
    return register_data(home, str(path), name, ["heads", "ct"], patient_column="who", settings=words, **args)


def later(path: Path) -> None:
    """A second's difference in time, whatever the clock's resolution."""
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 10**9))


def test_what_is_registered(home, table):
    facts = add(home, table).facts
    assert facts["rows"] == 5
    assert facts["class_counts"] == {"ill": 2, "well": 3}
    assert facts["patients"] == 4
    assert facts["patients_per_class"] == {"ill": 1, "well": 3}
    assert facts["schema"]["columns"] == ["age", "kind=a", "kind=b"]
    assert facts["quality"] == {"unreadable": 0, "duplicates": 1, "missing": {}}


def test_missing_and_unreadable_are_counted(home, table):
    write(table, ["p1,,a,ill", "p2,60,,well", "p3,?,b,well", "p4,old,b,well"])
    with pytest.raises(DataError, match=r"Köpfe 2026\.csv row 5: column 'age': 'old'"):
        add(home, table)
    words = ["target=label", "categorical=[kind]", "on_bad=skip"]
    version = register_data(home, str(table), "heads", ["heads"], patient_column="who", settings=words)
    assert version.facts["quality"] == {"unreadable": 1, "duplicates": 0, "missing": {"age": 2, "kind": 1}}
    assert [place.rpartition("/")[2] for place, _ in version.records] == [f"Köpfe 2026.csv row {n}" for n in (2, 3, 4)]
    version.verify(full=True)


def test_the_same_records_are_the_same_version_elsewhere_another(home, table, tmp_path):
    first = add(home, table)
    later(table)
    assert add(home, table).version == first.version
    other = tmp_path / "other"
    other.mkdir()
    (other / "node.yaml").write_text("site: st-anna\n")
    # Another secret, so nobody can tell by the hash that two sites hold the same records.
    assert add(NodeHome.open(other), table).version != first.version
    write(table, [*ROWS, "p9,70,a,ill"])
    newer = add(home, table)
    assert newer.version != first.version
    assert newer.about["previous"] == first.version[:16]
    assert [one.version for one in data_sets(home)] == [newer.version]
    assert open_data_set(home, "heads", first.version).facts == first.facts
    with pytest.raises(ConfigError, match="no version aaaaaaaaaaaa"):
        open_data_set(home, "heads", "a" * 64)


def test_found_by_tags(home, table):
    with pytest.raises(ConfigError, match="none is registered"):
        find_data_set(home, ["heads"])
    heads = add(home, table)
    add(home, table, name="again")
    with pytest.raises(ConfigError, match="2 data sets have the tags heads"):
        find_data_set(home, ["heads"])
    register_data(home, str(table), "again", ["other"], settings=["target=label", "categorical=[kind, who]"])
    assert find_data_set(home, ["ct", "heads"]).version == heads.version
    with pytest.raises(ConfigError, match="no data set has the tags ct, other"):
        find_data_set(home, ["ct", "other"])
    with pytest.raises(ConfigError, match="Did you mean 'heads'"):
        open_data_set(home, "heds")


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-x", "a" * 65])
def test_names_that_cannot_be(home, table, name):
    with pytest.raises(ConfigError, match="data set name"):
        add(home, table, name=name)
    with pytest.raises(ConfigError, match="tags"):
        register_data(home, str(table), "x", [name], settings=["target=label"])


def test_nothing_kept_names_a_patient_or_can_be_read_by_others(home, table):
    add(home, table)
    assert stat.S_IMODE(home.file("data").stat().st_mode) == 0o700
    files = [path for path in home.file("data").rglob("*") if path.is_file()]
    assert len(files) == 5
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert "Müller" not in path.read_text(encoding="utf-8")


def test_an_unchanged_file_passes_also_when_only_touched(home, table):
    version = add(home, table)
    version.verify(full=False)
    later(table)
    version.verify(full=False)  # read again: nothing changed
    now = json.loads((version.folder / "files.json").read_text())
    assert now[0]["mtime_ns"] == table.stat().st_mtime_ns


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([*ROWS[:2], "p2,63,a,well", *ROWS[3:]], r"Köpfe 2026.csv row 4 changed;"),
        ([*ROWS[:2], "p2,60,a,ill", *ROWS[3:]], r"row 4 changed;"),  # the label alone
        ([*ROWS[:2], "p3,60,a,well", *ROWS[3:]], r"row 4 changed;"),  # whose it is alone
        ([*ROWS[:1], *ROWS[2:]], r": .*Köpfe 2026.csv row 3 is gone;"),
        ([ROWS[0], "p0,1,a,ill", *ROWS[1:]], r": .*Köpfe 2026.csv row 3 is new;"),
        ([ROWS[1], ROWS[0], *ROWS[2:]], r"in a different order from .* row 2 on;"),
        (["p1,50,a,ill"], "and 3 more|row 6 is gone"),
    ],
)
def test_a_changed_record_is_named(home, table, rows, says):
    version = add(home, table)
    version.open_store()
    write(table, rows)
    later(table)
    for full in (False, True):
        with pytest.raises(DataError, match=says) as caught:
            version.verify(full)
        assert "fedimb node data add" in str(caught.value)


def test_a_change_without_a_trace_is_found_by_the_full_check(home, table):
    version = add(home, table)
    before = table.stat()
    write(table, [ROWS[0].replace("50", "58"), *ROWS[1:]])
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    version.verify(full=False)
    with pytest.raises(DataError, match="row 2 changed"):
        version.verify(full=True)


def test_a_missing_file(home, table):
    version = add(home, table)
    table.unlink()
    for full in (False, True):
        with pytest.raises(DataError, match=r"'heads' can no longer be read: .*Köpfe 2026\.csv"):
            version.verify(full)


def test_of_equal_records_the_one_that_is_new_is_named():
    twice = [("a row 1", "x"), ("a row 2", "y")]
    assert list(differences(twice, [*twice, ("a row 3", "x")])) == ["a row 3 is new"]
    assert list(differences([*twice, ("a row 3", "x")], twice)) == ["a row 3 is gone"]
    assert list(differences(twice, twice)) == []


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_nothing_is_said_only_of_the_same_list(before, now):
    registered, found = ([(f"row {i}", str(mark)) for i, mark in enumerate(marks)] for marks in (before, now))
    lines = list(differences(registered, found))
    assert (lines == []) == (before == now)
    gone, new = Counter(before) - Counter(now), Counter(now) - Counter(before)
    changed = sum(line.endswith("changed") for line in lines)
    assert sum(line.endswith("is gone") for line in lines) == gone.total() - changed
    assert sum(line.endswith("is new") for line in lines) == new.total() - changed


def test_the_store_is_of_the_registered_records(home, table):
    version = add(home, table)
    store = version.open_store()
    assert store.y.tolist() == [0, 0, 1, 1, 1]
    assert store.site_names == ("st-anna",)
    assert store.fingerprint == version.version
    assert len(np.unique(store.patients)) == 4
    assert store.path.is_relative_to(home.root)
    np.save(store.path / "y.npy", 1 - np.asarray(store.y))  # a cache that somebody wrote to
    version.verify(full=True)
    assert version.open_store().y.tolist() == [0, 0, 1, 1, 1]


def test_images_are_named_by_file(home, tmp_path):
    for name, shade in (("cat/p1.png", 10), ("cat/p2.png", 20), ("dog/p3.png", 30)):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(image(shade))
    words = ["patient=(?P<patient>p\\d)"]
    version = register_data(home, str(tmp_path / "pets"), "pets", ["pets"], settings=words)
    assert version.facts["patients"] == 3
    assert verify_proof(version.prove("dog/p3.png", True))["patient"] == "p3"
    (tmp_path / "pets" / "cat" / "p2.png").write_bytes(image(21))
    with pytest.raises(DataError, match=r"pets/cat/p2\.png changed"):
        version.verify(full=False)
    (tmp_path / "pets" / "cat" / "p2.png").write_bytes(image(20))
    version.verify(full=False)
    (tmp_path / "pets" / "dog" / "p4.png").write_bytes(image(0))
    with pytest.raises(DataError, match=r"pets/dog/p4\.png is new"):
        version.verify(full=False)
