"""Several labels per row, from every source that can have them: good rows, and bad ones named or left out."""

import numpy as np
import pytest
from tiny_images import two_classes

from fedimb.data.sources.embeddings_npz import EmbeddingsNpz
from fedimb.data.sources.huggingface_labels import is_list, of_one, several_labels
from fedimb.data.sources.image_csv import ImageCsv
from fedimb.data.sources.npz import Npz
from fedimb.data.sources.tabular_csv import TabularCsv
from fedimb.errors import ConfigError, DataError

LIST = "path,label\ncat/0.png,mass|nodule\ncat/1.png,No Finding\ndog/0.png,nodule\n"
TABLE = "age,mass,nodule,site\n50,1,1,p\n60,0,0.0,q\n70,1,0,q\n"


def test_chestmnist_layout(tmp_path):
    rng = np.random.default_rng(0)
    parts = {"train": 5, "val": 2, "test": 4}
    arrays = {f"{part}_images": rng.integers(0, 256, (n, 4, 4), dtype=np.uint8) for part, n in parts.items()}
    arrays |= {f"{part}_labels": rng.integers(0, 2, (n, 14), dtype=np.uint8) for part, n in parts.items()}
    arrays["test_labels"][1] = 0
    np.savez(tmp_path / "chest.npz", **arrays)
    data = Npz(str(tmp_path / "chest.npz")).load()
    table = np.concatenate([arrays[f"{part}_labels"] for part in parts])
    assert (data.task, data.class_names) == ("multilabel", (*map(str, range(14)), "none"))
    assert np.array_equal(data.targets[:, :14], table)
    assert np.flatnonzero(data.targets[:, 14]).tolist() == np.flatnonzero(~table.any(axis=1)).tolist()
    assert data.official_test.tolist() == [False] * 7 + [True] * 4
    named = [f"finding {c}" for c in range(13)] + ["No Finding"]
    arrays |= {f"{part}_labels": np.eye(14, dtype=np.uint8)[:n] for part, n in parts.items()}
    np.savez(tmp_path / "chest.npz", **arrays)
    assert Npz(str(tmp_path / "chest.npz"), class_names=named, labels="several").load().class_names == tuple(named)


def test_embeddings_with_class_names_in_the_file(tmp_path):
    arrays = {
        "x": np.ones((3, 2), np.float32),
        "y": np.array([[1, 1], [0, 0], [0, 1]]),
        "patients": np.array([3, 3, 4]),
    }
    np.savez(tmp_path / "e.npz", **arrays, class_names=np.array(["mass", "none"]))
    with pytest.raises(DataError, match=r"y\[0\]: label 'none' stands beside 'mass'"):
        EmbeddingsNpz(str(tmp_path / "e.npz")).load()
    data = EmbeddingsNpz(str(tmp_path / "e.npz"), on_bad="skip").load()
    assert (data.targets.tolist(), data.class_names) == ([[0, 1], [0, 1]], ("mass", "none"))
    assert data.patients.tolist() == [0, 1]


@pytest.fixture
def listed(tmp_path):
    def make(text, **args):
        (two_classes(tmp_path) / "list.csv").write_text(text, encoding="utf-8")
        return ImageCsv(str(tmp_path / "list.csv"), **{"label_separator": "|"} | args)

    return make


def test_a_list_of_images(listed):
    data = listed(LIST).load()
    assert (data.task, data.class_names) == ("multilabel", ("No Finding", "mass", "nodule"))
    assert data.targets.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 1]]
    assert data.y.tolist() == [1, 0, 2]
    by_id = listed(LIST.replace("mass|nodule", "0 | 2"), classes=("mass", "No Finding", "nodule")).load()
    assert by_id.targets.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    single = listed("path,label\ncat/0.png,a\ndog/0.png,b\n").load()
    assert single.targets.tolist() == [[1, 0], [0, 1]]  # the setting decides, not what the rows happen to have


def test_the_separator_is_part_of_the_fingerprint(listed):
    text = LIST.replace("mass|nodule", "mass")
    assert listed(text).fingerprint() != listed(text, label_separator=None).fingerprint()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("dog/1.png,mass|", "row 5: one of the labels 'mass|' is empty"),
        ("dog/1.png,mass|mass", "row 5: label 'mass' is named twice"),
        ("dog/1.png,nodule|No Finding", "row 5: label 'No Finding' stands beside 'nodule'"),
        ("dog/1.png,mass|gland", "row 5: label 'gland' is not in classes"),
        ("dog/1.png,", "row 5: the label of 'dog/1.png' is empty"),
        ("cat/0.png,nodule|mass", "row 5: 'cat/0.png' is already listed"),
    ],
)
def test_a_bad_row_of_a_list_is_named_or_left_out(listed, row, says):
    args = {"classes": ("mass", "nodule", "No Finding")}
    with pytest.raises(DataError, match=r"^1 bad row: ") as caught:
        listed(LIST + row + "\n", **args).load()
    assert says in str(caught.value)
    data = listed(LIST + row + "\n", **args, on_bad="skip").load()
    assert (len(data.x), len(data.skipped)) == (3, 1)


def test_one_image_with_other_labels_and_a_useless_separator_are_refused(listed):
    with pytest.raises(DataError, match=r"'cat/0\.png' is 'mass\|nodule' here and 'mass' in"):
        listed(LIST + "cat/0.png,mass\n").load()
    for separator in ("", " ", ","):
        with pytest.raises(ConfigError, match="label_separator"):
            listed(LIST, label_separator=separator)


@pytest.fixture
def table(tmp_path):
    def make(text, **args):
        (tmp_path / "t.csv").write_text(text, encoding="utf-8")
        return TabularCsv(str(tmp_path / "t.csv"), **{"target": ["mass", "nodule"]} | args)

    return make


def test_columns_of_a_table(table):
    source = table(TABLE, site_column="site")
    data = source.load()
    assert (data.task, data.class_names) == ("multilabel", ("mass", "nodule", "none"))
    assert data.targets.tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert data.y.tolist() == [1, 2, 0]
    assert (source.feature_names, data.site_names) == (("age",), ("p", "q"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("80,2,0,p", "row 5: target 'mass' is '2', neither 0 nor 1"),
        ("80,1,yes,p", "row 5: target 'nodule' is 'yes', neither 0 nor 1"),
        ("80,1,,p", "row 5: target 'nodule' is missing"),
    ],
)
def test_a_bad_row_of_a_table_is_named_or_left_out(table, row, says):
    with pytest.raises(DataError, match=r"^1 bad row: ") as caught:
        table(TABLE + row + "\n", drop=["site"]).load()
    assert says in str(caught.value)
    assert len(table(TABLE + row + "\n", drop=["site"], on_bad="skip").load().x) == 3


@pytest.mark.parametrize(
    "args", [{"target": ["mass"]}, {"target": ["mass", "mass"]}, {"classes": ["a", "b"]}, {"thresholds": [1.0]}]
)
def test_rules_that_columns_of_labels_have_no_use_for_are_refused(table, args):
    with pytest.raises(ConfigError, match="column"):
        table(TABLE, **args)
    with pytest.raises(DataError, match="target names 'node', which is not a column"):
        table(TABLE, target=["mass", "node"]).load()


class Feature:
    """Stands in for a feature of the datasets package, which takes seconds to import."""

    def __init__(self, **attributes):
        self.__dict__ |= attributes


def test_lists_of_a_hugging_face_column():
    names = ["mass", "nodule", "none"]
    inner = Feature(names=names)
    assert is_list(Feature(feature=inner))
    assert is_list([inner])
    assert not is_list(inner)
    assert of_one(Feature(feature=inner)) is of_one([inner]) is of_one(inner) is inner
    assert several_labels([1, 0], names) == ("nodule", "mass")
    assert several_labels([], names) == ()
    assert several_labels(["b", "a"], None) == ("b", "a")
    for bad, says in (
        (None, "the labels are missing"),
        ([0, None], "the label is missing"),
        ([3], "label 3 is not one of the 3 classes"),
        ([0, 0], "named twice"),
        ([0, 2], "'none' stands beside 'mass'"),
        ([[0]], "a label is not a class"),
    ):
        with pytest.raises(DataError, match=says):
            several_labels(bad, names)


@pytest.mark.slow
def test_a_hugging_face_data_set(tmp_path):
    import datasets

    from fedimb.data.sources.huggingface import HuggingFace

    for kind, column in (("ids", [[0, 1], [], [1]]), ("text", [["mass", "nodule"], [], ["nodule"]])):
        data = datasets.Dataset.from_dict({"a": [1.0, 2.0, 3.0], "label": column})
        if kind == "ids":
            data = data.cast_column("label", datasets.Sequence(datasets.ClassLabel(names=["mass", "nodule"])))
        data.save_to_disk(tmp_path / kind)
        loaded = HuggingFace(str(tmp_path / kind), image=None, features=["a"]).load()
        assert (loaded.task, loaded.class_names) == ("multilabel", ("mass", "nodule", "none"))
        assert loaded.targets.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
