"""Bad tables and arrays, one by one: where, what, and that skipping leaves out the bad row alone."""

import numpy as np
import pytest

from fedimb.data.sources.embeddings_npz import EmbeddingsNpz
from fedimb.data.sources.npz import Npz
from fedimb.data.sources.tabular_csv import TabularCsv
from fedimb.data.split import split_test
from fedimb.errors import ConfigError, DataError

HEAD = "age,kind,who,hospital,split,label\n"
GOOD = "50,a,p1,north,train,no\n61,b,p2,south,test,yes\n"
CLASSES = {"classes": ["no", "yes"], "categorical": {"kind": ["a", "b"]}, "drop": ["who", "hospital", "split"]}

# (the row, arguments beside the above, what is said of it)
ROWS = [
    ("70,a,p3,north,train", {}, "5 fields where the table has 6 columns"),
    ("70,a,p3,north,train,no,9", {}, "7 fields where the table has 6 columns"),
    ("old,a,p3,north,train,no", {}, "column 'age': 'old' is not a number; list the column as categorical"),
    ("1_000,a,p3,north,train,no", {}, "column 'age': '1_000' is not a number"),
    ("nan,a,p3,north,train,no", {}, "column 'age': 'nan' is not a finite number; leave the field empty"),
    ("inf,a,p3,north,train,no", {}, "column 'age': 'inf' is not a finite number"),
    ("1e39,a,p3,north,train,no", {}, "column 'age': '1e39' is not a finite number"),
    ("70,c,p3,north,train,no", {}, "column 'kind': category 'c' is not listed (a, b)"),
    ("70,a,p3,north,train,maybe", {}, "label 'maybe' is not in the class list (no, yes)"),
    ("70,a,p3,north,train,", {}, "the label is missing"),
    ("70,a,p3,north,train,?", {}, "the label is missing ('?')"),
    ("70,a,p3,north,train,maybe", {"target_map": {"no": "no", "yes": "yes"}}, "'maybe' is not in target_map (no, yes)"),
    ("70,a,,north,train,no", {"patient": "who"}, "the patient id is missing"),
    ("70,a,p3,NA,train,no", {"site_column": "hospital"}, "the site is missing"),
    (
        "70,a,p3,nroth,train,no",
        {"site_column": "hospital", "site_names": ["north", "south"]},
        "site 'nroth' is not in site_names. Did you mean 'north'?",
    ),
    ("70,a,p3,north,tset,no", {"split_column": "split"}, "split 'tset' is none of train, validation, test"),
]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Write t.csv and read it with arguments."""
    monkeypatch.chdir(tmp_path)

    def read(content, name="t.csv", **args):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return TabularCsv(**({"files": "t.csv", "target": "label"} | args)).load()

    return read


@pytest.mark.parametrize(("row", "args", "says"), ROWS)
def test_a_bad_row_is_named_or_left_out(table, row, args, says):
    content = HEAD + GOOD + row + "\n"
    with pytest.raises(DataError, match=r"^1 bad row: t\.csv row 4: ") as caught:
        table(content, **CLASSES | args)
    assert says in str(caught.value)
    data = table(content, on_bad="skip", **CLASSES | args)
    assert len(data.x) == 2
    assert len(data.skipped) == 1
    assert says in data.skipped[0]


# (content, arguments, what is said)
FILES = [
    (b"", {}, "t.csv is empty; give a file with rows"),
    (HEAD, {}, "t.csv has a header and no rows"),
    (
        HEAD + "70,\xe9,p,n,train,no\n",
        {"encoding": "ascii"},
        "t.csv is not text in ascii",
    ),
    ((HEAD + "70,\xe9,p,n,train,no\n").encode("latin-1"), {}, "t.csv is not text in utf-8"),
    (HEAD.replace(",", ";") + "1;a;p;n;train;no\n", {}, "t.csv row 1 is one field and holds ';': give delimiter=';'"),
    ("1,2,no\n3,4,yes\n", {}, "(a file without a header row needs header=false and columns=[...])"),
    ("1,2,0\n3,4,1\n", {}, "t.csv row 1 holds numbers, not column names; set header=false"),
    (
        "a,label\n1,no\n",
        {"header": False, "columns": ["a", "label"]},
        "t.csv row 1 holds the column names; set header=true",
    ),
    ("a,a,label\n1,2,no\n", {}, "t.csv row 1: column 'a' is there twice; rename one"),
    (",a,label\n1,2,no\n", {}, "t.csv row 1: column 1 has no name"),
    (
        "a,b,label\n1,2,no\n",
        {"columns": ["b", "a", "label"]},
        "t.csv row 1: the header and columns=[...] differ from column 1",
    ),
    ('a,label\n1,"no\n2,yes\n', {}, "t.csv row 2: unexpected end of data"),
    (
        "a,label\n1,no\n",
        {"target": "lable"},
        "target names 'lable', which is no column of t.csv. Did you mean 'label'?",
    ),
    ("a,label\n1,no\n", {"drop": ["b"]}, "drop names 'b', which is no column of t.csv"),
    ("a,label\n1,no\n", {"categorical": ["b"]}, "categorical names 'b', which is no column of t.csv"),
    ("a,label\n1,no\n", {"missing_values": {"b": [0]}}, "missing_values names 'b', which is no column of t.csv"),
    ("a,label\n1,no\n", {"missing_values": {"label": [0]}}, "missing_values names 'label', which is no feature column"),
    ("a,label\n1,no\n", {"indicators": ["b"]}, "indicators names 'b', which is no column of t.csv"),
    ("a,label\n1,no\n", {"patient": "b"}, "patient names 'b', which is no column of t.csv"),
    ("a,label\n1,no\n", {"drop": ["a"]}, "t.csv has no feature columns beside a, label; drop fewer"),
    ("a,label\n?,no\n", {"categorical": ["a"], "indicators": False}, "the table has no feature columns"),
    ("a,label\n1,0\n2,yes\n", {}, "labels are numbers in some rows ('0') and text in others ('yes')"),
    (
        "a,label\n1,0.5\n",
        {},
        "t.csv row 2: label '0.5' is not a whole number; name the classes, or cut it with thresholds",
    ),
    ("a,label\n1,x\n", {"classes": ["no", "yes"], "thresholds": [3]}, "label 'x' is no number and the classes are cut"),
    ("a,label\n1,no\n", {"classes": ["no", "yes"], "require_all_classes": True}, "cannot express class 'yes'"),
    ("a,label\n1,no\n", {"label_values": {"north": ["no"]}}, "label_values names site 'north'"),
    ("a,label\nx,no\ny,no\n", {"on_bad": "skip"}, "2 bad rows and no good one: t.csv row 2: column 'a': 'x'"),
    ("a,label\n" + "\n".join(f"c{i},no" for i in range(1001)), {"categorical": ["a"]}, "has 1001 categories"),
]


@pytest.mark.parametrize(("content", "args", "says"), FILES)
def test_a_bad_file_is_refused(table, content, args, says):
    with pytest.raises(DataError) as caught:
        table(content, **args)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_files_of_different_columns_are_refused(table, tmp_path):
    with pytest.raises(DataError, match=r"no 'none\.csv' in the current folder"):
        table(HEAD + GOOD, files=["t.csv", "none.csv"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder is a folder; give a file"):
        table(HEAD + GOOD, files="folder")
    (tmp_path / "u.csv").write_text("b,label\n1,no\n")
    with pytest.raises(DataError, match=r"^t\.csv has column 'a' and u\.csv has not; give files of the same columns"):
        table("a,label\n1,no\n", files={"north": "t.csv", "south": "u.csv"})


def test_a_patient_on_both_sides_of_the_official_split_is_refused(table):
    content = "age,who,split,label\n1,p1,train,no\n2,p1,test,yes\n3,p2,train,yes\n"
    data = table(content, patient="who", split_column="split")
    with pytest.raises(DataError, match="shares 1 patients with the training rows"):
        split_test(
            data.y, data.class_names, {"name": "official"}, np.random.default_rng(), data.patients, data.official_test
        )


# Arguments that contradict each other, before any file is read.
ARGUMENTS = [
    ({"files": []}, "files is empty"),
    ({"delimiter": ";;"}, "delimiter=';;': give one character"),
    ({"encoding": "utf-9"}, "encoding='utf-9' is not known"),
    ({"header": False}, "header=false needs columns"),
    ({"columns": ["a", "a"]}, "give each name once"),
    ({"files": {"a": "a.csv"}, "site_column": "b"}, "files names the sites already"),
    ({"site_names": ["a"]}, "site_names goes with site_column"),
    ({"target_map": {"0": "a"}, "thresholds": [1]}, "two rules for one label"),
    ({"target_map": {"1": "a", "1.0": "b"}}, "names a label twice"),
    ({"target_map": {}}, "target_map is empty"),
    ({"classes": ["a", "b"], "target_map": {"0": "a", "1": "c"}}, "target_map names class 'c'"),
    ({"classes": ["a", "b"], "target_map": {"0": "a"}}, "no label of target_map is class 'b'"),
    ({"classes": ["a", "b"], "thresholds": [1, 2]}, "2 thresholds part 3 classes"),
    ({"classes": ["a", "b", "c"], "thresholds": [2, 2]}, "give them in rising order"),
    ({"classes": ["1", "1.0"]}, "give distinct names"),
    ({"on_bad": "ignore"}, "refuse or skip"),
]


@pytest.mark.parametrize(("args", "says"), ARGUMENTS)
def test_arguments_that_contradict_each_other_are_refused(table, args, says):
    with pytest.raises(ConfigError, match=says.replace("[", r"\[")):
        table(HEAD + GOOD, **args)


X = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
Y = np.array([[0], [1], [1]])
F = np.arange(6, dtype=np.float32).reshape(3, 2)
WITH_NAN = np.array([[0, 1], [np.nan, 1], [2, 3]], np.float32)
OBJECTS = np.array([{"a": 1}, None, 3], dtype=object)

# (source, arrays, arguments, what is said)
ARRAYS = [
    (Npz, {}, {}, "d.npz holds nothing; give train_images and train_labels, or x and y"),
    (Npz, {"images": X}, {}, "d.npz holds images; give train_images"),
    (Npz, {"train_images": X}, {}, "d.npz has no array 'train_labels'"),
    (Npz, {"x": X}, {}, "d.npz has no array 'y'"),
    (Npz, {"x": X, "y": Y[:2]}, {}, "d.npz y is [2] beside 3 rows; give one value per row"),
    (Npz, {"x": X[0, 0], "y": Y}, {}, "d.npz x is [2]; give rows of values"),
    (Npz, {"x": X[:0], "y": Y[:0]}, {}, "d.npz x is [0, 2, 2]; give rows of values"),
    (Npz, {"x": X.astype(np.int64), "y": Y}, {}, "d.npz x is int64; save it as uint8 (0 to 255) or float32"),
    (Npz, {"x": np.zeros((3, 2, 2, 2), np.uint8), "y": Y}, {}, "d.npz x is [3, 2, 2, 2]; give [n, height, width]"),
    (Npz, {"x": X, "y": np.eye(3, 4).astype(str)}, {}, "d.npz y is <U32 [3, 4]; give 0 and 1, one column per class"),
    (Npz, {"x": X, "y": np.eye(3, 4)[None]}, {}, "d.npz y is [1, 3, 4] beside 3 rows"),
    (Npz, {"x": X, "y": np.eye(3)}, {"class_names": ["a", "b"]}, "class_names has 2 names for 3 columns of labels"),
    (Npz, {"x": X, "y": np.eye(3)}, {"class_names": list("abcd")}, "give one each, and perhaps 'none' after"),
    (
        Npz,
        {"train_images": X, "train_labels": np.eye(3), "test_images": X, "test_labels": Y},
        {},
        "d.npz test_labels has one class id per row and the parts before 3 columns; give one layout",
    ),
    (Npz, {"x": X, "y": Y.astype("datetime64[s]")}, {}, "d.npz y is datetime64[s]; give class ids as integers"),
    (Npz, {"x": OBJECTS, "y": Y}, {}, "d.npz x holds Python objects, which could run code when read"),
    (Npz, {"x": X, "y": OBJECTS}, {}, "d.npz y holds Python objects"),
    (
        Npz,
        {"train_images": X, "train_labels": Y, "test_images": F, "test_labels": Y},
        {},
        "d.npz: test_images and test_labels differ from the other parts in shape or type",
    ),
    (EmbeddingsNpz, {"x": X, "y": Y}, {}, "d.npz x is uint8 [3, 2, 2]; give float32 [n, d]"),
    (EmbeddingsNpz, {"y": Y}, {}, "d.npz has no array 'x'. Valid: y."),
    (EmbeddingsNpz, {"x": F, "y": Y, "class_names": np.array([1, 2])}, {}, "d.npz class_names is int64 [2]; give text"),
    (EmbeddingsNpz, {"x": F, "y": Y, "sites": F[:, 0]}, {}, "d.npz sites is float32; give site ids"),
    (EmbeddingsNpz, {"x": F, "y": Y, "sites": Y[:2]}, {}, "d.npz sites is [2] beside 3 rows"),
    (EmbeddingsNpz, {"x": F, "y": Y}, {"site_names": ["a"]}, "d.npz has site_names and no sites"),
    (EmbeddingsNpz, {"x": F, "y": Y, "patients": F[:, 0]}, {}, "d.npz patients is float32; give ids"),
    (EmbeddingsNpz, {"x": F, "y": Y, "test": Y}, {}, "d.npz test is int64; give bool"),
    (EmbeddingsNpz, {"x": F, "y": Y, "class_names": np.array(["a", "a"])}, {}, "must be distinct"),
]

# The same, of row 1 alone: refused by name, or left out.
ARRAY_ROWS = [
    (Npz, {"x": X, "y": np.array([[0, 1], [0, 2], [1, 0]])}, {}, "d.npz y[1]: 2 in column 1 is neither 0 nor 1"),
    (Npz, {"x": X, "y": np.array([[0, 1], [np.nan, 1], [1, 0]])}, {}, "d.npz y[1]: nan in column 0 is neither"),
    (
        Npz,
        {"x": X, "y": np.array([[0, 1], [1, 1], [1, 0]])},
        {"class_names": ["mass", "No Finding"]},
        "d.npz y[1]: label 'No Finding' stands beside 'mass': a row has that one alone, or others",
    ),
    (EmbeddingsNpz, {"x": F, "y": np.array([[0, 1], [0, -1], [1, 0]])}, {}, "d.npz y[1]: -1 in column 1 is neither"),
    (Npz, {"x": X, "y": np.array([0, -1, 1])}, {}, "d.npz y[1]: label -1 is no class id: give whole numbers from 0 on"),
    (Npz, {"x": X, "y": np.array([0, 0.5, 1])}, {}, "d.npz y[1]: label 0.5 is no class id"),
    (Npz, {"x": X, "y": np.array([0, np.nan, 1])}, {}, "d.npz y[1]: label nan is no class id"),
    (Npz, {"x": X, "y": np.array([0, 10**9, 1])}, {}, "d.npz y[1]: label 1000000000 is no class id"),
    (
        Npz,
        {"x": X, "y": np.array([0, 2, 1])},
        {"class_names": ["a", "b"]},
        "label 2 is no class id: give whole numbers from 0 to 1",
    ),
    (Npz, {"x": WITH_NAN, "y": np.array([0, -1, 1])}, {}, "d.npz x[1]: NaN, infinite or too large for float32"),
    (Npz, {"x": F.astype(np.float64) * [[1], [1e39], [1]], "y": Y}, {}, "d.npz x[1]: NaN, infinite or too large"),
    (EmbeddingsNpz, {"x": F, "y": np.array(["a", "", "b"])}, {}, "d.npz y[1]: label '' is empty"),
    (
        EmbeddingsNpz,
        {"x": F, "y": np.array(["a", "c", "b"])},
        {"class_names": ["a", "b"]},
        "label 'c' is not in class_names",
    ),
    (EmbeddingsNpz, {"x": F * [[1], [0], [1]], "y": Y}, {"l2_normalise": True}, "d.npz x[1]: all zeros"),
    (EmbeddingsNpz, {"x": F, "y": Y, "sites": np.array([0, -1, 0])}, {}, "d.npz sites[1]: site -1 is not known"),
    (
        EmbeddingsNpz,
        {"x": F, "y": Y, "sites": np.array(["a", "z", "a"])},
        {"site_names": ["a"]},
        "sites[1]: site 'z' is not",
    ),
]


@pytest.fixture
def npz(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(source, arrays, **args):
        np.savez(tmp_path / "d.npz", **arrays)
        return source(path="d.npz", **args).load()

    return read


@pytest.mark.parametrize(("source", "arrays", "args", "says"), ARRAYS)
def test_bad_arrays_are_refused(npz, source, arrays, args, says):
    with pytest.raises(DataError) as caught:
        npz(source, arrays, **args)
    assert says in str(caught.value)


@pytest.mark.parametrize(("source", "arrays", "args", "says"), ARRAY_ROWS)
def test_a_bad_row_of_an_array_is_named_or_left_out(npz, source, arrays, args, says):
    with pytest.raises(DataError, match=r"^1 bad row: ") as caught:
        npz(source, arrays, **args)
    assert says in str(caught.value)
    data = npz(source, arrays, **args, on_bad="skip")
    assert len(data.x) == 2
    assert says in data.skipped[0]


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 cut short"])
def test_what_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz is not an \.npz file; write it with numpy\.savez"):
        Npz(path=str(tmp_path / "d.npz")).load()


def test_one_array_and_a_damaged_one_are_refused(tmp_path):
    np.save(tmp_path / "d.npy", X)
    with pytest.raises(DataError, match=r"is one array \(\.npy\), not an \.npz file"):
        Npz(path=str(tmp_path / "d.npy")).load()
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    damaged = bytearray((tmp_path / "d.npz").read_bytes())
    damaged[170] ^= 0xFF  # inside x: its checksum no longer fits
    (tmp_path / "d.npz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"x is damaged \(BadZipFile\); copy the file again"):
        Npz(path=str(tmp_path / "d.npz")).load()
