"""What makes a finished run stale, and what is done with it."""

import contextlib
import csv
import importlib
import json
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from plugged import as_new_process, write_plugin
from seals import unseal

from fedimb.cli import main
from fedimb.errors import ConfigError
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.identity import NONE_RECORDED, read_identity
from fedimb.serverapp import launch
from fedimb.study import execute
from fedimb.study.folders import collect
from fedimb.study.reuse import asked_for, summary
from fedimb.study.work import Task

WORDS = (
    "data=npz", "data.test={name: stratified, fraction: 0.3}", "model=logistic", "clients.count=2", "rounds=1",
    "local.epochs=1", "tracking=none", "evaluation.bootstrap=0", "study=s", "--workers", "0", "--no-report",
)  # fmt: skip


def write_data(path, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(90) % 3
    np.savez(path, x=(rng.normal(size=(90, 4)) + y[:, None]).astype(np.float32), y=y)


@contextlib.contextmanager
def plugged_in(home):
    with pytest.MonkeyPatch.context() as patch, as_new_process():
        patch.chdir(home)
        patch.syspath_prepend(home)
        yield


def sweep(home, *words, source="rows.npz", code=0):
    """``fedimb sweep`` in a new process, of a plug-in's method beside the plain one; returns what it said."""
    with plugged_in(home):
        said = []
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())
        logging.getLogger("fedimb").addHandler(handler)
        try:
            words = ["strategy=plain,mine", f"data.source.path={source}", *WORDS, *words]
            assert main(["sweep", *words]) == code
        finally:
            logging.getLogger("fedimb").removeHandler(handler)
    return "\n".join(said)


@pytest.fixture(scope="module")
def made(cache_dir, tmp_path_factory):
    """A working folder with a plug-in, a data file and a finished sweep."""
    home = tmp_path_factory.mktemp("made")
    write_plugin(home)
    write_data(home / "rows.npz", 0)
    assert sweep(home) == ""
    return home


@pytest.fixture
def home(made, tmp_path):
    """A copy of it elsewhere: where files lie is not part of an identity."""
    return shutil.copytree(made, tmp_path / "home")


def rows(home):
    with open(home / "runs" / "s" / "rows.csv") as file:
        return {row["label"]: row for row in csv.DictReader(file)}


def scores(home):
    return {label: row["ece"] for label, row in rows(home).items()}


def edit(home, file, old, new):
    path = home / "mine" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def afresh(home, tmp_path, **how):
    """The scores of the same sweep without earlier runs."""
    there = shutil.copytree(home, tmp_path / "afresh", ignore=shutil.ignore_patterns("runs"))
    sweep(there, **how)
    return scores(there)


CODE = [("client.py", "* self.rate", "* self.rate * 20"), ("helper.py", "lr * 0.5", "lr * 9.0")]


@pytest.mark.parametrize(("file", "old", "new"), CODE)
def test_an_edited_method_and_an_edited_helper_make_their_runs_stale_and_no_others(home, tmp_path, file, old, new):
    before = scores(home)
    edit(home, file, old, new)
    said = sweep(home)
    aside = home / "runs" / "s" / "stale"
    assert said == (
        f"reused 1 finished run; 1 is stale (mine/{file} changed) and run again; earlier runs moved to {aside}"
    )
    if file == "client.py":
        assert scores(home) == afresh(home, tmp_path)
    assert scores(home)["fedavg"] == before["fedavg"]
    assert scores(home)["mine"] != before["mine"]
    (kept,) = aside.iterdir()
    assert kept.name.startswith("mine-s0-")
    assert json.loads((kept / "stale.json").read_text()) == {"why": f"mine/{file} changed"}
    assert sweep(home) == "reused 2 finished runs"


def test_other_data_in_the_same_file_make_all_runs_stale(home, tmp_path):
    before = scores(home)
    write_data(home / "rows.npz", 1)
    assert "2 finished runs are stale (the data changed) and run again" in sweep(home)
    assert scores(home) == afresh(home, tmp_path)
    assert all(scores(home)[label] != before[label] for label in before)


@pytest.mark.slow
def test_a_process_that_did_the_earlier_run_takes_the_new_data(home, tmp_path):
    sweep(home, "--rerun")
    write_data(home / "rows.npz", 1)
    sweep(home)  # into a folder of the same name
    assert scores(home) == afresh(home, tmp_path)


def test_a_default_in_a_plug_ins_yaml_is_another_configuration(home):
    before = scores(home)
    edit(home, "configs/strategy/mine.yaml", "rate: 1.0", "rate: 30.0")
    assert sweep(home) == "reused 1 finished run"
    assert scores(home)["mine"] != before["mine"]


def test_another_version_of_torch_makes_stale(home, monkeypatch):
    now = torch.__version__
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert f"2 finished runs are stale (torch {now} -> 9.9.9)" in sweep(home)
    assert {read_identity(p.parent).versions["torch"] for p in home.glob("runs/s/*/config.json")} == {"9.9.9"}


@pytest.mark.slow
def test_another_partition_is_another_run(home):
    first = rows(home)
    assert sweep(home, "partition=dirichlet", "partition.alpha=0.3", "seed=1") == ""
    assert {row["identity"] for row in first.values()}.isdisjoint(row["identity"] for row in rows(home).values())
    assert sweep(home) == "reused 2 finished runs"
    assert rows(home) == first


def test_a_touched_and_a_renamed_file_of_equal_data_change_nothing(home):
    before = {path: path.stat().st_mtime_ns for path in home.glob("runs/s/*/result.json")}
    os.utime(home / "rows.npz", (1, 1))
    assert sweep(home) == "reused 2 finished runs"
    (home / "rows.npz").rename(home / "renamed.npz")
    assert sweep(home, source="renamed.npz") == "reused 2 finished runs"
    assert {path: path.stat().st_mtime_ns for path in home.glob("runs/s/*/result.json")} == before
    assert not (home / "runs" / "s" / "stale").exists()


def test_a_kept_stale_run_is_marked_wherever_it_is_shown(home, capsys):
    edit(home, *CODE[0])
    capsys.readouterr()
    said = sweep(home, "--keep-stale")
    assert said == "reused 1 finished run; kept 1 stale run (mine/client.py changed), marked in every table"
    assert "mine (stale)" in capsys.readouterr().out
    with plugged_in(home):
        assert main(["show", str(next(home.glob("runs/s/mine*")))]) == 0
    assert "stale: mine/client.py changed, since this run was made" in capsys.readouterr().out
    assert rows(home)["mine (stale)"]["stale"] == "mine/client.py changed"
    assert rows(home)["fedavg"]["stale"] == ""
    with plugged_in(home):
        later = collect(home / "runs" / "s")  # as `fedimb report` and `fedimb compare FOLDER` read it
    assert later.labels == ("fedavg", "mine (stale)")
    assert later.facts["stale"] == "mine: mine/client.py changed"
    edit(home, CODE[0][0], CODE[0][2], CODE[0][1])
    assert sweep(home) == "reused 2 finished runs"
    assert set(rows(home)) == {"fedavg", "mine"}


@pytest.mark.slow
def test_runs_are_repeated_when_asked_for(home):
    assert "reused 1 finished run; 1 run repeated as asked" in sweep(home, "--rerun=mine")
    assert "2 runs repeated as asked" in sweep(home, "--rerun")  # last: all rows
    assert sorted(path.name[:6] for path in (home / "runs" / "s" / "stale").iterdir()) == ["fedavg", "mine-s", "mine-s"]
    with pytest.raises(ConfigError, match=r"--rerun mein: no row 'mein'. Did you mean 'mine'\?"):
        asked_for([Task("run", "{}", "x", ("fedavg", "mine"))], "mein")


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_stale(home):
    for path in home.glob("runs/s/mine*/identity.json"):
        (unseal(path.parent) / path.name).unlink()
    assert f"1 is stale ({NONE_RECORDED}) and run again" in sweep(home)


@pytest.mark.slow
def test_a_run_whose_identity_was_edited_is_not_reused(home):
    for path in home.glob("runs/s/mine*/identity.json"):
        path.write_text(path.read_text().replace("python", "pythom"))
    assert "1 is stale" in (said := sweep(home))
    assert "identity.json was changed since it was written" in said


@pytest.mark.slow
def test_on_suspect_is_that_of_the_command_also_for_runs_that_are_reused(home):
    sweep(home, "local.lr=1e-12")
    assert sweep(home, "local.lr=1e-12", "run.on_suspect=fail", code=3) == "reused 2 finished runs"
    assert sweep(home, "local.lr=1e-12") == "reused 2 finished runs"


@pytest.mark.slow
def test_an_unfinished_stale_run_is_not_continued(home):
    (path,) = home.glob("runs/s/mine*")
    (path / "result.json").unlink()
    RunFolder(path).set_status("failed", "cut")
    edit(home, *CODE[1])
    said = sweep(home)
    assert said.startswith("reused 1 finished run; 1 unfinished run is stale (mine/helper.py changed) and begun afresh")
    assert len(list(home.glob("runs/s/stale/mine*"))) == 1


@pytest.mark.slow
def test_a_part_that_is_edited_while_data_are_prepared_is_not_what_ran(home, monkeypatch):
    shutil.rmtree(home / "runs")
    real, path = launch.prepare, home / "mine" / "client.py"
    edited = path.read_text().replace(*CODE[0][1:])

    def edited_meanwhile(*args):
        importlib.import_module("mine." + "client")  # as an engine that is kept open has

        path.write_text(edited)
        return real(*args)

    monkeypatch.setattr(launch, "prepare", edited_meanwhile)
    assert "1 run of this study is stale (mine/client.py changed, since the study was started)" in sweep(home)
    monkeypatch.undo()
    before = scores(home)["mine (stale)"]
    assert "1 is stale (mine/client.py changed) and run again" in sweep(home)
    assert scores(home)["mine"] != before


@pytest.mark.slow
def test_a_study_whose_code_changes_while_it_runs_marks_the_runs_of_the_old_code(home, monkeypatch):
    shutil.rmtree(home / "runs")
    real = execute.do_all

    def edited_after_the_second(*args):
        for number, ended in enumerate(real(*args)):
            if number == 1:
                edit(home, *CODE[0])
            yield ended

    monkeypatch.setattr(execute, "do_all", edited_after_the_second)
    said = sweep(home, "seed=0,1")  # as with --isolate, which imports the edited file for the later runs
    assert said == (
        "2 runs of this study are stale (mine/client.py changed, since the study was started), marked in every table; "
        "run the same command again to repeat them"
    )
    assert set(rows(home)) == {"fedavg", "mine (stale)"}
    monkeypatch.undo()
    assert "reused 2 finished runs; 2 are stale (mine/client.py changed) and run again" in sweep(home, "seed=0,1")
    assert set(rows(home)) == {"fedavg", "mine"}


@pytest.mark.slow
def test_without_the_data_nothing_is_moved_and_stale_runs_may_be_shown(home, capsys):
    (home / "rows.npz").unlink()
    capsys.readouterr()
    sweep(home, code=2)
    error = capsys.readouterr().err
    assert "rows.npz" in error
    assert "give the data, or use --keep-stale" in error
    assert len(list(home.glob("runs/s/*/result.json"))) == 2
    assert "kept 2 stale runs (the data cannot be read now: " in sweep(home, "--keep-stale")


def test_many_reasons_are_cut_short():
    assert summary(["a; b", "a", "c", "d", "e"]) == "a; b; c; and 2 more"


@pytest.mark.slow
def test_worker_processes_take_the_edited_code_and_record_it(home, tmp_path, warm):
    words = ["data.source.path=rows.npz", *WORDS[: WORDS.index("--workers")], "--workers", "2"]
    words += ["strategy=plain,mine", "seed=0,1", "--no-report"]

    def swept(where):
        start = f"import sys; sys.path.insert(0, {str(where)!r}); from fedimb.cli import main; sys.exit(main())"
        done = warm(where, start, "sweep", *words)
        assert done.returncode == 0, done.stderr
        return done.stderr

    swept(home)  # the runs that are there already were made beside the modules of these tests, which count
    assert "reused 4 finished runs" in swept(home)
    edit(home, *CODE[1])
    assert "reused 2 finished runs; 2 are stale (mine/helper.py changed) and run again" in swept(home)
    there = shutil.copytree(home, tmp_path / "afresh", ignore=shutil.ignore_patterns("runs"))
    swept(there)
    assert scores(home) == scores(there)
    assert "reused 4 finished runs" in swept(home)
