"""The demo's rows, small: every row there, one MLflow run per row and seed, a link that groups them."""

import pytest
from mlflow.tracking import MlflowClient

from fedimb.cli import main
from fedimb.cli.demo_tables import SERVER_ROWS, server_study, study_of
from fedimb.config.load import from_json
from fedimb.study import compare as comparison
from fedimb.study.cells import plan

QUICK = ["rounds=6", "local.epochs=1", "clients.count=3", "data.n_max=60", "evaluation.bootstrap=0"]
ROWS = ("majority", "local_mean", "fedavg", "la_post", "uniform+la_post", "tau", "ncm", "lda")
ROWS += ("fedprox", "fedprox+la_post", "fedprox+tau", "scope")


def test_the_rows_asked_for():
    cells, tasks = plan(study_of(3, "demo"))
    runs = [from_json(task.config) for task in tasks if task.kind == "run"]
    assert len(runs) == 12 + 9  # equal weights, and two heads from sums
    assert {run.seed for run in runs} == {0, 1, 2}
    assert all(run.rounds == 40 and run.clients.count == 10 and run.data["imbalance_factor"] == 50 for run in runs)
    assert len(cells) == 3 * (len(ROWS) + 1)


def test_every_row_of_the_servers_table_has_the_same_data_and_a_small_generator():
    runs = [from_json(task.config) for task in plan(server_study(1, "demo.server"))[1] if task.kind == "run"]
    assert {run.data["public"] for run in runs} == {30}
    assert len(runs) == 4
    (made,) = [run.strategy["fedssg"] for run in runs if "fedssg" in run.strategy]
    assert made["training"]["steps"] == 300


@pytest.mark.slow
def test_demo_prints_the_table_and_logs_every_row(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ("data.n_max=60", "data.imbalance_factor=6", "clients.count=3", "rounds=5", "local.epochs=1")
    monkeypatch.setattr("fedimb.cli.demo_tables.LABELS", short)
    few = ("data=digits_devices", "data.public=20", "data.n_max=40", "clients.count=3", "partition=site_dirichlet")
    monkeypatch.setattr("fedimb.cli.demo_tables.SERVER", (*few, "rounds=2", "local.epochs=1"))
    rows = {
        label: (*words, "strategy.fedssg.training.steps=3") for label, words in SERVER_ROWS.items() if label == "fedssg"
    }
    monkeypatch.setattr("fedimb.cli.demo_tables.SERVER_ROWS", SERVER_ROWS | rows)
    choose = comparison.chosen_bars

    def chosen(study, *words):
        print(f"choosing the bar of {len(study.labels)} rows")
        return choose(study, *words)

    monkeypatch.setattr(comparison, "chosen_bars", chosen)
    assert main(["demo", "--seeds", "1", *QUICK]) == 0
    text = capsys.readouterr().out
    shown, _, later = text.partition(f"choosing the bar of {len(ROWS) + 1} rows\n")
    assert "\nscope " in shown
    assert ("final round for all rows" in shown) == ("scores: of the final round, on the test set" in shown)
    assert "the bar is" in later.partition("active learning: labels were requested")[0]
    for row in (*ROWS, "balanced_softmax"):
        assert f"\n{row} " in text
    assert "macro" in text
    assert "labels were requested for " in text
    assert "\nrandom+la_post " in text
    assert "\nfairfal+la_post " in text
    clients = sum(int(40 * 20 ** (-rank / 9) + 1e-9) for rank in range(10))
    assert f"the server has 200 labelled (public) rows, the clients have {clients};" in text
    for row in SERVER_ROWS:
        assert f"\n{row} " in text
    assert "min-class" in text
    assert "viewStateShareKey=fedimb" in text
    assert f"sqlite:///{tmp_path}/runs/mlflow.db" in text
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name.startswith("demo-") and "." not in e.name]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 11
    assert {(r.data.tags["fedimb.strategy"], r.data.tags["fedimb.seed"]) for r in runs} >= {
        ("la_post", "0"),
        ("balanced_softmax", "0"),
    }
    assert all(r.info.status == "FINISHED" for r in runs)
    (picture,) = (tmp_path / "runs").glob("demo-*/comparison.png")
    assert 0 < picture.stat().st_size < 200_000
    (page,) = (tmp_path / "runs").glob("demo-*/report.html")
    assert "balanced_softmax" in page.read_text()
    (numbers,) = (tmp_path / "runs").glob("demo-*[0-9]/rows.csv")
    lines = numbers.read_text().splitlines()
    assert lines[0].startswith("setting,label,seed,status,minority_recall,macro_recall,")
    assert len(lines) == 1 + len(ROWS) + 1
    assert all(0 <= float(line.split(",")[4]) <= 1 for line in lines[1:])
