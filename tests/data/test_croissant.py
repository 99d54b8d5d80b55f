"""Croissant metadata: mlcroissant loads it without errors, its checksums are the files', and no person is in it."""

import hashlib
import json

import numpy as np
import pytest

from fedimb.data import croissant as module
from fedimb.data.croissant import croissant
from fedimb.data.prepare import prepare
from fedimb.errors import ConfigError

ABOUT = {"source": "a clinic", "licence": "CC BY 4.0", "citation": "Doe 2024", "split": "none", "flaws": "few"}


@pytest.fixture
def loaded(tmp_path):
    """Write the metadata of a data group's federation beside its files, and load it with mlcroissant."""
    mlc = pytest.importorskip("mlcroissant")

    def load(group, about=ABOUT):
        federation = prepare(group, {"name": "iid"}, clients=2, seed=0)
        document = croissant(federation, "set", about, group["source"], "ab" * 32)
        (tmp_path / "set.json").write_text(json.dumps(document))
        found = mlc.Dataset(tmp_path / "set.json")
        assert not found.metadata.ctx.issues.errors
        return found, json.dumps(document), federation

    return load


def records(dataset, name):
    return [
        {key.split("/")[1]: value.decode() if isinstance(value, bytes) else value for key, value in record.items()}
        for record in dataset.records(name)
    ]


def test_a_table_is_described_and_its_rows_can_be_read(loaded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{i},{'AB'[i % 2]},{'ill' if i % 4 == 0 else 'well'},person-{i // 2}" for i in range(40)]
    text = "\n".join(["age,ward,dx,who", *rows]) + "\n"
    (tmp_path / "table.csv").write_text(text)
    source = {"name": "tabular_csv", "files": ["table.csv"], "target": "dx", "categorical": ["ward"], "patient": "who"}
    found, document, federation = loaded({"source": source, "test": {"name": "stratified", "fraction": 0.25}})
    (file,) = found.metadata.distribution
    assert file.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert found.metadata.license == ["CC BY 4.0"]
    assert [row["dx"] for row in records(found, "rows")] == ["ill", "well", "well", "well"] * 10
    assert records(found, "classes") == [{"id": 0, "name": "ill"}, {"id": 1, "name": "well"}]
    part = records(found, "partition")
    assert sum(row["rows"] for row in part if row["holder"] == "test") == len(federation.test)
    assert sum(row["rows"] for row in part) == 40
    sums = {row["of"]: row["sha256"] for row in records(found, "checksums")}
    assert sums == {"content": federation.content_sha, "partition": "ab" * 32}
    assert "person-" not in document
    assert "who" not in [field.name for set_ in found.metadata.record_sets for field in set_.fields]
    assert str(tmp_path) not in document


def test_names_with_blanks_and_signs_are_kept(loaded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{i},{i % 7},{i % 3},class {'AB'[i % 2]}" for i in range(40)]
    (tmp_path / "my table.csv").write_text("\n".join(["age (y),age [y],\u00fc/%,dx", *rows]) + "\n")
    source = {"name": "tabular_csv", "files": ["my table.csv"], "target": "dx"}
    found, _, _ = loaded({"source": source, "test": {"name": "stratified", "fraction": 0.25}})
    (first,) = (set_ for set_ in found.metadata.record_sets if set_.name == "rows")
    assert [field.name for field in first.fields] == ["age (y)", "age [y]", "\u00fc/%", "dx"]
    assert len(list(found.records("rows"))) == 40


def test_absolute_paths_are_shown_by_name_alone(loaded, tmp_path):
    np.savez(tmp_path / "set.npz", x=np.sin(np.arange(80, dtype=np.float32)).reshape(40, 2), y=np.arange(40) % 2)
    source = {"name": "npz", "path": str(tmp_path / "set.npz")}
    found, document, _ = loaded({"source": source, "test": {"name": "balanced", "per_class": 5}}, {})
    assert [file.content_url for file in found.metadata.distribution] == ["set.npz"]
    assert str(tmp_path) not in document
    assert tmp_path.name not in document
    assert {row["field"] for row in records(found, "fields")} == {"x", "label"}


def test_files_of_one_name_in_two_folders_are_both_there(loaded, tmp_path):
    for site in "ab":
        (tmp_path / site).mkdir()
        (tmp_path / site / "t.csv").write_text("age,dx\n" + "".join(f"{i},{site}{i % 2}\n" for i in range(20)))
    files = {site: str(tmp_path / site / "t.csv") for site in "ab"}
    found, _, _ = loaded({"source": {"name": "tabular_csv", "files": files, "target": "dx"}, "test": {"name": "none"}})
    assert len({file.sha256 for file in found.metadata.distribution}) == 2


def test_bundled_data_have_no_files(loaded, digits):
    found, _, federation = loaded(digits)
    assert found.metadata.distribution == []
    said = "1,797 rows of 1 x 8 x 8 (uint8), read as 'digits'. Classes: 0 178, 1 182"
    assert found.metadata.description.startswith(said)
    assert len(records(found, "classes")) == federation.n_classes


def test_a_folder_is_a_set_of_files(loaded, tmp_path, monkeypatch):
    pil = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    for c in "ab":
        (tmp_path / "pictures" / c).mkdir(parents=True)
        for i in range(4):
            pil.fromarray(np.full((4, 4), 10 * i, np.uint8)).save(tmp_path / "pictures" / c / f"patient-{i}.png")
    source = {"name": "image_folder", "path": "pictures"}
    found, document, _ = loaded({"source": source, "test": {"name": "stratified", "fraction": 0.25}})
    assert [entry.includes for entry in found.metadata.distribution] == [["pictures/**/*"]]
    assert "patient-" not in document


def test_without_mlcroissant_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlcroissant", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedimb\[croissant\]'"):
        module._load_mlcroissant()
