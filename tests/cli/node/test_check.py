"""``fedimb node check``: a table or JSON, exit code 0 or 2."""

import json
from pathlib import Path

import pytest

from fedimb.cli.main import main
from fedimb.deploy.site import check
from fedimb.deploy.site.check import Check


@pytest.fixture
def home(tmp_path: Path) -> list[str]:
    (tmp_path / "node.yaml").write_text("site: st-anna\n")
    return ["--home", str(tmp_path)]


def found(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> None:
    monkeypatch.setattr(check, "node_checks", lambda home, plan: iter(checks))


def test_a_node_that_can_take_part(home, capsys, monkeypatch):
    found(monkeypatch, Check("ok", "clock", "agrees"), Check("warn", "disk", "2 lines\n  of text", "free some"))
    assert main(["node", "check", *home]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok    clock             agrees",
        "warn  disk              2 lines of text: free some",
    ]


def test_one_failure_is_exit_code_2(home, capsys, monkeypatch):
    found(monkeypatch, Check("ok", "clock", "agrees"), Check("fail", "data", "Köpfe.csv row 3 changed", "fix"))
    assert main(["node", "check", "--json", *home]) == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["site"], said["fit"]) == ("st-anna", False)
    assert said["checks"][1] == {
        "level": "fail",
        "name": "data",
        "found": "Köpfe.csv row 3 changed",
        "remedy": "fix",
    }


def test_an_empty_node_is_not_fit(home, capsys):
    assert main(["node", "check", *home]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines if line.startswith("fail")} >= {"data", "key", "ca.crt", "coordinator"}


def test_a_plan_that_is_none(home, capsys, tmp_path):
    assert main(["node", "check", "--plan", str(tmp_path / "node.yaml"), *home]) == 2
    assert "not JSON" in capsys.readouterr().err
    assert main(["node", "check", "--plan", "none.json", *home]) == 2
    assert "cannot be read as a study plan" in capsys.readouterr().err
