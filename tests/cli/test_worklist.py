"""``fedimb worklist``: how far readers are, and mistakes in what they sent."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics  # noqa: F401  (kappa's library: a second to import, which is no test's own)

from fedimb.annotation.items import MAP, read_map
from fedimb.annotation.settings import WorklistSettings
from fedimb.annotation.worklist import WorklistOracle
from fedimb.cli.main import main
from fedimb.data.arrays import SourceData
from fedimb.data.store import Store


@pytest.fixture
def asked(home):
    """Makes a worklist of four rows below ``sites/`` and returns (oracle, folder)."""

    def make(client="client-000", **settings):
        x, patients = np.eye(4, dtype=np.float32), np.zeros(4, np.int64)
        source = SourceData(x, np.arange(4) % 2, ("benign", "malignant"), patients=patients)
        store = Store.build(source, home / "store", "f")
        folder = home / "sites" / client / "worklists" / "s0-abcdef01"
        oracle = WorklistOracle(folder, store, WorklistSettings(**settings), 0)
        oracle.ask(np.arange(4), 1)
        return oracle, folder

    return make


def returned(folder, text, name="anna.csv"):
    path = folder / "cycle-01" / "returned" / name
    path.write_text(text)
    return path


def line(output, start):
    return next(row.split() for row in output.splitlines() if row.split()[:1] == [start])


def test_status_tells_how_far_readers_are(asked, capsys):
    oracle, folder = asked()
    assert main(["worklist", "status"]) == 0
    assert line(capsys.readouterr().out, "1") == ["1", "4", "0", "0", "4", "0", "-", "waiting"]
    returned(folder, "id;label\nw-00001;benign\nw-00002;cannot judge\n")
    main(["worklist", "status", "sites/client-000"])
    assert line(capsys.readouterr().out, "1") == ["1", "4", "1", "1", "2", "0", "-", "partly"]
    returned(folder, "id;label\nw-00003;benign\nw-00004;malignant\n", "bert.csv")
    main(["worklist", "status"])
    assert line(capsys.readouterr().out, "1")[-1] == "ready"
    oracle.collect(1)
    main(["worklist", "status"])
    assert line(capsys.readouterr().out, "1") == ["1", "4", "3", "1", "0", "0", "-", "imported"]


def test_status_lists_mistakes_and_changes_nothing(asked, capsys):
    _, folder = asked()
    returned(folder, "id;label\nw-00001;bening\x1b[31m\n")
    before = sorted(p.name for p in folder.rglob("*"))
    assert main(["worklist", "status"]) == 0
    out = capsys.readouterr().out
    assert line(out, "1")[-1] == "mistakes"
    assert "anna.csv line 2 (w-00001): 'bening?[31m' is not a class" in out
    assert sorted(p.name for p in folder.rglob("*")) == before


def test_status_of_two_readers_shows_kappa_and_what_to_decide(asked, capsys):
    oracle, folder = asked(readers=2)
    rows = [f"w-0000{i}" for i in range(1, 5)]
    for name, codes in (("anna", "0011"), ("bert", "0111")):
        lines = [f"{row},c-0{code}" for row, code in zip(rows, codes, strict=True)]
        returned(folder, "\n".join(["id,label", *lines]), f"{name}.csv")
    assert oracle.collect(1) is None
    main(["worklist", "status"])
    out = capsys.readouterr().out
    # observed 3/4; by chance 2/4 * 1/4 + 2/4 * 3/4 = 1/2
    assert line(out, "1") == ["1", "4", "3", "0", "0", "1", "0.50", "to", "adjudicate"]
    assert "fill in cycle-01/adjudication.csv" in out
    returned(folder, "id,label\nw-00002,benign\n", "adjudication.csv")
    main(["worklist", "status"])
    assert line(capsys.readouterr().out, "1")[-1] == "ready"


def test_status_tells_what_the_cap_per_patient_left_out(asked, capsys):
    asked(per_patient=1)
    main(["worklist", "status"])
    assert "cycle 1: 3 rows left out" in capsys.readouterr().out


def test_status_of_several_sites_none_and_a_folder_that_is_not_there(asked, home, capsys, monkeypatch):
    asked("client-000")
    asked("client-001")
    main(["worklist", "status"])
    assert capsys.readouterr().out.count("waiting") == 2
    monkeypatch.setenv("FEDIMB_SITE_DIR", str(home / "sites" / "client-001"))
    main(["worklist", "status"])
    assert capsys.readouterr().out.count("waiting") == 1
    (home / "empty").mkdir()
    assert main(["worklist", "status", "empty"]) == 0
    assert "no worklists below empty" in capsys.readouterr().out
    assert main(["worklist", "status", "nowhere"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_check_prints_every_mistake_with_its_line(asked, capsys):
    _, folder = asked()
    path = returned(folder, "id;label\nw-00001;benign\nw-9;benign\nw-00002;\nw-00001;malignant\n")
    assert main(["worklist", "check", str(path)]) == 2
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("anna.csv line 3: unknown id 'w-9'")
    assert out[1].startswith("anna.csv line 5 (w-00001): 'malignant', but anna.csv line 2 says 'benign'")
    assert out[2] == "mistakes: 2; nothing is imported until all are fixed"


def test_check_counts_what_is_answered(asked, capsys, monkeypatch):
    _, folder = asked()
    path = returned(folder, "id;label\nw-00001;benign\nw-00003;c-01\nw-00002;\n")
    monkeypatch.chdir(path.parent)
    assert main(["worklist", "check", "anna.csv"]) == 0
    assert capsys.readouterr().out == "no mistakes; 2 of 4 items answered\n"


def test_check_of_a_file_elsewhere_needs_to_know_its_worklist(asked, home, capsys):
    _, folder = asked()
    path = home / "mail.json"
    path.write_text(json.dumps([{"item": "w-00001", "label": "benign"}]))
    assert main(["worklist", "check", str(path)]) == 2
    assert "--worklist" in capsys.readouterr().err
    assert main(["worklist", "check", str(path), "--worklist", str(folder / "cycle-01")]) == 0
    assert "1 of 4" in capsys.readouterr().out
    assert main(["worklist", "check", str(home / "none.csv")]) == 2
    assert "is not a file" in capsys.readouterr().err
    returned(folder, "", "empty.csv")
    assert main(["worklist", "check", str(folder / "cycle-01" / "returned" / "empty.csv")]) == 2
    assert "empty.csv line 1: the file is empty" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "content"), [("worklist.json", "{"), ("worklist.json", "{}"), (MAP, "id\n")])
def test_damaged_files_are_told(asked, capsys, name, content):
    _, folder = asked()
    (folder / name).write_text(content)
    assert main(["worklist", "status"]) == 2
    assert name in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_asks_people_ends_as_one_whose_labels_are_revealed(home, capsys, cache_dir):
    from small_runs import weights_sha

    from fedimb.data.federation import Federation
    from fedimb.serverapp.launch import resume

    words = ["strategy=active", "strategy.active.cycles=2", "strategy.active.budget=9", "rounds=2", "clients.count=2"]
    words += ["data.n_max=60", "engine=inline", "tracking=none", "evaluation.bootstrap=0"]
    assert main(["run", *words, "study=told"]) == 0
    assert main(["run", *words, "study=asked", "strategy.active.oracle={name: worklist}"]) == 75
    (folder,) = (home / "runs" / "asked").iterdir()
    store = Federation.load(folder).store
    for cycle in (1, 2):
        assert json.loads((folder / "status.json").read_text())["status"] == "waiting"
        assert main(["run", "--resume", str(folder)]) == 75  # nothing came back: it waits on
        for own in sorted((home / "sites").glob("client-*/worklists/*")):
            items = [item for item in read_map(own) if item.cycle == cycle]
            assert len(items) == 9
            text = "\r\n".join(["id;label", *(f"{i.id};{store.class_names[store.y[i.row]]}" for i in items)])
            (own / f"cycle-{cycle:02d}" / "returned" / "anna.csv").write_text(text)
        if cycle == 1:
            assert main(["run", "--resume", str(folder)]) == 75
    asked = resume(folder)
    (told,) = (home / "runs" / "told").iterdir()
    assert weights_sha(asked) == weights_sha(SimpleNamespace(folder=told))
    assert not list((home / "sites").glob("**/images"))
