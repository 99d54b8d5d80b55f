"""LEAF's JSON: users are sites or patients, and what is not LEAF's is named."""

import json

import numpy as np
import pytest

from fedimb.data.prepare import prepare
from fedimb.data.sources.leaf_json import LeafJson
from fedimb.errors import ConfigError, DataError


def content(users, rows=3, width=4):
    held = {
        user: {"x": [[i + w / 4 for w in range(width)] for i in range(rows)], "y": [i % 2 for i in range(rows)]}
        for user in users
    }
    return {"users": list(users), "num_samples": [rows] * len(users), "user_data": held}


def write(folder, name, made):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(made if isinstance(made, str) else json.dumps(made))


def test_users_are_sites_and_the_folders_its_official_split(tmp_path):
    write(tmp_path, "train/a.json", content(["f1", "f2"]))
    write(tmp_path, "train/b.json", content(["f0"]))
    write(tmp_path, "test/a.json", content(["f0", "f1", "f2"], 2))
    data = LeafJson(str(tmp_path), shape=(1, 2, 2)).load()
    assert data.x.shape == (15, 1, 2, 2)
    assert data.x[1].ravel().tolist() == [1, 1.25, 1.5, 1.75]
    assert data.site_names == ("f1", "f2", "f0")
    assert int(data.official_test.sum()) == 6
    assert data.class_names == ("0", "1")
    group = {"source": {"name": "leaf_json", "path": str(tmp_path)}, "test": {"name": "official"}}
    assert [len(rows) for rows in prepare(group, {"name": "by_column"}, clients=3, seed=0).train] == [3, 3, 3]


def test_users_as_patients_are_never_split(tmp_path):
    write(tmp_path, "all.json", content([f"u{k}" for k in range(10)]))
    data = LeafJson(str(tmp_path / "all.json"), users="patient").load()
    assert data.sites is None
    assert len(np.unique(data.patients)) == 10
    write(tmp_path, "train/a.json", content(["u"]))
    write(tmp_path, "test/a.json", content(["u"]))
    group = {"source": {"name": "leaf_json", "path": str(tmp_path), "users": "patient"}, "test": {"name": "official"}}
    with pytest.raises(DataError, match="shares 1 patients with the training rows"):
        prepare(group, {"name": "iid"}, clients=1, seed=0)


def test_labels_of_text_and_beyond_float64(tmp_path):
    made = content(["u"], 4)
    made["user_data"]["u"]["y"] = ["a", "b", "a", "b"]
    write(tmp_path, "t.json", made)
    assert LeafJson(str(tmp_path)).load().class_names == ("a", "b")


def broken(change):
    def make():
        made = json.loads(json.dumps(content(["u", "v"])))  # lists of its own
        change(made)
        return made

    return make


def rows_of(made):
    return made["user_data"]["u"]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: "", "t.json is not complete JSON"),
        (lambda: json.dumps(content(["u"]))[:-9], "t.json is not complete JSON"),
        (lambda: "[1, 2]", "t.json has no 'users'; a LEAF file holds users, num_samples, user_data"),
        (broken(lambda m: m.pop("num_samples")), "t.json has no 'num_samples'"),
        (broken(lambda m: m["num_samples"].append(1)), "has 2 users and 3 num_samples"),
        (broken(lambda m: m["user_data"].pop("u")), "user 'u' is in users alone"),
        (broken(lambda m: m["users"].pop(0) and m["num_samples"].pop(0)), "user 'u' is in user_data alone"),
        (broken(lambda m: rows_of(m)["y"].pop()), "user 'u' has 3 rows of x, 2 of y and num_samples 3"),
        (broken(lambda m: rows_of(m).pop("y")), "user 'u' has no lists x and y"),
        (broken(lambda m: rows_of(m)["x"][0].pop()), "user 'u' x has rows of different lengths"),
        (broken(lambda m: rows_of(m).update(x=["ab", "cd", "ef"])), "user 'u' x is text; only rows of numbers"),
        (broken(lambda m: rows_of(m).update(x=[["1"], ["2"], ["3"]])), "user 'u' x is text"),
        (broken(lambda m: rows_of(m)["x"][0].__setitem__(0, None)), "user 'u' x holds null or mixed values"),
        (broken(lambda m: rows_of(m)["x"][1].__setitem__(0, float("nan"))), r"user 'u' x\[1\]: NaN, infinite"),
        (broken(lambda m: rows_of(m)["y"].__setitem__(1, 0.5)), r"user 'u' y\[1\]: label 0.5 is not a whole"),
        (broken(lambda m: rows_of(m)["y"].__setitem__(1, None)), r"user 'u' y\[1\]: label None is not a whole"),
        (broken(lambda m: rows_of(m).update(x=[[1.0]] * 3)), "give the same shape and type"),
        (
            lambda: json.dumps(content(["u"])).replace('"num_samples"', '"users": [], "num_samples"'),
            "has 'users' twice",
        ),
    ],
)
def test_files_that_are_not_leafs(tmp_path, made, says):
    write(tmp_path, "t.json", made())
    with pytest.raises(DataError, match=says) as refused:
        LeafJson(str(tmp_path)).load()
    assert "\n" not in str(refused.value)


def test_wrong_settings_and_places(tmp_path):
    with pytest.raises(DataError, match=r"has no \.json files"):
        LeafJson(str(tmp_path)).load()
    with pytest.raises(ConfigError, match=r"shape=\[0\]"):
        LeafJson(str(tmp_path), shape=(0,))
    write(tmp_path, "a.json", content(["u"]))
    with pytest.raises(DataError, match=r"user 'u' x has 4 values per row, shape=\[1, 3\] needs 3"):
        LeafJson(str(tmp_path), shape=(1, 3)).load()
    write(tmp_path, "b.json", content(["u"]))
    with pytest.raises(DataError, match=r"b.json user 'u' is also in a.json"):
        LeafJson(str(tmp_path)).load()
    (tmp_path / "b.json").write_bytes('{"ü": 1}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"b.json is not text in UTF-8"):
        LeafJson(str(tmp_path)).load()
