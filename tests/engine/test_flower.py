"""flower: the loop over any Flower Grid gives what inline gives; `flwr run` for real is slow."""

import os
import subprocess
import sys

import pytest
from flwr.app import Context, RecordDict
from small_runs import SMALL, config, launch_in, weights_sha

from fedimb.app import ready_app
from fedimb.engine.flower_grid import FlowerEngine
from fedimb.engine.inline import InlineGrid
from fedimb.errors import RunFailed


def nodes(n):
    """A Grid whose nodes know which client they play and nothing else, as Flower's simulated nodes do."""

    def context(node):  # the last node plays client 0: ids must come from the nodes themselves
        about = {"partition-id": n - 1 - node, "num-partitions": n}
        return Context(run_id=1, node_id=node + 1, node_config=about, state=RecordDict(), run_config={})

    return InlineGrid(ready_app(), n, context)


@pytest.mark.parametrize("aggregator", ["fedavg", "fedmedian"])
def test_ids_and_sums_are_those_of_inline(aggregator, tmp_path):
    words = ("engine=inline", f"aggregator={aggregator}", "clients.count=4", "clients.participation=0.5")
    expected = launch_in(tmp_path, *words)
    result = launch_in(tmp_path, *words, engine=FlowerEngine(nodes(4)))
    assert weights_sha(result) == weights_sha(expected)
    assert result.up_bytes == expected.up_bytes


def test_too_few_nodes_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr("fedimb.engine.flower_grid._PATIENCE_S", 0.3)
    with pytest.raises(RunFailed, match=r"3 of 4 Flower nodes came.*num-supernodes"):
        launch_in(tmp_path, "engine=inline", "clients.count=4", engine=FlowerEngine(nodes(3)))


def test_a_node_that_was_told_nothing_says_so(tmp_path):
    from fedimb.app import runtime

    with pytest.raises(Exception, match="belongs to no run yet"):
        runtime(Context(run_id=1, node_id=1, node_config={"partition-id": 0}, state=RecordDict(), run_config={}))


def test_the_bundle_names_entry_points_that_exist():
    import tomllib

    from fedimb import app, server
    from fedimb.engine.flower import BUNDLE

    flwr = tomllib.loads(BUNDLE.read_text())["tool"]["flwr"]["app"]
    assert flwr["components"] == {"serverapp": "fedimb.server:app", "clientapp": "fedimb.app:app"}
    assert app.app is ready_app()
    assert server.app
    assert set(flwr["config"]) == {"overrides", "run-dir"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_flwr_run_agrees_with_inline_and_its_exit_code_tells_the_truth(tmp_path):
    words = [*SMALL, "clients.count=4", "rounds=2"]
    expected = launch_in(tmp_path, *words, "engine=inline")
    fedimb = [sys.executable, "-c", "import sys; from fedimb.cli import main; sys.exit(main())", "run", *words]
    done = subprocess.run([*fedimb, "engine=flower"], cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    from fedimb.run.result import RunResult

    (folder,) = (tmp_path / "runs" / "default").glob("*")
    result = RunResult.read(folder)
    assert result.confusion.tolist() == expected.confusion.tolist()
    failing = [*fedimb, "engine=flower", "local.lr=1e30"]
    broken = subprocess.run(failing, cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert broken.returncode == 1, broken.stderr
    assert "--resume" in broken.stderr


def test_config_knows_the_engine():
    assert config("engine=flower").engine["name"] == "flower"
