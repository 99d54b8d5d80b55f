import json
import logging
import stat

import numpy as np
import pytest

from fedimb.annotation import pages
from fedimb.annotation.items import read_map
from fedimb.annotation.tables import read_table

ROWS = np.array([9, 3, 5, 7, 1, 4])


@pytest.fixture
def store(pictures):
    return pictures()


def every(label="benign"):
    return dict.fromkeys(ROWS.tolist(), label)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_pictures_are_deleted_after_the_import_and_what_was_returned_is_kept(folder, store, oracle, answer):
    asking = oracle(folder, store)
    asking.ask(ROWS, 1)
    path = answer(folder, every())
    content = path.read_bytes()
    assert (folder / "cycle-01" / "images").exists()
    asking.collect(1)
    assert not (folder / "cycle-01" / "images").exists()
    assert path.read_bytes() == content


def test_an_interrupted_import_is_repeatable(folder, store, monkeypatch, oracle, answer):
    asking = oracle(folder, store)
    asking.ask(ROWS, 1)
    path = answer(folder, every())

    def power_cut(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(pages, "delete_pictures", power_cut)
    with pytest.raises(KeyboardInterrupt):
        asking.collect(1)
    monkeypatch.undo()
    path.unlink()  # taken over already: nobody needs the file any more
    again = oracle(folder, store)
    again.ask(ROWS, 1)  # a run resumed from before the question asks it again
    answers = again.collect(1)
    assert answers.rows.tolist() == sorted(ROWS.tolist())
    assert not (folder / "cycle-01" / "images").exists()
    assert oracle(folder, store).collect(1).labels.tolist() == answers.labels.tolist()


def test_an_import_that_breaks_before_it_is_written_loses_nothing(folder, store, monkeypatch, oracle, answer):
    asking = oracle(folder, store)
    asking.ask(ROWS, 1)
    answer(folder, every())
    monkeypatch.setattr("fedimb.annotation.worklist.imported_file", lambda folder, cycle: folder / "no" / "place.json")
    with pytest.raises(FileNotFoundError):
        asking.collect(1)
    monkeypatch.undo()
    assert (folder / "cycle-01" / "images" / "w-00001.png").exists()
    assert len(asking.collect(1).rows) == 6


def test_numbering_goes_on_over_cycles_and_answers_in_the_wrong_folder_are_told(folder, store, caplog, oracle, answer):
    asking = oracle(folder, store)
    asking.ask(np.array([3, 5]), 1)
    asking.ask(np.array([7, 9]), 2)
    assert [(i.id, i.cycle) for i in read_map(folder)] == [
        ("w-00001", 1), ("w-00002", 1), ("w-00003", 2), ("w-00004", 2),
    ]  # fmt: skip
    answer(folder, {3: "benign", 7: "benign"}, cycle=2)
    with caplog.at_level(logging.WARNING, "fedimb"):
        assert asking.collect(2) is None
    assert "this item is of cycle 1, this worklist of cycle 2" in (folder / "problems-02.txt").read_text()
    assert "1 mistakes" in caplog.text


def test_every_mistake_is_listed_with_its_line_and_keeps_the_run_waiting(folder, store, oracle):
    asking = oracle(folder, store, partial="accept")
    asking.ask(ROWS, 1)
    returned = folder / "cycle-01" / "returned"
    text = 'id;label\nw-00001;benign\nw-1;benign\nw-00002;benin\nw-00001;1-2\n;benign\nw-00003;=HYPERLINK("x")\n'
    (returned / "anna.csv").write_text(text)
    (returned / "bert.xlsx").write_bytes(b"PK\x03\x04")
    (returned / ".~lock.anna.csv#").write_text("open in a spreadsheet")
    assert asking.collect(1) is None
    problems = (folder / "problems-01.txt").read_text().splitlines()
    assert [p.split(":")[0] for p in problems] == [
        "anna.csv line 3", "anna.csv line 4 (w-00002)", "anna.csv line 6", "anna.csv line 7 (w-00003)", "bert.xlsx",
        "anna.csv line 5 (w-00001)",
    ]  # fmt: skip
    assert "unknown id 'w-1'. Did you mean 'w-00001'?" in problems[0]
    assert "Did you mean 'benign'?" in problems[1]
    assert "but anna.csv line 2 says 'benign'" in problems[5]
    assert mode(folder / "problems-01.txt") == 0o600
    (returned / "bert.xlsx").unlink()
    (returned / "anna.csv").write_text("id;label\nw-00001;benign\n")
    assert len(asking.collect(1).rows) == 1
    assert not (folder / "problems-01.txt").exists()


def test_a_partial_return_waits_or_is_accepted(folder, store, tmp_path, oracle, answer):
    waiting, accepting = oracle(folder, store), oracle(tmp_path / "other", store, partial="accept")
    for asking in (waiting, accepting):
        asking.ask(ROWS, 1)
        assert asking.collect(1) is None
        answer(asking.folder, {3: "benign", 9: "", 7: "cannot judge"})
    assert waiting.collect(1) is None
    answers = accepting.collect(1)
    assert (answers.rows.tolist(), answers.unjudged.tolist()) == ([3], [7])
    answer(waiting.folder, {9: "1-2", 5: "+ve", 1: "benign", 4: "benign"}, "bert.csv")
    assert waiting.collect(1).rows.tolist() == [1, 3, 4, 5, 9]
    answer(accepting.folder, every(), "late.csv")
    assert accepting.collect(1).rows.tolist() == [3]  # taken over once


def test_two_readers_kappa_and_adjudication(folder, store, oracle, answer):
    asking = oracle(folder, store, readers=2, separator=";")
    asking.ask(ROWS, 1)
    first = {9: "benign", 3: "+ve", 5: "1-2", 7: "benign", 1: "+ve", 4: "cannot judge"}
    answer(folder, first, "anna.csv")
    assert asking.collect(1) is None
    answer(folder, first | {7: "'+ve", 1: "cannot judge"}, "bert.csv")
    assert asking.collect(1) is None
    lines, _ = read_table(folder / "cycle-01" / "adjudication.csv", (("id",), ("label",)))
    row_of = {item.id: item.row for item in read_map(folder)}
    told = {row_of[line.cells["id"]]: (line.cells["reading 1"], line.cells["reading 2"]) for line in lines}
    assert told == {7: ("benign", "'+ve"), 1: ("'+ve", "cannot judge")}
    assert "anna" not in (folder / "cycle-01" / "adjudication.csv").read_text("utf-8-sig")
    answer(folder, {7: "benign", 1: "cannot judge"}, "adjudication.csv")
    answers = asking.collect(1)
    assert answers.rows.tolist() == [3, 5, 7, 9]
    assert answers.labels.tolist() == [1, 2, 0, 0]
    assert answers.unjudged.tolist() == [1, 4]
    facts = json.loads((folder / "imported-01.json").read_text())
    # both gave a class to 9, 3, 5, 7: agree on three of four; chance 2/4 * 1/4 + 1/4 * 2/4 + 1/4 * 1/4
    assert facts["kappa"] == pytest.approx((0.75 - 0.3125) / (1 - 0.3125))
    assert facts["readers"] == ["anna", "bert"]
