"""Two nodes and a coordinator, real servers: nobody agrees, then all do; the run ends as the simulated one."""

import shutil
from pathlib import Path

import pytest
from behind_nginx import NGINX
from deployed import Study, assert_same, events, small_study

from fedimb.deploy.audit_chain import read_heads
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.servers import Servers
from fedimb.engine import processes
from fedimb.errors import ConfigError, RunSuspect, RunWaiting

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    root = tmp_path / "Kliniken Süd"
    root.mkdir()
    return small_study(root, {"linz": 60, "st-anna": 90})


# Three minutes over real servers. Among the fast tests, messages go over loopback in one process: that all sites must
# agree, and that the run is the simulated one, in site/test_node_app.py; every kind of run in test_fedssg_run.py.
@pytest.mark.slow
@pytest.mark.alone
def test_a_deployed_run_waits_for_approval_and_ends_as_the_simulated_one(
    study: Study, tmp_path: Path, template: Path
) -> None:
    shutil.copyfile(template, study.deployment.folder("runs") / "mlflow.db")
    folder = study.new("seed=3", join_s=60, away_s=60)
    with Servers(study.deployment) as servers:
        with study.nodes():
            nodes = {site: processes.descendants(one._process.pid) for site, (one, _) in study.running.items()}
            with pytest.raises(RunWaiting, match=r"waiting: linz \(plan .{64}\); st-anna \(plan .{64}\)") as waits:
                study.execute(folder)
            assert waits.value.exit_code == 75
            assert folder.status() == "waiting"
            study.approve()
            result = study.execute(folder)
        started = [int(pid) for pid in processes.record([one.pid for one in servers._running.values()])]
    assert_same(result, study.simulated(tmp_path / "simulated", "seed=3"))
    assert events(folder) == []
    assert sum(result.rows[0].confusion.sum(axis=1)) == 38  # a quarter of each site's rows
    recalls = [result.rows[0].final[f"domain/0{client}_{site}/macro_recall"] for client, site in enumerate(study.homes)]
    assert result.rows[0].final["worst_domain_macro_recall"] == min(recalls)  # scores were not masked: sites are named

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{study.deployment.file('runs', 'mlflow.db')}")
    experiment = client.get_experiment_by_name(study.config.study)
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["test/macro_recall"] == pytest.approx(result.rows[0].final["macro_recall"])
    for site in study.homes:
        log, heads = AuditLog(study.homes[site].file("audit.jsonl")), folder.path / "heads" / f"{site}.jsonl"
        told = read_heads(heads)
        assert len(told) >= 4  # joining, two rounds, the final scores
        assert log.verify(told) is None
        assert len(study.messages(site, folder.path.name)) <= 8
    left = [pid for pids in nodes.values() for pid in pids] + started
    assert [pid for pid in left if processes.start_time(pid)] == []


def test_a_run_outside_the_plan_is_refused_before_anything_is_sent(study: Study) -> None:
    with pytest.raises(ConfigError, match=r"does not cover rounds=6 \(agreed: 1 to 5\)"):
        study.new("rounds=6")
    with pytest.raises(ConfigError, match="write key=value"):
        study.new("seed")
    study.deployment.file("sites", "linz.join.json").unlink()
    with pytest.raises(ConfigError, match=r"is for linz, st-anna, but linz is not a site of"):
        study.new()


@pytest.mark.slow
def test_a_deployed_run_that_did_not_learn_is_suspect_like_the_simulated_one(tmp_path: Path) -> None:
    still = ["local.lr=1e-30", "tracking=none", "run.on_suspect=fail"]
    study = small_study(tmp_path, {"linz": 60, "st-anna": 90}, *still)
    folder = study.new("seed=3", join_s=60, away_s=60)
    with Servers(study.deployment), study.nodes():
        with pytest.raises(RunWaiting):
            study.execute(folder)
        study.approve()
        result = study.execute(folder)
    assert folder.status() == "finished"
    assert result.rows[0].suspect["weights"].startswith("no round of 2 moved the weights")
    assert [row.suspect for row in result.rows] == [row.suspect for row in study.simulated(tmp_path / "here").rows]
    with pytest.raises(RunSuspect):
        result.raise_if_refused()
