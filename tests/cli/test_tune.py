"""``fedimb tune``."""

import csv
import json

import pytest

from fedimb.cli import main

WORDS = ["data.n_max=60", "clients.count=3", "rounds=2", "local.epochs=1"]
QUICK = ["--workers", "0"]


def trials(home):
    (path,) = (home / "runs").glob("*/tuning.csv")
    return list(csv.DictReader(path.read_text().splitlines()))


def test_it_prints_the_choice_and_writes_every_trial(home, capsys):
    assert main(["tune", "local.lr=0.1,0.4", "loss=balanced_softmax", *WORDS, "--seeds", "2", *QUICK]) == 0
    out = capsys.readouterr().out
    found = trials(home)
    assert len(found) >= 2
    assert [t["words"] for t in found[:2]] == ["local.lr=0.1", "local.lr=0.4"]
    assert all(len(t["scores"].split()) == 2 for t in found)
    (chosen,) = [t for t in found if t["chosen"] == "1"]
    assert float(chosen["lower_quartile"]) == max(float(t["lower_quartile"]) for t in found)
    line = out.splitlines()[0]
    assert line.startswith(f"tuned: {chosen['words']}  lower quartile {float(chosen['lower_quartile']):.3f}")
    assert ("is still at the end of the values tried" in line) == bool(chosen["edge"])
    assert "tuning.csv" in out.splitlines()[1]
    configs = [json.loads(path.read_text()) for path in (home / "runs").glob("*.tuning/*/config.json")]
    assert {config["seed"] for config in configs} == {1000, 1001}
    assert {config["loss"]["name"] for config in configs} == {"balanced_softmax"}
    assert {config["tracking"]["name"] for config in configs} == {"none"}


def test_two_knobs_are_crossed(home, capsys):
    words = ["aggregator=fedprox", "aggregator.proximal_mu=0.01,0.1", "local.lr=0.1,0.4", *WORDS]
    assert main(["tune", *words, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("aggregator.proximal_mu=") == 4
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["local.lr=0.1"], "nothing to tune: give several values, e.g. local.lr=0.1,0.2"),
        (["local.lr=0.1,0.1"], "gives a value twice"),
        (["missing.yaml"], "missing.yaml does not exist"),
        (["plain.yaml"], "plain.yaml has no tune: section, so there is nothing to tune"),
        (["local.lr=0.1,0.2", "loss=focall"], "no loss 'focall'. Did you mean 'focal'?"),
        (["local.lr=0.1,0.2", "--score", "macro_recal"], "Did you mean 'macro_recall'?"),
        (["local.lr=0.1,0.2", "--seeds", "0"], "greater than or equal to 1"),
        (["local.epochs=1,2"], "changes local.epochs"),
        (["seed=1,2"], "set seeds"),
        (["local.lr=0.1,-1"], "local.lr=-1"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(home, capsys, words, message):
    (home / "plain.yaml").write_text("seeds: 2")
    assert main(["tune", *words, *QUICK]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("fedimb: ")
    assert err.count("\n") == 1
