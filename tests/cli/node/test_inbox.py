"""`fedimb node inbox | approve | reject | audit`: what a person at a hospital sees and does."""

import csv
import io
import json

import pytest
from study_plans import node_home, plan_of, run_config

from fedimb.cli.main import main
from fedimb.deploy.site.approvals import receive_plan


@pytest.fixture(scope="module")
def plan():
    return plan_of(run_config())


@pytest.fixture
def home(tmp_path, monkeypatch, plan):
    found = node_home(tmp_path / "St. Änne")
    receive_plan(found, plan.to_json())
    monkeypatch.setenv("FEDIMB_NODE_HOME", str(found.root))
    return found


def test_a_plan_is_read_and_approved(home, plan, capsys):
    item = f"plan-{plan.sha}"
    assert main(["node", "inbox"]) == 0
    assert item in capsys.readouterr().out
    assert main(["node", "inbox", item]) == 0
    page = capsys.readouterr().out
    assert "| train | arrays |" in page
    assert str(home.file("plans", plan.sha, "plan.html")) in page
    assert main(["node", "approve", item[:13], "--by", "Dr. Weiß"]) == 2
    assert "a word of its purpose, as in --word TEXT" in capsys.readouterr().err
    assert main(["node", "approve", item[:13], "--word", "Fälle", "--by", "Dr. Weiß"]) == 0
    assert f"linz  {plan.sites[0].fingerprint}" in capsys.readouterr().out
    assert main(["node", "inbox"]) == 0
    assert "nothing is waiting at st-anna" in capsys.readouterr().out
    assert main(["node", "inbox", "--all"]) == 0
    assert "approved" in capsys.readouterr().out
    assert main(["node", "reject", item, "--reason", "no longer"]) == 0
    assert "nothing runs under this plan here" in capsys.readouterr().out


def test_a_rejection_needs_a_reason_and_an_item(home, capsys):
    with pytest.raises(SystemExit):
        main(["node", "reject", "plan-"])
    assert main(["node", "approve", "nothing"]) == 2
    assert "see fedimb node inbox" in capsys.readouterr().err
    assert main(["node", "inbox", "plan-ffffffff"]) == 2


def test_the_log_is_verified_and_an_edited_line_named(home, capsys, tmp_path):
    main(["node", "approve", "plan-", "--word", "Fälle"])
    assert main(["node", "audit", "verify"]) == 0
    assert "2 lines, all as written" in capsys.readouterr().out
    log = home.file("audit.jsonl")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    heads = tmp_path / "heads.jsonl"
    heads.write_text(json.dumps({"line": 2, "sha": lines[1]["sha"]}) + "\n")
    assert main(["node", "audit", "verify", "--heads", str(heads)]) == 0
    heads.write_text(json.dumps({"line": 2, "sha": "0" * 64}) + "\n")
    assert main(["node", "audit", "verify", "--heads", str(heads)]) == 2
    assert "line 2: is not the line the coordinator was told about" in capsys.readouterr().out
    log.write_text(log.read_text(encoding="utf-8").replace('"approved"', '"rejected"'), encoding="utf-8")
    assert main(["node", "audit", "verify"]) == 2
    assert "line 2: was edited" in capsys.readouterr().out


def test_the_log_is_exported(home, tmp_path, capsysbinary):
    out = tmp_path / "März.csv"
    assert main(["node", "audit", "export", "--out", str(out)]) == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8-sig"))))
    assert [row["kind"] for row in rows] == ["plan received"]
    assert main(["node", "audit", "export", "--as", "json", "--from", "2999"]) == 0
    assert main(["node", "audit", "export", "--from", "01.03.2026"]) == 2


@pytest.mark.parametrize(
    ("period", "why"),
    [
        (["--from", "2026-03", "--to", "2026-01"], "--to 2026-01 is before --from 2026-03: exchange them"),
        (["--from", "2026-03-05", "--to", "2025"], "is before"),
        (["--from", "2026-13"], "'2026-13' is not a day"),
        (["--to", "2026-02-31"], "'2026-02-31' is not a day"),
        (["--to", "2026-0"], "'2026-0' is not a day"),
    ],
)
def test_a_period_that_cannot_be_is_not_exported_as_an_empty_one(home, capsys, period, why):
    assert main(["node", "audit", "export", *period]) == 2
    assert why in capsys.readouterr().err


def test_an_export_says_how_many_lines_it_has(home, capsys, tmp_path):
    today = json.loads(home.file("audit.jsonl").read_text(encoding="utf-8"))["at"][:10]
    for period, count in (("2999", 0), (today[:4], 1), (today[:7], 1), (today, 1)):
        assert (
            main(["node", "audit", "export", "--from", period, "--to", period, "--out", str(tmp_path / "a.csv")]) == 0
        )
        assert f"a.csv, {count} of 1 lines" in capsys.readouterr().out


def test_nobody_decides_under_an_empty_name_or_without_a_reason(home, plan, capsys):
    """An empty --by (a variable that was not set) stood in the log as the account's name."""
    for words in (["approve", f"plan-{plan.sha}"], ["reject", "plan-", "--reason", "none"]):
        assert main(["node", *words, "--by", " "]) == 2
        assert "--by is empty" in capsys.readouterr().err
    assert main(["node", "reject", "plan-", "--reason", " "]) == 2
    assert "--reason is empty" in capsys.readouterr().err
    assert not home.file("plans", plan.sha, "decision.json").exists()
