"""Bad tables, one by one: where, what, and that skipping leaves out the bad row alone."""

import numpy as np
import pytest

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
    ("inf,a,p3,north,train,no", {}, "column 'age': 'inf' is not a finite number; leave the field empty"),
    ("7.111,a,p3,north,train,no", {"decimal": ","}, "give data.source.decimal=\"','\" data.source.thousands=\"'.'\""),
    ("1e39,a,p3,north,train,no", {}, "column 'age': '1e39' is not a finite number"),
    ("70,c,p3,north,train,no", {}, "column 'kind': category 'c' is not listed (a, b)"),
    ("70,a,p3,north,train,maybe", {}, "label 'maybe' is not in the class list (no, yes)"),
    ("70,a,p3,north,train,", {}, "the label is missing"),
    ("70,a,p3,north,train,?", {}, "the label is missing ('?')"),
    ("70,a,p3,north,train,maybe", {"target_map": {"no": "no", "yes": "yes"}}, "'maybe' is not in target_map (no, yes)"),
    ("70,a,,north,train,no", {"patient": "who"}, "the patient id is missing"),
    ("70,a,N/A,north,train,no", {"patient": "who"}, "the patient id is missing ('N/A')"),
    ("70,a,-9.0,north,train,no", {"patient": "who", "missing": [-9]}, "the patient id is missing ('-9.0')"),
    ("70,a,p3,NA,train,no", {"site_column": "hospital"}, "the site is missing"),
    (
        "70,a,p3,nroth,train,no",
        {"site_column": "hospital", "site_names": ["north", "south"]},
        "site 'nroth' is not in site_names. Did you mean 'north'?",
    ),
    ("70,a,p3,north,tset,no", {"split_column": "split"}, "split 'tset' is not one of train, validation, test"),
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
    (HEAD, {}, "t.csv has a header but no rows"),
    (
        HEAD + "70,\xe9,p,n,train,no\n",
        {"encoding": "ascii"},
        "t.csv is not text in ascii",
    ),
    ((HEAD + "70,\xe9,p,n,train,no\n").encode("latin-1"), {}, "t.csv is not text in utf-8"),
    (
        HEAD.replace(",", ";") + "1;a;p;n;train;no\n",
        {},
        "t.csv row 1 is a single field with ';' in it: give delimiter=';'",
    ),
    ("1,2,no\n3,4,yes\n", {}, "(a file without a header row needs header=false and columns=[...])"),
    ("1,2,0\n3,4,1\n", {}, "t.csv row 1 holds numbers, not column names; set header=false"),
    (
        "a,label\n1,no\n",
        {"header": False, "columns": ["a", "label"]},
        "t.csv row 1 holds the column names; set header=true",
    ),
    ("a,a,label\n1,2,no\n", {}, "t.csv row 1: column 'a' occurs twice; rename one"),
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
        "target names 'lable', which is not a column of t.csv. Did you mean 'label'?",
    ),
    ("a,label\n1,no\n", {"drop": ["b"]}, "drop names 'b', which is not a column of t.csv"),
    ("a,label\n1,no\n", {"categorical": ["b"]}, "categorical names 'b', which is not a column of t.csv"),
    ("a,label\n1,no\n", {"missing_values": {"b": [0]}}, "missing_values names 'b', which is not a column of t.csv"),
    (
        "a,label\n1,no\n",
        {"missing_values": {"label": [0]}},
        "missing_values names 'label', which is not a feature column",
    ),
    ("a,label\n1,no\n", {"indicators": ["b"]}, "indicators names 'b', which is not a column of t.csv"),
    ("a,label\n1,no\n", {"patient": "b"}, "patient names 'b', which is not a column of t.csv"),
    ("a,label\n1,no\n", {"drop": ["a"]}, "t.csv has no feature columns beside a, label; drop fewer"),
    ("a,label\n?,no\n", {"categorical": ["a"], "indicators": False}, "the table has no feature columns"),
    ("a,label\n1,0\n2,yes\n", {}, "labels are numbers in some rows ('0') and text in others ('yes')"),
    (
        "a,label\n1,0.5\n",
        {},
        "t.csv row 2: label '0.5' is not a whole number; name the classes, or define them with thresholds",
    ),
    (
        "a,label\n1,x\n",
        {"classes": ["no", "yes"], "thresholds": [3]},
        "label 'x' is not a number, but the classes are defined",
    ),
    ("a,label\n1,no\n", {"classes": ["no", "yes"], "require_all_classes": True}, "cannot express class 'yes'"),
    ("a,label\n1,no\n", {"label_values": {"north": ["no"]}}, "label_values names site 'north'"),
    ("a,label\nx,no\ny,no\n", {"on_bad": "skip"}, "2 bad rows and no good row: t.csv row 2: column 'a': 'x'"),
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
    with pytest.raises(
        DataError, match=r"^t\.csv has column 'a' and u\.csv does not; give files with the same columns"
    ):
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
    ({"files": {"a": "a.csv"}, "site_column": "b"}, "files already names the sites"),
    ({"site_names": ["a"]}, "site_names goes with site_column"),
    ({"target_map": {"0": "a"}, "thresholds": [1]}, "two rules for one label"),
    ({"target_map": {"1": "a", "1.0": "b"}}, "has a label twice"),
    ({"target_map": {}}, "target_map is empty"),
    ({"classes": ["a", "b"], "target_map": {"0": "a", "1": "c"}}, "target_map names class 'c'"),
    ({"classes": ["a", "b"], "target_map": {"0": "a"}}, "no label of target_map has class 'b'"),
    ({"classes": ["a", "b"], "thresholds": [1, 2]}, "2 thresholds make 3 classes"),
    ({"classes": ["a", "b", "c"], "thresholds": [2, 2]}, "give them in rising order"),
    ({"classes": ["1", "1.0"]}, "give distinct names"),
    ({"on_bad": "ignore"}, "refuse or skip"),
]


@pytest.mark.parametrize(("args", "says"), ARGUMENTS)
def test_arguments_that_contradict_each_other_are_refused(table, args, says):
    with pytest.raises(ConfigError, match=says.replace("[", r"\[")):
        table(HEAD + GOOD, **args)
