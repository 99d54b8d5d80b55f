"""The script that compares runs on a GPU with runs on the CPU: its refusal without one, and its configurations."""

import importlib.util
import shlex
import sys
from pathlib import Path

import pytest
import torch

from fedimb.config.compose import compose
from fedimb.config.validate import validate

PLACE = Path(__file__).parents[2] / "experiments" / "engine" / "gpu_check.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("gpu_check", PLACE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_cuda_it_says_what_to_do_in_one_line(script, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--to", str(tmp_path / "table.csv")])
    assert script.main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "Run it on a machine with an NVIDIA GPU" in said.err
    assert not (tmp_path / "table.csv").exists()


def test_a_weight_that_differs_and_a_case_that_fails_end_with_1(script, monkeypatch, tmp_path, capsys):
    rows = {"agreeing": {"verdict": "agrees"}, "differing": {"verdict": "DIFFERS"}}

    def measured(words, device, folder):
        if words not in rows:
            raise ValueError("no such case")
        return rows[words]

    for cases, code in ((["agreeing"], 0), (["agreeing", "differing"], 1), (["failing", "agreeing"], 1)):
        monkeypatch.setitem(script.PARTS, "same", (measured, {case: case for case in cases}))
        assert script.check("cpu", 1.0, tmp_path / "table.csv", ["same"]) == code
        assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + len(cases)
    assert "FAILED: ValueError: no such case" in capsys.readouterr().out
    script.check("cpu", 0.0, tmp_path / "table.csv", ["same"])
    assert "left out for time: same: failing; same: agreeing" in capsys.readouterr().out


@pytest.mark.slow
def test_every_case_is_a_valid_configuration(script, tmp_path):
    study = script.read_study(script.CREFF)
    creff = [*study.base, *study.setting_words["IF 100"], *script._images(str(tmp_path))]
    bases = {
        "same": shlex.split(script.WHOLE),
        "alike": shlex.split(f"{script.PLAIN} data=digits rounds=10"),
        "creff": creff,
    }
    for part, (_, cases) in script.PARTS.items():
        for words in cases.values():
            validate(compose([*bases[part], *shlex.split(words)]))
