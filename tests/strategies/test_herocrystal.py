"""HeroCrystal end to end: heads stay, the fused head is of those who annotate a class, and the backbone is frozen."""

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from safetensors.numpy import load_file
from small_runs import launch_in

from fedimb.clientapp.private_weights import STATE
from fedimb.clientapp.state import StateStore
from fedimb.data.federation import Federation
from fedimb.errors import ConfigError, RunFailed
from fedimb.evaluation.temperature import loss_sums, mean_losses
from fedimb.records import load_arrays, to_numpy
from fedimb.serverapp.steps import Reply
from fedimb.strategies.herocrystal import _trained

ANNOTATED = "data.labels.annotated={0: [a,b], 1: [c,d]}"


def table(path):
    """Two sites with all four classes each; a fifth are test rows."""
    rng = np.random.default_rng(0)
    y = rng.choice(4, 240, p=[0.4, 0.3, 0.2, 0.1])
    x = (2.5 * np.eye(4)[y] @ rng.normal(size=(4, 6)) + rng.normal(size=(240, 6))).astype(np.float32)
    np.savez(path, x=x, y=y, sites=np.arange(240) % 2, test=np.arange(240) < 60)
    return path


def words(path, *more):
    own = ["data=npz", f"data.source.path={path}", "data.source.class_names=[a,b,c,d]", "partition=by_column"]
    own += ["clients.count=2", "data.n_max=null", "data.class_order=fixed", "data.public=5", "engine=inline"]
    own += ["model=mlp", "model.hidden=[8]", "local.lr=0.2", "local.epochs=2", "clients.private=[head]"]
    return [*own, "strategy=herocrystal", *more]


def weights(result):
    """Final weights, and the heads that the clients have kept."""
    arrays, info = load_arrays(result.folder / "checkpoint.safetensors")
    store = StateStore(result.folder / "clients")
    states = [store.load(int(client), int(version)) for client, version in sorted(info["versions"].items())]
    backbone = {k.removeprefix("model/global/p/"): v for k, v in arrays.items() if k.startswith("model/global/p/")}
    final = load_file(result.folder / "artifacts" / "model" / "model.safetensors")
    return final, backbone, [to_numpy(state.array_records[STATE]) for state in states]


def test_on_each_class_the_fused_model_is_its_holders_teacher(tmp_path):
    path = table(tmp_path / "table.npz")
    result = launch_in(tmp_path, *words(path, ANNOTATED, "strategy.herocrystal.epochs=0"))
    final, backbone, heads = weights(result)
    for part in ("head.weight", "head.bias"):
        np.testing.assert_array_equal(final[part], np.concatenate([heads[0][part][:2], heads[1][part][2:]]))
    assert backbone.keys() == {"body.1.weight", "body.1.bias"}
    for name, value in backbone.items():
        np.testing.assert_array_equal(final[name], value)
    start = heads[0]["head.weight"][2:], heads[1]["head.weight"][:2]
    assert np.array_equal(start[0], initial(path)[2:])  # a class that a site does not annotate has taught it nothing
    assert np.array_equal(start[1], initial(path)[:2])
    assert result.rows[0].confusion.sum() == 60  # one model: each test row once


def initial(path):
    from small_runs import config

    from fedimb.config.parts import build_model

    return build_model(config(*words(path)), 4, (6,)).head.weight.detach().numpy()


def test_teaching_changes_the_head_and_leaves_the_backbone(tmp_path):
    path = table(tmp_path / "table.npz")
    final, backbone, heads = weights(launch_in(tmp_path, *words(path, "strategy.herocrystal.sharpening=0.5")))
    mean = np.mean([head["head.weight"] for head in heads], axis=0)
    assert np.abs(final["head.weight"] - mean).max() > 1e-3
    np.testing.assert_array_equal(final["body.1.weight"], backbone["body.1.weight"])


def test_the_contrastive_term_changes_what_is_trained(tmp_path):
    """With references that are loaded it has a gradient from the second round on, and none in the first."""
    path = table(tmp_path / "table.npz")
    found = {}
    for contrast in ("none", "dynamic"):
        for rounds in (1, 2):
            more = [f"strategy.herocrystal.contrast={contrast}", f"rounds={rounds}", "study=" + contrast]
            found[contrast, rounds] = weights(launch_in(tmp_path, *words(path, *more)))[1]["body.1.weight"]
    np.testing.assert_array_equal(found["none", 1], found["dynamic", 1])
    assert np.abs(found["none", 2] - found["dynamic", 2]).max() > 1e-4


@pytest.mark.parametrize("pivot", ["null", "0", "1"])
def test_a_head_that_was_never_trained_is_left_out_and_said(tmp_path, pivot, caplog):
    """One of two clients takes part in the only round: the fused head is its own, whoever is the pivot."""
    path = table(tmp_path / "table.npz")
    more = [
        "rounds=1",
        "clients.participation=0.5",
        "strategy.herocrystal.epochs=0",
        f"strategy.herocrystal.pivot={pivot}",
    ]
    result = launch_in(tmp_path, *words(path, *more))
    final = load_file(result.folder / "artifacts" / "model" / "model.safetensors")
    store, info = StateStore(result.folder / "clients"), load_arrays(result.folder / "checkpoint.safetensors")[1]
    states = {int(k): store.load(int(k), int(version)) for k, version in info["versions"].items()}
    heads = {k: to_numpy(state.array_records[STATE]) for k, state in states.items() if STATE in state}
    ((client, head),) = heads.items()
    np.testing.assert_array_equal(final["head.weight"], head["head.weight"])
    assert not np.array_equal(head["head.weight"], initial(path))
    assert f"without client {1 - client}: never trained" in caplog.text
    replaced = f"client {client} takes its place"
    assert (replaced in caplog.text) == (pivot == str(1 - client))


def test_no_trained_head_at_all_ends_the_run():
    replies = [Reply(client, RecordDict()) for client in range(2)]
    with pytest.raises(RunFailed, match="no client that answered has trained its head; run more rounds"):
        _trained(replies, [0, 1])


def test_the_curve_over_temperatures_is_of_the_fused_model(tmp_path):
    path = table(tmp_path / "table.npz")
    result = launch_in(tmp_path, *words(path, "rounds=1", "data.validation=0.3", "evaluation.temperature=true"))
    federation = Federation.load(result.folder)
    pairs = [federation.client(client).tensors("validation") for client in range(2)]
    x, y = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
    with torch.no_grad():
        expected = mean_losses(loss_sums(result.model.classifier(x), y), len(y))
    assert result.temperature["rules"]["validation"]["log_loss"] == pytest.approx(expected, abs=1e-5)


def test_rows_that_teach_nothing_are_said(tmp_path, caplog):
    path = table(tmp_path / "table.npz")
    launch_in(tmp_path, *words(path, "rounds=1", "strategy.herocrystal.min_score=1.0"))
    assert "none of the server's rows teaches anything" in caplog.text


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["clients.private=[]"], r"set clients\.private=\['head'\]"),
        (["data.public=null"], r"set data\.public to its rows per class"),
        (["strategy.herocrystal.pivot=7"], "no client of that id holds rows"),
        (["privacy.clip=1.0"], r"heads leave without privacy\.clip"),
        (["aggregator=scaffold"], "works on whole updates"),
        (["strategy=[scope,herocrystal]"], "works with one model that all clients share"),
        (["clients.private=[head,body.1.bias]"], "no more and no less"),
        (["model.hidden=[]"], "has nothing to average but its head"),
    ],
)
def test_what_cannot_be_fused_is_refused(tmp_path, more, says):
    path = table(tmp_path / "table.npz")
    with pytest.raises(ConfigError, match=says):
        launch_in(tmp_path, *words(path, *more))
