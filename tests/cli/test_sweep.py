"""``fedimb sweep``: combinations, the table, what did not finish, Ctrl-C."""

import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warm import CLI

from fedimb.cli import main

WORDS = [
    "data.n_max=60",
    "clients.count=3",
    "rounds=2",
    "local.epochs=1",
    "tracking=none",
    "evaluation.bootstrap=0",
    "study=s",
]
QUICK = ["--workers", "0", "--no-report"]


def rows(home):
    return list(csv.DictReader((home / "runs" / "s" / "rows.csv").read_text().splitlines()))


def test_every_combination_is_run_and_shown_in_the_order_given(home, capsys):
    assert main(["sweep", "loss=ce,focal", "seed=0,1", *WORDS, *QUICK]) == 0
    out = capsys.readouterr().out
    assert [(row["label"], row["seed"], row["status"]) for row in rows(home)] == [
        (label, seed, "finished") for label in ("fedavg", "focal") for seed in "01"
    ]
    assert "against fedavg" in out
    assert "wrote    runs/s/rows.csv" in out
    before = {p: p.stat().st_mtime_ns for p in (home / "runs").rglob("result.json")}
    assert main(["sweep", "loss=ce,focal", "seed=0,1,2", *WORDS, *QUICK]) == 0
    after = {p: p.stat().st_mtime_ns for p in (home / "runs").rglob("result.json")}
    assert before.items() < after.items()
    assert (len(before), len(after)) == (4, 6)


def test_a_diverged_run_has_its_place_in_table_and_csv_the_first_time_too(home, capsys):
    for _ in range(2):
        assert main(["sweep", "local.lr=1e38,0.4", *WORDS, *QUICK]) == 0
        taken = capsys.readouterr()
        assert [(row["label"], row["status"]) for row in rows(home)] == [
            ("fedavg local.lr=1e+38", "diverged"),
            ("fedavg local.lr=0.4", "finished"),
        ]
        assert "fedavg local.lr=1e+38: 1 diverged (seed 0)" in taken.out
        assert "diverged: local.lr=1e38: " in taken.err


def test_when_nothing_finished_it_says_so(home, capsys):
    assert main(["sweep", "data.n_max=9000,9001", *WORDS[1:], *QUICK]) == 1
    err = capsys.readouterr().err
    assert "none of 2 runs finished; the first: failed: data.n_max=9000: class " in err


def test_a_dry_run_lists_the_runs_and_does_none(home, capsys):
    assert main(["sweep", "loss=ce,focal", "seed=0,1", *WORDS, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "4 runs, to runs/s:",
        "  loss=ce seed=0",
        "  loss=ce seed=1",
        "  loss=focal seed=0",
        "  loss=focal seed=1",
    ]
    assert not (home / "runs").exists()


@pytest.mark.parametrize("words", [["seed=0,0"], ["loss=ce,focall"], ["los=ce"], ["seed=0,1", "--workers", "-2"]])
def test_what_cannot_be_is_one_line_and_exit_code_2(home, capsys, words):
    assert main(["sweep", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("fedimb: ")
    assert err.count("\n") == 1
    assert not (home / "runs").exists()


def in_session(leader: int) -> list[int]:
    """Processes of a session that are not yet gone."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # gone meanwhile
            continue
        if int(session) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the table of processes")
def test_ctrl_c_leaves_no_process_and_the_same_command_goes_on(home, cache_dir):
    words = ["sweep", "seed=0,1,2", *WORDS, "rounds=300", "local.epochs=5", "--workers", "2", "--no-report"]

    def start(where):
        where.mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", CLI, *words],
            cwd=where,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def models(where):
        found = sorted(where.glob("runs/s/*/artifacts/model/model.safetensors"))
        return {path.parts[-4]: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    cut = start(home / "cut")
    assert until(lambda: len(list((home / "cut").glob("runs/s/*/checkpoint.safetensors"))) == 2, 90)
    assert len(in_session(cut.pid)) >= 3
    os.killpg(cut.pid, signal.SIGINT)
    _, err = cut.communicate(timeout=60)
    assert cut.returncode == 130
    assert "run the same command again to continue" in err
    assert "Traceback" not in err
    assert until(lambda: not in_session(cut.pid), 10)
    begun = {path.parent.name for path in (home / "cut").glob("runs/s/*/checkpoint.safetensors")}

    again, whole = start(home / "cut"), start(home / "whole")
    for process in (again, whole):
        _, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
    assert models(home / "cut") == models(home / "whole")
    assert len(models(home / "cut")) == 3
    assert begun <= set(models(home / "cut"))


@pytest.mark.parametrize(("more", "code"), [([], 0), (["run.on_suspect=fail"], 3)])
def test_a_run_that_did_not_learn_is_marked_and_refused_if_asked(home, capsys, more, code):
    assert main(["sweep", "local.lr=1e-30,0.4", *WORDS, *QUICK, *more]) == code
    out, err = capsys.readouterr()
    still, fine = rows(home)
    assert "moved the weights" in still["suspect"]
    assert (still["status"], fine["suspect"]) == ("finished", "")
    assert "? suspect, fedavg local.lr=1e-30: 1 of 1 runs (seed 0): no round of 2 moved the weights" in out
    assert err.count("suspect: fedavg local.lr=1e-30, default, seed 0: ") == (code == 3)
    assert main(["runs", "list"]) == 0
    listed = capsys.readouterr().out
    assert listed.count(" suspect ") == listed.count(" fedavg ?") == 1
