import json
import stat

import numpy as np
import pytest

from fedimb.annotation import pages
from fedimb.annotation.items import MAP, read_map
from fedimb.annotation.settings import WorklistSettings
from fedimb.annotation.tables import read_table
from fedimb.annotation.worklist import WorklistOracle
from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.errors import ConfigError, DataError

ROWS = np.array([9, 3, 5, 7, 1, 4])


@pytest.fixture
def store(pictures):
    return pictures()


def every(label="benign"):
    return dict.fromkeys(ROWS.tolist(), label)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_asked_lies_in_a_folder_and_the_answers_come_back(folder, store, oracle, answer):
    asking = oracle(folder, store)
    asking.ask(ROWS, 1)
    assert asking.collect(1) is None
    labels = {9: "benign", 3: "'+ve", 5: "c-02", 7: "1-2", 1: "cannot judge", 4: "BENIGN"}
    answer(folder, labels)
    answers = oracle(folder, store).collect(1)
    assert answers.rows.tolist() == [3, 4, 5, 7, 9]
    assert answers.labels.tolist() == [1, 0, 2, 2, 0]
    assert answers.unjudged.tolist() == [1]
    assert answers.rows.dtype == answers.labels.dtype == answers.unjudged.dtype == np.int64


def test_what_readers_get_names_no_row_and_no_class_of_a_row(folder, store, oracle):
    oracle(folder, store).ask(ROWS, 1)
    given = folder / "cycle-01"
    assert sorted(p.name for p in given.iterdir()) == [
        "README.txt", "images", "label-studio-interface.xml", "label-studio.json", "returned", "tasks.csv",
    ]  # fmt: skip
    lines, _ = read_table(given / "tasks.csv", (("id",), ("label",)))
    assert [line.cells["id"] for line in lines] == [f"w-{i:05d}" for i in range(1, 7)]
    assert {line.cells["label"] for line in lines} == {""}
    assert set(lines[0].cells) == {"id", "image", "label", "comment"}
    assert sorted(p.name for p in (given / "images").iterdir()) == [f"w-{i:05d}.png" for i in range(1, 7)]
    assert [item.row for item in read_map(folder)] != ROWS.tolist()  # shuffled: the source's order would tell
    assert sorted(item.row for item in read_map(folder)) == sorted(ROWS.tolist())
    assert len((given / "README.txt").read_text().splitlines()) == 5
    assert "benign (c-00), +ve (c-01), 1-2 (c-02), cannot judge" in (given / "README.txt").read_text()
    tasks = json.loads((given / "label-studio.json").read_text())
    assert tasks[0] == {"data": {"item": "w-00001", "image": "/data/local-files/?d=images/w-00001.png"}}


def test_accession_numbers_are_in_the_map_alone(folder, pictures):
    store = pictures(patients=np.arange(12) + 500)
    asking = WorklistOracle(folder, store, WorklistSettings(), 7, accessions={3: "=ACC-3", 5: "ACC-5"})
    asking.ask(ROWS, 1)
    of_row = {item.row: item for item in read_map(folder)}
    assert of_row[3].accession == "=ACC-3"
    assert "'=ACC-3" in (folder / MAP).read_text("utf-8-sig")
    assert (of_row[9].accession, of_row[9].patient) == ("", 509)
    for path in (folder / "cycle-01").rglob("*"):
        assert path.is_dir() or b"ACC-" not in path.read_bytes()


def test_files_are_private(folder, store, oracle, answer):
    asking = oracle(folder, store)
    asking.ask(ROWS, 1)
    answer(folder, every()).chmod(0o644)
    for path in folder.rglob("*"):
        assert path.parent.name == "returned" or mode(path) == (0o700 if path.is_dir() else 0o600), path
    asking.collect(1)
    assert mode(folder / "imported-01.json") == 0o600


def test_a_question_interrupted_half_way_is_asked_again_with_the_same_ids(folder, store, monkeypatch, oracle, answer):
    real, written = pages.write_private, []

    def dies_at_the_third(path, data):
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(pages, "write_private", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        oracle(folder, store).ask(ROWS, 1)
    monkeypatch.undo()
    before = read_map(folder)
    assert not (folder / "cycle-01").exists()
    asking = oracle(folder, store)
    asking.ask(ROWS, 1)
    assert read_map(folder) == before
    assert len(list((folder / "cycle-01" / "images").iterdir())) == 6
    answer(folder, every())
    assert len(asking.collect(1).rows) == 6


def test_asking_again_leaves_a_readers_work_alone(folder, store, oracle):
    oracle(folder, store).ask(ROWS, 1)
    tasks = folder / "cycle-01" / "tasks.csv"
    tasks.write_text("half filled in")
    oracle(folder, store).ask(ROWS[::-1], 1)
    assert tasks.read_text() == "half filled in"


def test_other_rows_in_a_cycle_asked_before_are_refused(folder, store, oracle):
    oracle(folder, store).ask(ROWS, 1)
    with pytest.raises(DataError, match="belongs to another run"):
        oracle(folder, store).ask(ROWS[:3], 1)


def test_at_most_n_per_patient_those_wanted_most(folder, oracle, answer, pictures):
    patients = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    store = pictures(patients=patients)
    asking = oracle(folder, store, per_patient=2)
    asking.ask(ROWS, 1)  # 9, 3, 5, 7, 1 are of patient 1, 4 of patient 0
    assert sorted(item.row for item in read_map(folder)) == [3, 4, 9]
    asking.ask(ROWS, 1)
    answer(folder, every())
    assert asking.collect(1).rows.tolist() == [3, 4, 9]


def test_a_cap_per_patient_needs_patients(folder, store, oracle):
    with pytest.raises(DataError, match="these data name no patients"):
        oracle(folder, store, per_patient=2)


def test_predictions_are_shown_only_if_told_to(folder, store, tmp_path, oracle):
    told = np.array([1, 1, 1, 1, 1, 1])
    for place, show in ((folder, False), (tmp_path / "told", True)):
        oracle(place, store, show_prediction=show).ask(ROWS, 1, told)
        tasks = (place / "cycle-01" / "tasks.csv").read_text("utf-8-sig")
        exported = (place / "cycle-01" / "label-studio.json").read_text()
        assert ("prediction" in tasks, "'+ve" in tasks, "predictions" in exported) == (show, show, show)


def test_rows_of_a_table_are_columns(folder, tmp_path, oracle):
    x = np.array([[1.5, -2], [np.nan, 3], [0.1, 1e-7]], np.float32)
    store = Store.build(
        SourceData(x, np.array([0, 1, 1]), ("a", "b"), scaled=np.array([True, False])), tmp_path / "s", "f"
    )
    for separator, decimal in ((",", "."), (";", ",")):
        place = tmp_path / f"site{ord(separator)}"
        oracle(place, store, separator=separator).ask(np.array([0, 1, 2]), 1)
        lines, problems = read_table(place / "cycle-01" / "tasks.csv", (("id",), ("label",)))
        row_of = {item.id: item.row for item in read_map(place)}
        shown = {row_of[line.cells["id"]]: (line.cells["x1"], line.cells["x2"]) for line in lines}
        assert shown == {0: (f"1{decimal}5", "-2"), 1: ("", "3"), 2: (f"0{decimal}1", "1e-07")}
        assert problems == []
        assert not (place / "cycle-01" / "images").exists()
        texts = json.dumps(json.loads((place / "cycle-01" / "label-studio.json").read_text()))
        assert f"x1 = 1{decimal}5; x2 = -2" in texts
        assert "x1 = missing; x2 = 3" in texts


def test_rows_that_cannot_be_shown_are_refused(folder, tmp_path, monkeypatch, oracle, pictures):
    signals = Store.build(
        SourceData(np.zeros((2, 1, 9), np.float32), np.array([0, 1]), ("a", "b")), tmp_path / "s", "f"
    )
    with pytest.raises(DataError, match=r"not rows of shape \[1, 9\]"):
        oracle(folder, signals)
    monkeypatch.setattr("fedimb.annotation.thumbnails.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install 'pillow"):
        oracle(folder, pictures())


def test_no_rows_no_folder_and_no_waiting(folder, store, oracle):
    asking = oracle(folder, store)
    asking.ask(ROWS[:0], 1)
    asking.ask(ROWS[:0], 1)
    answers = asking.collect(1)
    assert (len(answers.rows), len(answers.unjudged)) == (0, 0)
    assert not (folder / "cycle-01").exists()


def test_a_cycle_nobody_asked_in_and_a_damaged_map_are_told(folder, store, oracle):
    asking = oracle(folder, store)
    with pytest.raises(DataError, match="no rows were asked for in cycle 1"):
        asking.collect(1)
    asking.ask(ROWS, 1)
    (folder / MAP).write_text((folder / MAP).read_text("utf-8-sig").replace("w-00002", "w-00001"))
    with pytest.raises(DataError, match="an id occurs twice"):
        asking.collect(1)


def test_true_labels_cannot_be_peeked_at(folder, store, oracle):
    with pytest.raises(ConfigError, match="simulated"):
        oracle(folder, store).peek(ROWS)
