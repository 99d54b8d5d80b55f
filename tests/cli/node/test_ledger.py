"""fedimb node ledger: what was asked, and a person's decisions; the counts an approval shows."""

import json

import pytest
from study_plans import node_home, plan_of, run_config

from fedimb.cli.main import main
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.registered_data.datasets import register_data
from fedimb.deploy.site.approvals import receive_plan
from fedimb.deploy.site.ledger import Ledger
from fedimb.deploy.site.spending import Spent, charge
from fedimb.deploy.study_plan.budget import epsilon_of_precision

TEXT = """site: st-anna
budget: {rounds: 30, queries: 100}
"""


@pytest.fixture
def node(tmp_path):
    """A node that was asked for 12 rounds about heart."""
    home = node_home(tmp_path / "st-anna", TEXT)
    (tmp_path / "heart.csv").write_text("a,b,dx\n1,2,gesund\n3,4,schwer krank\n5,6,gesund\n")
    register_data(home, str(tmp_path / "heart.csv"), "heart", ["heart"], settings=["target=dx"])
    ledger = Ledger(home)
    with ledger.locked():
        facts = {"run": "r1", "bound": {"plan": "0" * 64}, "version": "v1"}
        charge(ledger, "run", "heart", facts, Spent(runs=1, queries=1))
        for step in range(1, 13):
            facts = {"run": "r1", "type": "train", "round": step, "step": step, "digest": "d"}
            charge(ledger, "asked", "heart", facts, Spent(rounds=1, updates=0.5))
        ledger.log("test", {})
    return home


def test_it_shows_what_was_asked_beside_the_limits(node, capsys):
    assert main(["node", "ledger", "--home", str(node.root)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["heart", "so", "far", "limit"] in lines
    assert ["rounds", "12", "30"] in lines
    assert ["epsilon", "of", "updates", f"{epsilon_of_precision(6, 1e-5):.3g}", "none"] in lines
    assert main(["node", "ledger", "--json", "--home", str(node.root)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["data_sets"][0]["rounds"], told["budget"]["rounds"], told["lines"]) == (12, 30, 13)


def test_decisions_need_a_reason_and_leave_a_line(node, capsys):
    home = ["--home", str(node.root)]
    assert main(["node", "ledger", "--release", "r1", *home]) == 2
    assert "say why: give --reason TEXT" in capsys.readouterr().err
    assert main(["node", "ledger", "--reset", "heart", "--restart", "--reason", "x", *home]) == 2
    assert main(["node", "ledger", "--release", "r2", "--reason", "x", *home]) == 2
    assert "nothing was asked in a run 'r2' here. Did you mean 'r1'?" in capsys.readouterr().err
    words = ["--release", "r1", "--from-round", "11", "--reason", "lost", "--by", "Dr. W"]
    assert main(["node", "ledger", *words, *home]) == 0
    assert "run r1 may ask for 2 messages from round 11 on once more" in capsys.readouterr().out
    assert main(["node", "ledger", "--reset", "heart", "--reason", "other data", "--by", "Dr. W", *home]) == 0
    assert ["rounds", "0", "30"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    facts = [line["facts"] for line in AuditLog(node.file("audit.jsonl")).lines()]
    assert [(one["what"], one.get("by")) for one in facts] == [("test", None), ("release", "Dr. W"), ("reset", "Dr. W")]


def test_an_approval_shows_the_counts_before_and_after(node, capsys):
    plan = plan_of(run_config(), input_shape=[2], runs=3)
    receive_plan(node, plan.to_json())
    assert main(["node", "approve", f"plan-{plan.sha}", "--home", str(node.root)]) == 0
    out = capsys.readouterr().out
    assert ["rounds", "12", "36", "30"] in [line.split() for line in out.splitlines()]
    assert "answers no more than 30 training rounds about these data (budget.rounds in its node.yaml)" in out
    assert f"{plan.sha} is approved" in out
