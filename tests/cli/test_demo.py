"""The demo's rows, small and inline: every row there, one MLflow run per row and seed, a link that groups them."""

from mlflow.tracking import MlflowClient

from fedimb.cli import main
from fedimb.cli.demo import configs

QUICK = ["engine=inline", "rounds=2", "local.epochs=1", "clients.count=3", "data.n_max=60", "evaluation.bootstrap=0"]


def test_the_rows_asked_for():
    runs = configs([], 3, "demo")
    assert len(runs) == 9
    assert {run.seed for run in runs} == {0, 1, 2}
    assert all(run.rounds == 40 and run.clients.count == 10 and run.data["imbalance_factor"] == 50 for run in runs)
    assert {run.engine["name"] for run in runs} == {"ray"}


def test_demo_prints_the_table_and_logs_every_row(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--seeds", "2", *QUICK]) == 0
    text = capsys.readouterr().out
    for row in ("fedavg", "la_post", "tau", "fedprox", "fedprox+la_post", "fedprox+tau", "balanced_softmax"):
        assert f"\n{row} " in text
    assert "macro" in text
    assert "min-class" in text
    assert "viewStateShareKey=fedimb" in text
    assert f"sqlite:///{tmp_path}/runs/mlflow.db" in text
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name.startswith("demo-")]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 14
    assert {(r.data.tags["fedimb.strategy"], r.data.tags["fedimb.seed"]) for r in runs} >= {
        ("la_post", "0"),
        ("balanced_softmax", "1"),
    }
    assert all(r.info.status == "FINISHED" for r in runs)
    (picture,) = (tmp_path / "runs").glob("demo-*/comparison.png")
    assert 0 < picture.stat().st_size < 200_000
    (numbers,) = (tmp_path / "runs").glob("demo-*/comparison.csv")
    lines = numbers.read_text().splitlines()
    assert lines[0].startswith("label,seed,")
    assert len(lines) == 15
    assert all(0 <= float(line.split(",")[2]) <= 1 for line in lines[1:])
