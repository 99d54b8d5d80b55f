"""Every registered source keeps to its contract, on small files made here."""

import json
import sqlite3
import wave

import numpy as np
import pytest
from tiny_images import two_classes

from fedimb import registry
from fedimb.testing import check_source


def npz(folder):
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", x=rng.normal(size=(40, 5)).astype(np.float32), y=np.arange(40) % 3)
    return {"path": str(folder / "data.npz")}


def embeddings_npz(folder):
    rng = np.random.default_rng(0)
    columns = {"sites": np.arange(40) % 2, "site_names": np.array(["north", "south"]), "test": np.arange(40) < 8}
    x = rng.normal(size=(40, 5)).astype(np.float32)
    np.savez(folder / "rows.npz", x=x, y=np.arange(40) % 3, class_names=np.array(["a", "b", "c"]), **columns)
    return {"path": str(folder / "rows.npz")}


def signals_npz(folder):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2, 16)).astype(np.float32)
    columns = {"patients": np.arange(40) // 4, "test": np.arange(40) < 8, "rate_hz": 50.0, "channels": ["a", "b"]}
    np.savez(folder / "signals.npz", x=x, y=np.arange(40) % 3, origins=8 * np.arange(40), **columns)
    return {"path": str(folder / "signals.npz")}


def recordings(folder):
    for name in "abcd":
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setparams((2, 2, 100, 0, "NONE", ""))
            file.writeframes(np.random.default_rng(ord(name)).integers(-999, 999, 800).astype("<i2").tobytes())
    (folder / "list.csv").write_text("file,label,test\na.wav,x,0\nb.wav,y,0\nc.wav,x,1\nd.wav,y,1\n")
    return {"path": str(folder / "list.csv"), "window_s": 0.5, "hop_s": 0.25}


def tabular_csv(folder):
    rng = np.random.default_rng(0)
    rows = enumerate(rng.normal(size=(40, 2)))
    lines = ["age,dose,label"] + [f"{a:.2f},{b:.2f},{'well' if i % 3 else 'ill'}" for i, (a, b) in rows]
    lines[5] = ",1.0,ill"  # a missing value: imputed by the training rows' mean
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return {"files": [str(folder / "table.csv")], "target": "label"}


def image_folder(folder):
    return {"path": str(two_classes(folder / "images"))}


def image_csv(folder):
    two_classes(folder / "im")
    (folder / "im" / "list.csv").write_text("path,label\ncat/0.png,cat\ncat/1.png,cat\ndog/0.png,dog\ndog/1.png,dog\n")
    return {"path": str(folder / "im" / "list.csv")}


def sql(folder):
    with sqlite3.connect(folder / "t.db") as database:
        database.execute("CREATE TABLE t (age REAL, kind TEXT, site INTEGER, label INTEGER)")
        rows = [(i / 3 if i % 4 else None, "ab"[i % 2], i % 3, i % 2) for i in range(40)]
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
    database.close()
    settings = {"target": "label", "categorical": ["kind"], "site_column": "site"}
    return {"url": f"sqlite:///{folder / 't.db'}", "query": "SELECT * FROM t"} | settings


def shards(folder):
    rng = np.random.default_rng(0)
    for name, rows in (("train", 12), ("test", 4)):
        (folder / name).mkdir()
        for k in range(3):
            held = {"x": rng.normal(size=(rows, 1, 4, 4)).astype(np.float32), "y": np.arange(rows) % 2}
            np.savez(folder / name / f"{k}.npz", data=held)
    return {"path": str(folder)}


def leaf_json(folder):
    rng = np.random.default_rng(0)
    for name, rows in (("train", 12), ("test", 4)):
        (folder / name).mkdir()
        users = {f"u{k}": {"x": rng.random((rows, 4)).tolist(), "y": [i % 2 for i in range(rows)]} for k in range(3)}
        content = {"users": list(users), "num_samples": [rows] * 3, "user_data": users}
        (folder / name / "all.json").write_text(json.dumps(content))
    return {"path": str(folder), "shape": [1, 2, 2]}


MADE = {
    "npz": npz,
    "embeddings_npz": embeddings_npz,
    "signals_npz": signals_npz,
    "recordings": recordings,
    "tabular_csv": tabular_csv,
    "image_folder": image_folder,
    "image_csv": image_csv,
    "sql": sql,
    "shards": shards,
    "leaf_json": leaf_json,
}
ELSEWHERE = {"dicom", "huggingface"}  # libraries and files of their own: their tests call check_source where these are


@pytest.mark.parametrize("name", [name for name in registry.names("source") if name not in ELSEWHERE])
def test_the_contract(name, tmp_path):
    check_source(name, **(MADE[name](tmp_path) if name in MADE else {}))


def test_a_configuration_may_stand_for_a_name(tmp_path):
    check_source({"name": "npz", **npz(tmp_path)})
