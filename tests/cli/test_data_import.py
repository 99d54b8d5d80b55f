"""`fedimb data import`: every layout gets a YAML that is read and that runs, and doubts are said."""

import json
import sqlite3
import zipfile

import numpy as np
import pytest
import yaml
from tiny_images import image, put

from fedimb.cli import main
from fedimb.data.importing.hugging_face import find_hugging_face
from fedimb.data.prepare import prepare
from fedimb.errors import DataError

SITES, KINDS = ("north", "south", "east"), "ab"
ROWS = [
    (f"P{i // 2:03d}", SITES[i // 2 % 3], 30 + i % 40, i / 7, KINDS[i % 2], f"id-{i}", "well" if i % 4 else "ill")
    for i in range(60)
]
NAMES = ("Patient ID", "hospital", "age", "dose", "kind", "uid", "diagnosis")


def csv_table(folder):
    put(folder, t_csv="\n".join([",".join(NAMES), *(",".join(map(str, row)) for row in ROWS)]))
    return folder / "t.csv"


def german_table(folder):
    lines = [";".join(NAMES), *(";".join(str(cell).replace("id-", "größe-") for cell in row) for row in ROWS)]
    (folder / "t.txt").write_bytes("\n".join(lines).encode("cp1252"))
    return folder / "t.txt"


def parquet(folder):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(dict(zip(NAMES, zip(*ROWS, strict=True), strict=True))), folder / "t.parquet")
    return folder / "t.parquet"


def headless(folder):
    put(folder, t_csv="\n".join(f"{i / 3:.2f},{i % 5},{i % 2}" for i in range(40)))
    return folder / "t.csv"


def arff(folder):
    rows = "\n".join(f"{i / 3:.2f},{'uv'[i // 2 % 2]},{'pq'[i % 2]}" for i in range(40))
    head = "@relation r\n@attribute a numeric\n@attribute k {u, v}\n@attribute class {p, q}\n@data\n"
    (folder / "t.arff").write_text(head + rows)
    return folder / "t.arff"


def keel(folder):
    rows = "\n".join(f"{i / 3:.2f}, {'uv'[i // 2 % 2]}, {'pq'[i % 2]}" for i in range(40))
    head = "@relation r\n@attribute A real [0, 9]\n@attribute K {u, v}\n@attribute Quality {p, q}\n@inputs A, K\n"
    (folder / "t.dat").write_text(head + "@outputs Quality\n@data\n" + rows)
    return folder / "t.dat"


def sites_in_files(folder):
    for name in ("north", "south"):
        put(folder / "tables", **{f"{name}.csv": "age,label\n" + "\n".join(f"{i},{i % 2}" for i in range(30))})
    return folder / "tables"


def database(folder):
    with sqlite3.connect(folder / "cohort.db") as opened:
        opened.execute("CREATE TABLE cohort (person_id INTEGER, age INTEGER, outcome INTEGER)")
        opened.executemany("INSERT INTO cohort VALUES (?, ?, ?)", [(2**60 + i, 30 + i, i % 3 == 0) for i in range(40)])
    opened.close()
    return folder / "cohort.db"


def folders(folder):
    for name in ("Training", "Testing"):
        put(folder / "im.d/top", **{f"{name}/{c}/{i}.png": image(9 * i) for c in ("cat", "dog") for i in range(6)})
    return folder / "im.d"


def ham(folder):
    put(folder / "ham", **{f"part_{1 + i % 2}/ISIC_{i}.jpg": image(i) for i in range(12)})
    lines = "".join(f"L{i},ISIC_{i},{'nv' if i % 3 else 'mel'}\n" for i in range(12))
    put(folder / "ham", meta_csv="lesion_id,image_id,dx\n" + lines)
    return folder / "ham"


def numbered(folder):
    put(folder / "n", **{f"{i:03d}.png": image(i) for i in range(12)})
    put(folder / "n", list_csv="id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(12)))
    return folder / "n" / "list.csv"


def zipped(folder):
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for i in range(12):
            archive.writestr(f"im/{i}.png", image(i))
    put(folder, list_csv="path,label,site\n" + "".join(f"im/{i}.png,{'ab'[i % 2]},{i % 3}\n" for i in range(12)))
    return folder / "list.csv"


def medmnist(folder):
    made = {}
    for part, rows in (("train", 20), ("val", 4), ("test", 8)):
        made[f"{part}_images"] = np.full((rows, 8, 8), 7, np.uint8)
        made[f"{part}_labels"] = (np.arange(rows) % 2)[:, None]
    np.savez(folder / "pathmnist_64.npz", **made)
    return folder / "pathmnist_64.npz"


def embeddings(folder):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.savez(folder / "e.npz", x=x, y=np.arange(40) % 2, sites=np.arange(40) // 2 % 4)
    return folder / "e.npz"


def shards(folder):
    for name in ("train", "test"):
        (folder / "s" / name).mkdir(parents=True)
        for k in range(3):
            held = {"x": np.full((8, 1, 4, 4), k / 2, np.float32), "y": np.arange(8) % 2}
            np.savez(folder / "s" / name / f"{k}.npz", data=held)
    return folder / "s"


def leaf(folder):
    users = {f"u{k}": {"x": [[i / 9.0] * 64 for i in range(8)], "y": [i % 2 for i in range(8)]} for k in range(3)}
    content = {"users": list(users), "num_samples": [8] * 3, "user_data": users}
    put(folder / "leaf", **{"all.json": json.dumps(content)})
    return folder / "leaf"


def dicom(folder):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    (folder / "scans").mkdir()
    for i in range(8):
        image = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
        image.PatientID = f"P{i}"
        image.save_as(folder / "scans" / f"{i}.dcm")
    put(folder / "scans", labels_csv="file,label\n" + "".join(f"{i}.dcm,{'ab'[i % 2]}\n" for i in range(8)))
    return folder / "scans"


# What makes the files; then source, rows, sites, patients, official test rows; settings that were chosen; a doubt.
LAYOUTS = {
    csv_table: (
        ("tabular_csv", 60, 3, 30, None),
        {"target": "diagnosis", "drop": ["uid"], "categorical": {"kind": ["a", "b"]}},
        "drop: 'uid'",
    ),
    german_table: (("tabular_csv", 60, 3, 30, None), {"encoding": "cp1252", "delimiter": ";"}, "encoding=cp1252"),
    parquet: (
        ("tabular_csv", 60, 3, 30, None),
        {"patient": "Patient ID", "site_column": "hospital"},
        "patient=Patient ID",
    ),
    headless: (("tabular_csv", 40, None, None, None), {"header": False, "target": "column_3"}, "header=false"),
    arff: (
        ("tabular_csv", 40, None, None, None),
        {"target": "class", "categorical": {"k": ["u", "v"]}},
        "target=class",
    ),
    keel: (("tabular_csv", 40, None, None, None), {"target": "Quality"}, ""),
    sites_in_files: (("tabular_csv", 60, 2, None, None), {}, "is taken as a site of its own"),
    database: (
        ("sql", 40, None, 40, None),
        {"query": 'SELECT * FROM "cohort"', "target": "outcome"},
        "patient=person_id",
    ),
    folders: (("image_folder", 24, None, None, 12), {"inside": "top"}, ""),
    ham: (("image_csv", 12, None, 12, None), {"suffix": ".jpg", "folders": ["part_1", "part_2"]}, "label_column=dx"),
    numbered: (("image_csv", 12, None, None, None), {"path_template": "{:03d}.png", "path_column": "id"}, ""),
    zipped: (("image_csv", 12, 3, None, None), {"path_column": "path", "site_column": "site"}, ""),
    dicom: (("dicom", 8, None, 8, None), {"file_column": "file", "by_patient": True}, ""),
    medmnist: (("npz", 32, None, None, 8), {"validation": "train"}, ""),
    embeddings: (("embeddings_npz", 40, 4, None, None), {}, ""),
    shards: (("shards", 48, 3, None, 24), {}, ""),
    leaf: (("leaf_json", 24, 3, None, None), {"shape": [1, 8, 8]}, "as grey pictures of 8 x 8"),
}


def hub_columns(rows):
    datasets = pytest.importorskip("datasets")
    columns = {"age": [30 + i for i in range(rows)], "dose": [i / 7 for i in range(rows)]}
    columns |= {"note": ["text"] * rows, "hospital": [SITES[i // 2 % 3] for i in range(rows)]}
    data = datasets.Dataset.from_dict(columns | {"outcome": [i % 2 for i in range(rows)]})
    return data.cast_column("outcome", datasets.ClassLabel(names=["well", "ill"]))


def hub_saved(folder):
    hub_columns(40).save_to_disk(folder / "one")
    return folder / "one"


def hub_splits(folder):
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"train": hub_columns(30), "test": hub_columns(10)}).save_to_disk(folder / "two")
    return folder / "two"


def hub_parquet(folder):
    """As push_to_hub writes it."""
    for split, shards in (("train", 2), ("test", 1)):
        for k in range(shards):
            file = folder / "hub/data" / f"{split}-{k:05d}-of-{shards:05d}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            hub_columns(15 if shards > 1 else 10).to_parquet(file)
    head = "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: data/train-*}\n"
    put(folder / "hub", **{"README.md": f"---\n{head}  - {{split: test, path: data/test-*}}\n---\n# A set\n"})
    return folder / "hub"


def hub_bare(folder):
    """Parquet files by folder, without a card."""
    for split, rows in (("train", 30), ("validation", 10)):
        file = folder / "bare" / split / "0000.parquet"
        file.parent.mkdir(parents=True)
        hub_columns(rows).to_parquet(file)
    return folder / "bare"


ROLES = {"label": "outcome", "features": ["age", "dose"], "site": "hospital", "image": None}
HUB = {
    hub_saved: (("huggingface", 40, 3, None, None), ROLES, "note are not numbers"),
    hub_splits: (("huggingface", 40, 3, None, 10), ROLES, "site=hospital"),
    hub_parquet: (("huggingface", 40, 3, None, 10), ROLES, ""),
    hub_bare: (("huggingface", 40, 3, None, 10), ROLES | {"test_split": "validation"}, "the splits are train, valid"),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", HUB, ids=lambda make: make.__name__)
def test_hugging_face_folders_get_a_yaml_too(make, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pyarrow")
    monkeypatch.setitem(LAYOUTS, make, HUB[make])
    test_each_layout_gets_a_yaml_that_is_read_and_split(make, tmp_path, monkeypatch, capsys)


def test_the_columns_of_a_saved_data_set_are_read_without_its_package(tmp_path):
    features = {"pixels": {"_type": "Image"}, "kind": {"_type": "ClassLabel", "names": ["a", "b"]}}
    features |= {"patient_id": {"_type": "Value", "dtype": "string"}, "age": {"_type": "Value", "dtype": "int64"}}
    put(tmp_path / "s", **{"state.json": "{}", "dataset_info.json": json.dumps({"features": features})})
    found = find_hugging_face(tmp_path / "s", {})
    roles = {"label": "kind", "image": "pixels", "patient": "patient_id", "site": None}
    assert found.source == {"name": "huggingface", "path": str(tmp_path / "s"), **roles}
    assert found.images
    assert find_hugging_face(tmp_path, {}) is None
    put(tmp_path / "s", **{"dataset_info.json": "{"})
    with pytest.raises(DataError, match="not a complete Hugging Face data set"):
        find_hugging_face(tmp_path / "s", {})


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_each_layout_gets_a_yaml_that_is_read_and_split(make, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    facts, settings, doubt = LAYOUTS[make]
    path = make(tmp_path)
    assert main(["data", "import", str(path), "--to", "data/mine.yaml", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = tuple(said[key] for key in ("source", "rows", "sites", "patients", "official_test"))
    assert found == facts
    assert settings.items() <= said["settings"]["source"].items()
    assert any(doubt in line for line in said["unsure"]) if doubt else True
    assert sum(said["counts"]) == facts[1]
    group = yaml.safe_load((tmp_path / "data/mine.yaml").read_text())
    assert group == said["settings"]
    federation = prepare(group, {"name": "iid"}, clients=2, seed=0)
    assert sum(map(len, federation.train)) + len(federation.test) == facts[1]


def test_it_says_what_it_found_and_how_to_run_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = csv_table(tmp_path)
    assert main(["data", "import", str(path)]) == 0
    out = capsys.readouterr().out
    assert "a table in text, separated by commas\nsource: tabular_csv\n60 rows of 4 float32\n" in out
    assert "not sure: target=diagnosis: by its name; 2 different values\n" in out
    assert "written: data/t.yaml\ncheck it: fedimb data check data/t.yaml\n" in out
    assert "run it:   fedimb run --config-dir . data=t\n" in out
    text = (tmp_path / "data/t.yaml").read_text()
    assert text.startswith("# A table in text, separated by commas, from")
    assert "# Not sure: drop: 'uid' has another value in every row, as an id has\n" in text
    assert main(["data", "check", "data/t.yaml"]) == 0
    assert main(["data", "describe", "--config-dir", ".", "data=t", "clients.count=2"]) == 0


def test_dates_order_the_rows_and_are_no_feature(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, t_csv="seen,age,label\n" + "".join(f"2020-01-{1 + i % 28:02d},{i},{i % 2}\n" for i in range(40)))
    assert main(["data", "import", "t.csv", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["settings"]["source"]["time_column"], said["shape"]) == ("seen", [1])
    assert "time_column=seen: it holds dates; only data.test=temporal uses it" in said["unsure"]


def test_a_yaml_is_not_replaced_unless_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = csv_table(tmp_path)
    put(tmp_path, **{"data/t.yaml": "mine"})
    assert main(["data", "import", str(path)]) == 2
    assert "data/t.yaml is there already: choose another name with --to FILE, or replace it" in capsys.readouterr().err
    assert (tmp_path / "data/t.yaml").read_text() == "mine"
    assert main(["data", "import", str(path), "--force"]) == 0
    assert (tmp_path / "data/t.yaml").read_text() != "mine"
    assert main(["data", "import", str(path), "--to", "t.txt"]) == 2


def test_points_and_commas_of_numbers_are_read_and_the_column_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{i // 2:03d};{'NS'[i // 2 % 2]};{6 + i % 3}.{i:03d},5;{i},25;{'ja' if i % 4 else 'nein'}" for i in range(40)
    ]
    put(tmp_path, t_csv="\n".join(["PatientNr;Klinik;Leukozyten;CRP;Befund", *rows]))
    assert main(["data", "import", "t.csv"]) == 0
    source = yaml.safe_load((tmp_path / "data/t.yaml").read_text())["source"]
    assert (source["decimal"], source["thousands"], source["drop"]) == (",", ".", [])
    assert (source["patient"], source["site_column"]) == ("PatientNr", "Klinik")
    said = capsys.readouterr().out
    assert "not sure: thousands=.: column 'Leukozyten' holds numbers as 7.111,5" in said
    assert "40 rows of 2 float32" in said


def test_a_table_without_a_target_is_sent_to_import(tmp_path, capsys):
    path = csv_table(tmp_path)
    assert main(["data", "check", str(path)]) == 2
    assert f"give target=COLUMN, or see what is in it with fedimb data import {path}" in capsys.readouterr().err


def test_a_file_instead_of_a_data_group_is_sent_to_import(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    csv_table(tmp_path)
    assert main(["run", "data=t.csv"]) == 2
    assert "no data 't.csv': that is a file or folder; fedimb data import t.csv" in capsys.readouterr().err


def test_settings_are_kept_and_wrong_ones_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = csv_table(tmp_path)
    assert main(["data", "import", str(path), "target=kind", "drop=[diagnosis, dose]", "--to", "data/k.yaml"]) == 0
    source = yaml.safe_load((tmp_path / "data/k.yaml").read_text())["source"]
    assert (source["target"], source["drop"]) == ("kind", ["diagnosis", "dose", "uid"])
    capsys.readouterr()
    assert main(["data", "import", str(path), "colour=red", "--force"]) == 2
    assert "source 'tabular_csv' has no setting 'colour'" in capsys.readouterr().err


def several_tables(folder):
    with sqlite3.connect(folder / "two.db") as opened:
        opened.execute("CREATE TABLE a (x INTEGER)")
        opened.execute("CREATE TABLE b (x INTEGER)")
    opened.close()
    return folder / "two.db"


def other_files(folder):
    put(folder / "odd", **{"a.xyz": "1", "b/c.xyz": "2"})
    return folder / "odd"


REFUSED = {
    other_files: "is nothing that fedimb knows. Looked for: tables (.csv, ",
    several_tables: "holds 2 tables (a, b): say what to read with query=",
    lambda folder: folder / "gone.csv": "no file or folder",
    lambda folder: put(folder, t_csv="") / "t.csv": "is empty",
    lambda folder: put(folder, t_csv=b"\x00\x01\x02") / "t.csv": "holds binary data, not text",
    lambda folder: put(folder, **{"t.json": "{}"}) / "t.json": "is not complete JSON with users",
    lambda folder: put(folder, **{"t.npz": b"PK"}) / "t.npz": "is not an .npz file",
    lambda folder: put(folder, **{"t.zip": b"PK"}) / "t.zip": "is not a readable zip file",
    lambda folder: put(folder, **{"t.db": b"no database"}) / "t.db": "holds no tables that can be read",
    lambda folder: put(folder, t_csv="a,b\n1.5,2.5\n2.5,3.5\n") / "t.csv": "no column looks like the label (a, b)",
    lambda folder: put(folder / "d", **{"train.csv": "a,y\n1,2\n", "test.csv": "a,y\n"}): "sets in files of their own",
    lambda folder: put(folder / "d", **{"a.csv": "a,y\n1,2\n", "b.csv": "b,y\n1,2\n"}): "differ in column 'a'",
}  # fmt: skip


@pytest.mark.parametrize("make", REFUSED)
def test_what_is_not_understood_is_said_in_one_line(make, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = make(tmp_path)
    assert main(["data", "import", str(path), "--to", "data/out.yaml"]) == 2
    error = capsys.readouterr().err
    assert REFUSED[make] in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (csv_table, ["model=logistic", "clients.count=3", "partition=by_column"]),
        (shards, ["model=logistic", "clients.count=3", "partition=by_column"]),
        (database, ["model=logistic", "clients.count=2"]),
        (folders, ["model=cnn4conv", "clients.count=2", "data.source.size=[32,32]"]),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_is_written_runs(make, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    assert main(["data", "import", str(make(tmp_path)), "--to", "data/mine.yaml"]) == 0
    settings = ["engine=inline", "rounds=1", "output_dir=out", "run.on_suspect=warn"]
    assert main(["run", "--config-dir", ".", "data=mine", *words, *settings]) == 0
