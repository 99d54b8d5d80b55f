"""flower: the loop over any Flower Grid gives what inline gives (`flwr run` for real: test_flower_run)."""

import pytest
from flwr.app import Context, RecordDict
from small_runs import SMALL, config, launch_in, weights_sha

from fedimb.clientapp.app import ready_app
from fedimb.engine.flower_grid import FlowerEngine
from fedimb.engine.inline import InlineGrid
from fedimb.errors import ConfigError, RunFailed
from fedimb.rundir.folder import RunFolder


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
    with pytest.raises(RunFailed, match=r"3 of 4 Flower nodes connected.*num-supernodes"):
        launch_in(tmp_path, "engine=inline", "clients.count=4", engine=FlowerEngine(nodes(3)))


def test_a_node_that_was_told_nothing_says_so(tmp_path):
    from fedimb.clientapp.app import runtime

    with pytest.raises(Exception, match="does not belong to a run yet"):
        runtime(Context(run_id=1, node_id=1, node_config={"partition-id": 0}, state=RecordDict(), run_config={}))


def test_the_bundle_names_entry_points_that_exist():
    import tomllib

    from fedimb.clientapp import app
    from fedimb.engine.flower import BUNDLE
    from fedimb.serverapp import app as server

    flwr = tomllib.loads(BUNDLE.read_text())["tool"]["flwr"]["app"]
    assert flwr["components"] == {"serverapp": "fedimb.serverapp.app:app", "clientapp": "fedimb.clientapp.app:app"}
    assert app.app is ready_app()
    assert server.app
    assert set(flwr["config"]) == {"overrides", "run-dir"}


def test_config_knows_the_engine():
    assert config("engine=flower").engine["name"] == "flower"


@pytest.mark.parametrize("word", ["loss=focl", "rounds=many", "model={_target_: collections.OrderedDict}"])
def test_a_bad_setting_is_refused_before_flower_is_asked(word, tmp_path, monkeypatch, capsys):
    from fedimb.cli import main
    from fedimb.engine.flower import FlowerLauncher

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FlowerLauncher, "start", lambda self: pytest.fail("Flower was started"))
    assert main(["run", "engine=flower", word]) == 2
    assert capsys.readouterr().err.startswith("fedimb: ")
    assert list(tmp_path.iterdir()) == []


def test_a_bare_run_config_is_composed_run_and_its_result_printed(tmp_path, capsys):
    from fedimb.serverapp import app as server

    def flwr_run(**run_config):
        about = {"overrides": "", "run-dir": ""} | run_config
        server.app(nodes(4), Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=about))

    with pytest.raises(ConfigError, match=r"no loss 'focl'\. Did you mean 'focal'"):
        flwr_run(overrides="loss=focl")
    words = f"{' '.join(SMALL)} clients.count=4 rounds=1 'output_dir={tmp_path}/two words'"
    flwr_run(overrides=words)
    (folder,) = (tmp_path / "two words" / "default").iterdir()
    assert RunFolder(folder).status() == "finished"
    assert str(folder) in capsys.readouterr().out
