import numpy as np
import pytest

from fedimb.data.inputs import Inputs
from fedimb.data.new_rows import Expected
from fedimb.data.problems import Problems
from fedimb.data.sources.embeddings_npz import EmbeddingsNpz
from fedimb.data.store import Store
from fedimb.errors import DataError

X = np.array([[3, 4], [0, 2], [1e30, 0], [-1, 0]])


@pytest.fixture
def read(tmp_path):
    def read(args, **arrays):
        np.savez(tmp_path / "e.npz", **{"x": X, "y": [0, 1, 1, 0]} | arrays)
        return EmbeddingsNpz(str(tmp_path / "e.npz"), **args).load()

    return read


def test_rows_and_ids_alone(read):
    data = read({})
    assert data.x.dtype == np.float32
    assert np.array_equal(data.x, X.astype(np.float32))
    assert (data.y.tolist(), data.class_names, data.scale) == ([0, 1, 1, 0], ("0", "1"), 1.0)
    assert data.sites is data.patients is data.official_test is data.scaled is None


def test_rows_of_unit_length(read):
    data = read({"l2_normalise": True})
    assert data.x.dtype == np.float32
    assert np.allclose(data.x, [[0.6, 0.8], [0, 1], [1, 0], [-1, 0]])


def test_what_the_file_says_of_its_rows(read):
    data = read(
        {},
        y=np.array(["no", "yes", "yes", "no"]),
        class_names=np.array(["yes", "no", "maybe"]),
        sites=np.array([1, 0, 1, 1]),
        site_names=np.array(["north", "south"]),
        patients=np.array(["p2", "p1", "p2", "p3"]),
        test=np.array([True, False, False, False]),
    )
    assert (data.class_names, data.y.tolist()) == (("yes", "no", "maybe"), [1, 0, 0, 1])
    assert (data.site_names, data.sites.tolist()) == (("north", "south"), [1, 0, 1, 1])
    assert data.patients.tolist() == [1, 0, 1, 2]
    assert data.official_test.tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("sites", "args", "ids", "names"),
    [
        (np.array([12, 7, 12, 7]), {}, [1, 0, 1, 0], ("7", "12")),
        (np.array(["b", "a", "b", "b"]), {}, [1, 0, 1, 1], ("a", "b")),
        (np.array(["b", "a", "b", "b"]), {"site_names": ["b", "c", "a"]}, [0, 2, 0, 0], ("b", "c", "a")),
    ],
)
def test_sites_by_number_or_name(read, sites, args, ids, names):
    data = read(args, sites=sites)
    assert (data.sites.tolist(), data.site_names) == (ids, names)


def test_a_row_left_out_is_left_out_of_every_column(read):
    data = read({"on_bad": "skip"}, y=[0, -1, 1, 0], sites=[[3], [4], [5], [5]], patients=[8, 9, 8, 7])
    assert data.x[1].tolist() == np.float32([1e30, 0]).tolist()
    assert (data.sites.tolist(), data.site_names, data.patients.tolist()) == ([0, 1, 1], ("3", "5"), [1, 1, 0])


def test_what_made_the_embeddings_is_kept_and_compared(tmp_path):
    x, y = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "one.npz", x=x, y=y, encoder="bert r1")
    data = EmbeddingsNpz(path=str(tmp_path / "one.npz")).load()
    stored = Store.build(data, tmp_path / "store", "fp")
    assert (data.encoder, stored.encoder) == ("bert r1", "bert r1")
    inputs = Inputs((4,), "float32", encoder=stored.encoder)
    assert Inputs.from_facts(inputs.facts()) == inputs
    assert "encoder" not in Inputs((4,), "float32").facts()

    def read(**arrays):
        np.savez(tmp_path / "new.npz", x=x, **arrays)
        expected = Expected(inputs, ("0", "1"), "multiclass")
        list(EmbeddingsNpz(path=str(tmp_path / "new.npz")).new_rows(expected, Problems()))
        return expected.notes

    assert read(encoder="bert r1") == []
    with pytest.raises(DataError, match=r"new.npz was embedded by 'bert r2', the run was trained on rows of 'bert r1'"):
        read(encoder="bert r2")
    assert "only the run's rows say what embedded them (bert r1)" in read()[0]


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (np.array(["a", "a", "b", "a"]), "row 0 was embedded by 'a', row 2 by 'b'"),
        (np.array(7), "give a text"),
        (np.array(" "), "give a text"),
        (np.array([["a"] * 4]), "give a text"),
    ],
)
def test_rows_of_two_encoders_are_refused(tmp_path, encoder, message):
    np.savez(tmp_path / "e.npz", x=np.eye(4, dtype=np.float32), y=np.array([0, 1, 0, 1]), encoder=encoder)
    with pytest.raises(DataError, match=message):
        EmbeddingsNpz(path=str(tmp_path / "e.npz")).load()
