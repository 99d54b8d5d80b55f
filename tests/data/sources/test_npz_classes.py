"""Classes of an .npz are the labels found: the same rows under other ids are the same classes under other names."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedimb.data.inputs import Inputs
from fedimb.data.new_rows import UNKNOWN, Expected
from fedimb.data.prepare import prepare
from fedimb.data.problems import Problems
from fedimb.data.sources.embeddings_npz import EmbeddingsNpz
from fedimb.data.sources.npz import Npz
from fedimb.errors import ConfigError, DataError

Y = np.array([0, 1, 2, 2, 1, 0, 0, 0])
SOURCES = [Npz, EmbeddingsNpz]


@pytest.fixture
def read(tmp_path):
    def read(y, source=Npz, more=None, **settings):
        held = {"x": np.arange(2.0 * len(y), dtype=np.float32).reshape(-1, 2) + 1, "y": np.asarray(y)} | (more or {})
        np.savez(tmp_path / "d.npz", **held)
        return source(str(tmp_path / "d.npz"), **settings).load()

    return read


def without_marks(ids):
    return not {-1, -100, 255, 65535} & set(ids)


@given(
    ids=st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3, unique=True).map(sorted).filter(without_marks)
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("source", SOURCES)
def test_ids_are_names_and_nothing_else(read, source, ids):
    data = read(np.array(ids)[Y], source)
    assert (data.y.tolist(), data.class_names) == (Y.tolist(), tuple(map(str, ids)))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("y", "settings", "names", "ids"),
    [
        (Y + 1, {}, ("1", "2", "3"), Y),
        (Y * 3, {"class_names": ["a", "b", "c"]}, ("a", "b", "c"), Y),  # 3, 6 are no positions: in order
        (Y + 1, {"class_names": ["a", "b", "c"]}, ("a", "b", "c"), Y),
        (Y + 1, {"class_names": ["1", "2", "3", "4"]}, ("1", "2", "3", "4"), Y),  # a site without class 4
        (Y, {"class_names": ["a", "b", "c", "d"]}, ("a", "b", "c", "d"), Y),
        (Y + 1, {"class_names": {1: "a", 2: "b", 3: "c", 9: "d"}}, ("a", "b", "c", "d"), Y),
        (
            np.where(Y == 2, -1, Y),
            {"class_names": {-1: "x", 0: "a", 1: "b"}},
            ("x", "a", "b"),
            [1, 2, 0, 0, 2, 1, 1, 1],
        ),
        (Y, {"label_map": {0: "well", 1: "ill", 2: "ill"}}, ("well", "ill"), np.minimum(Y, 1)),
        (Y, {"label_map": {0: "b", 1: "a", 2: "a"}, "class_names": ["a", "b"]}, ("a", "b"), [1, 0, 0, 0, 0, 1, 1, 1]),
        (np.where(Y, 1.0, -1.0), {}, ("-1", "1"), np.minimum(Y, 1)),
        (np.array(["no", "yes", "?"])[Y], {"ignore_label": "?"}, ("no", "yes"), [0, 1, 1, 0, 0, 0]),
        (np.where(Y == 2, 255, Y), {"ignore_label": 255}, ("0", "1"), [0, 1, 1, 0, 0, 0]),
        (np.where(Y == 2, 255, Y), {"ignore_label": [255, 1]}, ("0",), [0, 0, 0, 0]),
        (np.eye(4)[Y], {"labels": "onehot"}, ("0", "1", "2", "3"), Y),  # a column is a class, with rows or not
        (np.eye(3, dtype=bool)[Y], {"labels": "onehot", "class_names": ["a", "b", "c"]}, ("a", "b", "c"), Y),
    ],
)
def test_what_labels_mean(read, source, y, settings, names, ids):
    data = read(y, source, **settings)
    assert (data.class_names, data.y.tolist(), data.task) == (names, list(ids), "multiclass")


def test_ignored_rows_are_left_out_of_every_column_and_named(read):
    more = {"sites": np.array(list("abababab")), "patients": np.arange(8), "test": np.arange(8) > 5}
    data = read(np.where(Y == 2, 255, Y), ignore_label=255, more=more)
    assert data.patients.tolist() == [0, 1, 4, 5, 6, 7]
    assert data.sites.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.official_test.tolist() == [False] * 4 + [True] * 2
    assert [line.rpartition("d.npz ")[2] for line in data.skipped] == [
        f"y[{i}]: its label is ignore_label" for i in (2, 3)
    ]


def test_names_of_arrays_and_of_classes_and_sites_in_the_file(read):
    more = {"class_names": np.array(["a", "b", "c"]), "hospital": Y + 7, "site_names": np.array(["x", "y", "z"])}
    data = read(Y, more=more, arrays={"sites": "hospital"})
    assert (data.class_names, data.site_names, data.sites.tolist()) == (("a", "b", "c"), ("x", "y", "z"), Y.tolist())
    assert read(Y, more=more, class_names=["d", "e", "f"], arrays={"site_names": None}).class_names == ("d", "e", "f")
    with pytest.raises(DataError, match="site_names but no sites"):
        read(Y, more=more)


def test_parts_share_their_classes_sites_and_patients(tmp_path):
    parts = {"train": ([1, 2], ["n", "s"], [5, 6]), "test": ([4, 2], ["w", "n"], [7, 5])}
    held = {}
    for part, (y, sites, patients) in parts.items():
        held |= {f"{part}_images": np.zeros((2, 3, 3), np.uint8), f"{part}_labels": np.array(y)[:, None]}
        held |= {f"{part}_sites": np.array(sites), f"{part}_patients": np.array(patients)}
    np.savez(tmp_path / "m.npz", **held)
    data = Npz(str(tmp_path / "m.npz")).load()
    assert (data.class_names, data.y.tolist()) == (("1", "2", "4"), [0, 1, 2, 1])
    assert (data.site_names, data.sites.tolist()) == (("n", "s", "w"), [0, 1, 2, 0])
    assert data.patients.tolist() == [0, 1, 2, 0]
    del held["test_patients"]
    np.savez(tmp_path / "m.npz", **held)
    with pytest.raises(DataError, match="has patients for some parts and not for others"):
        Npz(str(tmp_path / "m.npz")).load()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"class_names": ["a", "a"]}, "give each once"),
        ({"class_names": {1: "a", "1.0": "b"}}, "give each once"),
        ({"class_names": {1: "a", 2: "a"}}, "a name twice; merge classes with label_map"),
        ({"class_names": {1: "a"}, "label_map": {1: "a"}}, "give only one of them"),
        ({"label_map": {}}, "at least one"),
        ({"label_map": {-1: "a"}, "ignore_label": "-1.0"}, "ignore_label=-1 is also named as a class"),
        ({"labels": "several", "ignore_label": 0}, "labels=several takes class_names as a list"),
    ],
)
@pytest.mark.parametrize("source", SOURCES)
def test_settings_that_contradict_each_other(source, settings, says):
    with pytest.raises(ConfigError, match=says):
        source("d.npz", **settings)


def test_the_minority_is_the_same_under_other_ids(tmp_path):
    y = np.repeat(np.arange(5), [40, 30, 20, 6, 4])
    lines = []
    for name, labels in {"zero": y, "one": y + 1, "gap": y * 7}.items():
        np.savez(tmp_path / f"{name}.npz", x=np.random.default_rng(0).normal(size=(100, 3)), y=labels)
        group = {
            "source": {"name": "npz", "path": str(tmp_path / f"{name}.npz")},
            "test": {"name": "stratified", "fraction": 0.2},
        }
        one = prepare(group, {"name": "iid"}, 2, 0)
        lines.append((one.minority, one.counts.tolist(), [rows.tolist() for rows in one.train]))
        assert one.minority_rows == {str(labels[y == c][0]): n for c, n in ((3, 5), (4, 3))}
    assert lines[0] == lines[1] == lines[2]


def new_labels(tmp_path, y, names, label_names=None, **settings):
    np.savez(tmp_path / "new.npz", x=np.ones((len(y), 2), np.float32), y=np.asarray(y))
    expected = Expected(Inputs((2,), "float32", label_names=label_names), names, "multiclass")
    problems = Problems("refuse")
    found = [batch.labels for batch in Npz(str(tmp_path / "new.npz"), **settings).new_rows(expected, problems)]
    problems.settle(len(y))
    return np.concatenate(found).tolist()


def test_labels_of_new_rows_mean_what_they_meant_in_training(tmp_path, read):
    trained = read(Y + 1, class_names=["a", "b", "c"])
    assert trained.label_names == {"1": "a", "2": "b", "3": "c"}
    names = trained.class_names
    assert new_labels(tmp_path, [1, 2, 2], names, trained.label_names) == [0, 1, 1]
    assert new_labels(tmp_path, [3.0, 1.0], names, trained.label_names) == [2, 0]
    assert new_labels(tmp_path, [0, 2, 2], names) == [0, 2, 2]  # a run of 0.1: positions
    assert new_labels(tmp_path, [7, 8, 8], names, label_map={7: "c", 8: "a"}) == [2, 0, 0]
    assert new_labels(tmp_path, [1, 255], names, trained.label_names, ignore_label=255) == [0, UNKNOWN]
    assert new_labels(tmp_path, np.eye(3)[[2, 0]], names, labels="onehot") == [2, 0]
    assert read(Y + 1).label_names == {"1": "1", "2": "2", "3": "3"}
    assert read(Y).label_names is None
    with pytest.raises(DataError, match=r"label 4 is not a label of the run \(1, 2, 3\)"):
        new_labels(tmp_path, [4], names, trained.label_names)
    with pytest.raises(DataError, match="holds 1, 2, which may be names of classes or their numbers from 0"):
        new_labels(tmp_path, [1, 2], ("1", "2", "3"))
    assert new_labels(tmp_path, [1, 3], ("1", "2", "3")) == [0, 2]
