"""``fedimb runs``: the table, and that only what may go goes."""

import os
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.cli import cleaning, main
from fedimb.cli.facts import read_facts, shown_age, shown_bytes, size_of
from fedimb.rundir.folder import RunFolder


@pytest.fixture(autouse=True)
def temp(tmp_path, monkeypatch):
    """Engines' folders are looked for apart from this machine's."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(cleaning, "TEMP", folder)
    return folder


def ages(path, days):
    """Make a run look as if nothing had happened in it for some days."""
    then = time.time() - 86_400 * days
    folder = RunFolder(path)
    folder.write_json("status.json", folder.read_json("status.json") | {"time": then})
    for file in path.iterdir():
        os.utime(file, (then, then))


def dead_pid():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_table_names_every_run_and_row(copy, capsys):
    copy()
    copy("fedavg-s0-0badcafe", "other", status="running")
    copy("a-row-label-that-is-much-longer-than-any-terminal-has-room-for-in-a-table-s0-12345678", "other")
    assert main(["runs", "list"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) < 100
    default, other = out.split("\n\n")
    assert default.startswith("default:\n")
    first, second = default.splitlines()[2:4]
    assert first.split()[1:3] == ["finished", "fedavg"]
    assert first.split()[3:5] == ["0", "2/2"]
    assert second.split()[0] == "la_post"
    assert all(0 <= float(word) <= 1 for word in (*first.split()[5:7], *second.split()[1:3]))
    killed = next(line for line in other.splitlines() if "0badcafe" in line)
    assert killed.split()[:7] == ["fedavg-s0-0badcafe", "killed", "fedavg", "0", "2/2", "-", "-"]
    assert "-s0-12345678" in other  # a long name keeps the end that tells runs apart
    assert main(["runs", "list", "other"]) == 0
    age = re.compile(r"\d+ s ")  # they are older by now
    assert age.sub("", capsys.readouterr().out.rstrip()) == age.sub("", other.rstrip())


def test_an_unknown_study_and_no_runs(copy, capsys, home):
    assert main(["runs", "list"]) == 0
    assert "no runs below runs" in capsys.readouterr().out
    copy()
    assert main(["runs", "list", "defualt"]) == 2
    assert "Did you mean 'default'?" in capsys.readouterr().err


def test_rm_deletes_all_or_none(copy, capsys):
    one, two = copy(), copy("tau-s0-feedbeef")
    folder = RunFolder.open(two)
    folder.lock()
    try:
        assert main(["runs", "rm", one.name, "tau", "--yes"]) == 1
    finally:
        folder.unlock()
    assert f"in use by process {os.getpid()}" in capsys.readouterr().err
    assert one.exists()
    assert main(["runs", "rm", one.name, str(one), "tau", "--yes"]) == 0
    out = capsys.readouterr().out
    assert out.count("deleted ") == 2
    assert "MLflow" not in out  # these were never tracked
    assert list(one.parent.iterdir()) == []


def test_rm_says_that_mlflow_keeps_its_copy(copy, capsys):
    (copy() / "tracking.json").write_text("{}")
    assert main(["runs", "rm", "fedavg", "--yes"]) == 0
    assert "MLflow keeps its copy" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "left"), [("", 1), ("n", 1), ("y", 0)])
def test_rm_asks(copy, capsys, monkeypatch, answer, left):
    path = copy()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert main(["runs", "rm", "fedavg"]) == (1 if left else 0)
    assert len(list(path.parent.iterdir())) == left


def test_rm_deletes_nothing_where_nobody_can_answer(copy, capsys, monkeypatch):
    path = copy()
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert main(["runs", "rm", "fedavg"]) == 2
    assert "give --yes" in capsys.readouterr().err
    assert path.exists()


def test_gc_takes_old_failures_and_leftovers_and_nothing_else(copy, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    for kind, name in (("stores", "a" * 32), ("stores", "somebody-elses"), ("pictures", "b" * 32 + ".png")):
        (tmp_path / "cache" / kind).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / kind / name).write_bytes(b"x" * 1000)
    kept = {
        "finished": copy(),
        "young": copy("young-s0-00000001", status="failed"),
        "waiting": copy("waiting-s0-00000002", status="waiting"),
        "running": copy("running-s0-00000003", status="running"),
    }
    gone = {"killed": copy("killed-s0-00000004", status="running"), "failed": copy("failed-s0-5", status="failed")}
    for path in (kept["finished"], kept["waiting"], kept["running"], *gone.values()):
        ages(path, 8)
    half = kept["finished"].with_name(f".deleting-x.{dead_pid()}")
    half.mkdir()
    torn = kept["finished"] / f".result.json.{dead_pid()}.tmp"
    torn.write_bytes(b"x")
    written = kept["finished"] / f".result.json.{os.getpid()}.tmp"
    written.write_bytes(b"x")
    folder = RunFolder.open(kept["running"])
    folder.lock()
    try:
        assert main(["runs", "gc", "--yes", "--cache"]) == 0
        out = capsys.readouterr()
        assert "the cache is kept: a run uses it" in out.err
        assert [path.exists() for path in (*gone.values(), half, torn)] == [False] * 4
        assert [path.exists() for path in (*kept.values(), written)] == [True] * 5
        assert out.out.splitlines()[-1].startswith("freed ")
        for path in gone.values():
            assert str(path.name) in out.out  # said before it goes
        assert main(["runs", "gc", "--yes"]) == 0
        assert capsys.readouterr().out == "nothing to free\n"
    finally:
        folder.unlock()
    (kept["running"] / "result.json").write_text("{}")
    assert main(["runs", "gc", "--yes", "--cache", "--days", "30"]) == 0
    assert [p.name for p in sorted((tmp_path / "cache").rglob("*")) if p.is_file()] == ["somebody-elses"]


def test_gc_refuses_negative_days(home, capsys):
    assert main(["runs", "gc", "--days", "-1"]) == 2
    assert "--days" in capsys.readouterr().err


def test_an_old_engine_folder_goes_unless_a_process_names_it(home, temp):
    gone, used, young, other, named = (temp / f"fedimb-{n}" for n in ("g" * 8, "u" * 8, "y" * 8, "o" * 8, "my-notes"))
    for folder in (gone, used, young, other, named):
        (folder / "1").mkdir(parents=True)
    (other / "thesis.txt").write_text("not an engine's")
    for folder in (gone, used, other, named):
        os.utime(folder, (0, 0))
    command = [sys.executable, "-c", "print(flush=True); input()", str(used)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # a process has no command line yet while its program is being loaded
    try:
        assert main(["runs", "gc", "--yes"]) == 0
    finally:
        process.communicate(b"\n")
    assert [folder.exists() for folder in (gone, used, young, other, named)] == [False, True, True, True, True]


def test_facts_of_a_line_longer_than_what_is_read_at_the_end(copy):
    path = copy(status="failed")
    names = ", ".join(f'"test/recall/class {i}": 0.5' for i in range(5000))
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"row": "fedavg", "step": 7, "time": 0, "metrics": {' + names + "}}\n")
        file.write('{"row": "fedavg", "step": 8, "ti')
    facts = read_facts(path)
    assert (facts.done, facts.total) == (7, 7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**13))
def test_sizes_are_short_and_grow(size):
    text = shown_bytes(size)
    assert len(text) <= 9
    number, unit = text.split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert abs(float(number) * factor - size) <= 0.055 * size


def test_ages():
    assert [shown_age(s) for s in (-1, 0, 40, 120, 7200, 86_400 * 12)] == ["0 s", "0 s", "40 s", "2 min", "2 h", "12 d"]


def test_size_counts_files_and_no_links(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"123")
    assert size_of(tmp_path) == 8
