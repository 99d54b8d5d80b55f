"""The verb: what it lists, what it refuses, what is left when it is interrupted. Nothing is measured here."""

import pytest

from fedimb.bench import bench as bench_module
from fedimb.bench.measurement import Measurement
from fedimb.cli import main
from fedimb.errors import RunFailed


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """An empty working folder and no folder of data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDIMB_DATA_DIR", raising=False)
    return tmp_path


def measured(case, mode, words, engine, repeat, rounds, workers):
    return Measurement(case, engine, repeat, 1.0, (0.5,) * (rounds - 2), 10.0, 2.0, 100.0, 50.0, 0.8)


def test_list_names_cases_engines_and_limits(nowhere, capsys):
    assert main(["bench", "--list"]) == 0
    out = capsys.readouterr().out
    for word in ("noop", "table", "digits", "cifar", "scale", "sweep", "bare-w", "stock / ray: at least 8"):
        assert word in out
    assert "cannot be measured here: no cifar10.zip in the current folder or in FEDIMB_DATA_DIR (not set)" in out
    assert list(nowhere.iterdir()) == []
    assert main(["bench", "sweep", "--list"]) == 0
    assert "noop  " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tabel"], "no case 'tabel'. Did you mean 'table'?"),
        (["--engines", "inline,flower"], "no engine 'flower'."),
        (["noop", "--rounds", "2"], "--rounds 2: give at least 3"),
        (["noop", "--repeat", "0"], "--repeat 0: give at least 1"),
        (["cifar"], "nothing to measure: cifar: no cifar10.zip in the current folder"),
        (["sweep", "--engines", "bare"], "none of these cases has engine bare"),
    ],
)
def test_what_cannot_be_measured_is_one_line(nowhere, capsys, words, line):
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedimb: ")
    assert line in error
    assert error.count("\n") == 1
    assert list(nowhere.iterdir()) == []


def test_engines_take_turns_and_a_case_without_its_data_is_left_out(nowhere, capsys, monkeypatch):
    calls = []

    def noted(*args):
        calls.append((args[0], args[1], args[3], args[4], args[5]))
        return measured(*args)

    monkeypatch.setattr(bench_module, "measure", noted)
    words = ["digits", "cifar", "--engines", "inline,bare", "--repeat", "2", "--rounds", "4", "--to", "out"]
    assert main(["bench", *words]) == 0
    turns = [("digits", "run", engine, repeat, 4) for repeat in (1, 2) for engine in ("inline", "bare")]
    assert calls == [("digits", "run", "inline", 0, 1), *turns]
    printed = capsys.readouterr()
    assert "cifar: left out, no cifar10.zip" in printed.err
    assert "digits: bare, repeat 2 of 2 (4 of 4)" in printed.err
    assert "left out: cifar: no cifar10.zip" in printed.out
    assert (nowhere / "out" / "bench.txt").read_text() + "\n" == printed.out
    assert len((nowhere / "out" / "bench.csv").read_text().splitlines()) == 5


def test_a_failure_is_told_and_the_rest_goes_on(nowhere, capsys, monkeypatch):
    def failing(*args):
        if args[3] == "bare":
            raise RunFailed("exit code 1: no memory")
        return measured(*args)

    monkeypatch.setattr(bench_module, "measure", failing)
    assert main(["bench", "digits", "--engines", "bare,inline", "--repeat", "1"]) == 1
    out = capsys.readouterr().out
    assert "digits: bare, repeat 1 failed: exit code 1: no memory" in out
    assert "\ndigits  inline  " in out


def test_ctrl_c_keeps_what_was_measured(nowhere, capsys, monkeypatch):
    def interrupted(*args):
        if args[4] == 2:
            raise KeyboardInterrupt
        return measured(*args)

    monkeypatch.setattr(bench_module, "measure", interrupted)
    assert main(["bench", "digits", "--engines", "inline", "--to", "out"]) == 130
    printed = capsys.readouterr()
    assert "interrupted" in printed.err
    assert "digits  inline" in printed.out
    assert len((nowhere / "out" / "bench.csv").read_text().splitlines()) == 2
