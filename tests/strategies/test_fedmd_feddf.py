"""FedMD and FedDF: what is taught is what those who annotate a class say of it, in the steps a round has."""

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import load_file
from small_runs import launch_in

import fedimb
from fedimb.clientapp.private_weights import STATE
from fedimb.clientapp.state import StateStore
from fedimb.contracts.public_scores import SCORES
from fedimb.data.federation import Federation
from fedimb.data.public import public_rows
from fedimb.errors import ConfigError
from fedimb.records import array_record, load_arrays, to_numpy
from fedimb.serverapp.steps import Reply
from fedimb.strategies.feddf import FedDF
from fedimb.strategies.fedmd import FedMD
from fedimb.strategies.public_scores import Teachers
from fedimb.training.fusion import NEVER

COMMON = ("engine=inline", "data.public=5", "clients.count=3", "partition=iid")
ALONE = "clients.private=['*']"


def said(client, logits):
    return Reply(client, RecordDict({SCORES: array_record({"logits": np.array(logits, np.float32)})}))


def kept(result):
    """The clients' own models."""
    info = load_arrays(result.folder / "checkpoint.safetensors")[1]
    store = StateStore(result.folder / "clients")
    return [to_numpy(store.load(int(c), int(v)).array_records[STATE]) for c, v in sorted(info["versions"].items())]


def test_the_consensus_is_the_mean_of_those_who_annotate_a_class_and_stays_if_nobody_speaks():
    own = FedMD(FedAvg())
    own._teachers = Teachers(np.array([[1, 1, 0], [0, 1, 0], [1, 1, 1]], bool))
    own.before_aggregation(1, [said(0, [[2, 1, 9]]), Reply(1, RecordDict()), said(2, [[4, 3, 5]])])
    np.testing.assert_array_equal(own.memory["logits"], [[3, 2, 5]])
    own.before_aggregation(2, [Reply(1, RecordDict())])
    np.testing.assert_array_equal(own.memory["logits"], [[3, 2, 5]])
    own.before_aggregation(3, [said(1, [[7, 6, 5]])])
    np.testing.assert_array_equal(own.memory["logits"], np.array([[NEVER, 6, NEVER]], np.float32))
    assert own.memory["known"].tolist() == [0, 1, 0]


def test_equal_teachers_give_feddf_the_softmax_of_their_mean():
    own = FedDF(FedAvg())
    own.before_aggregation(1, [said(0, [[2, 1, 0]]), said(1, [[4, -1, 2]])])
    torch.testing.assert_close(own._loss.taught, torch.tensor([[3.0, 0.0, 1.0]]).softmax(dim=1))
    assert own._loss.weights.tolist() == [1.0]
    own.before_aggregation(2, [])
    assert own._loss is None  # what was said in a round is taught in no other


KINDS = "clients.models={kinds: {deep: {name: mlp, hidden: [24, 12]}}, at: {1: deep}}"


@pytest.mark.parametrize("match", ["logits", "probabilities"])
def test_fedmd_teaches_from_the_second_round_on_in_the_steps_of_a_round(tmp_path, match):
    """Two kinds of networks, of which no weight is at the server. In the first round there is no consensus."""
    steps, models = {}, {}
    for digest, rounds in ((0, 1), (0, 2), (0.5, 1), (0.5, 2)):
        words = [f"strategy.fedmd.digest={digest}", f"strategy.fedmd.match={match}", f"rounds={rounds}"]
        words += ["strategy=fedmd", ALONE, KINDS, "strategy.fedmd.min_rows=1", f"study=d{digest}-{rounds}"]
        result = launch_in(tmp_path, *COMMON, *words)
        arrays = load_arrays(result.folder / "checkpoint.safetensors")[0]
        assert not [name for name in arrays if name.startswith("model/")]
        models[digest, rounds], steps[digest, rounds] = kept(result), result.steps
    for one, two in zip(models[0, 1], models[0.5, 1], strict=True):
        np.testing.assert_array_equal(one["head.weight"], two["head.weight"])
    for one, two in zip(models[0, 2], models[0.5, 2], strict=True):
        assert (one["head.weight"] != two["head.weight"]).any()
    assert steps[0, 2] == steps[0.5, 2]


def test_a_client_with_few_rows_says_nothing_and_nobody_learns_of_it(tmp_path):
    words = ["strategy=fedmd", ALONE, "rounds=2", "strategy.fedmd.min_rows=1000"]
    result = launch_in(tmp_path, *COMMON, *words)
    arrays = load_arrays(result.folder / "checkpoint.safetensors")[0]
    assert not [name for name in arrays if name.startswith("method/")]
    alone = launch_in(tmp_path, *COMMON, *words, "strategy.fedmd.digest=0")
    for one, two in zip(kept(result), kept(alone), strict=True):
        np.testing.assert_array_equal(one["head.weight"], two["head.weight"])


def test_labelled_rows_of_the_server_are_trained_on_once_if_asked(tmp_path):
    found = {}
    for passes in (0, 2):
        words = ["strategy=fedmd", ALONE, "rounds=2", f"strategy.fedmd.pretrain={passes}", f"study=p{passes}"]
        words += ["local.batch_size=32"]
        found[passes] = launch_in(tmp_path, *COMMON, *words)
    assert found[2].steps - found[0].steps == 3 * 2 * -(-50 // 32)  # 3 clients, 50 rows, in the first round alone


def test_feddf_without_passes_is_fedavg_and_with_them_each_network_is_nearer_to_the_teachers(tmp_path):
    found = {}
    for name, words in (
        ("plain", ["strategy=plain"]),
        ("still", ["strategy=feddf", "strategy.feddf.epochs=0"]),
        ("taught", ["strategy=feddf"]),
    ):
        result = launch_in(
            tmp_path, *COMMON, KINDS, "rounds=1", "local.lr=0.1", "local.epochs=4", *words, f"study={name}"
        )
        models = result.folder / "artifacts" / "models"
        found[name] = {kind: load_file(models / kind / "model.safetensors") for kind in ("model", "deep")}
    for kind in ("model", "deep"):
        plain, still, taught = (found[name][kind] for name in ("plain", "still", "taught"))
        for name, value in plain.items():
            np.testing.assert_array_equal(value, still[name])
            assert np.abs(value - taught[name]).max() > 1e-4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["strategy=fedmd"], r"set clients\.private=\['\*'\]"),
        (["strategy=fedmd", ALONE, "data.public=null"], r"set data\.public to its rows per class"),
        (["strategy=fedmd", ALONE, "privacy.clip=1.0"], r"scores leave without privacy\.clip"),
        (
            ["strategy=fedmd", ALONE, "strategy.fedmd.aggregation=entropy_reduction"],
            r"set strategy\.fedmd\.match=probabilities",
        ),
        (["strategy=feddf", "data.public=null"], r"set data\.public to its rows per class"),
        (["strategy=feddf", "privacy.clip=1.0"], r"scores leave without privacy\.clip"),
        (["strategy=feddf", ALONE], r"works with one model that all clients share, which clients\.private leaves none"),
        (["strategy=feddf", KINDS.replace("at:", "average: alike, at:")], "use clients.models.average=kind"),
        (
            ["strategy=feddf", "clients.models={kinds: {twin: {name: mlp, hidden: [64]}}, at: {1: twin}}"],
            "'model' and 'twin' have the same names and shapes",
        ),
    ],
)
def test_what_cannot_be_taught_is_refused(tmp_path, words, says):
    with pytest.raises(ConfigError, match=says):
        launch_in(tmp_path, *COMMON, "model=mlp", "model.hidden=[64]", *words)
    assert not list(tmp_path.glob("runs/*/*"))


def test_where_sites_annotate_different_classes_the_consensus_on_each_is_its_holders(tmp_path):
    """Two sites, no class in common: what is digested of a class are the logits of the only one that annotates it."""
    rng = np.random.default_rng(0)
    y = rng.choice(4, 240, p=[0.4, 0.3, 0.2, 0.1])
    x = (2.5 * np.eye(4)[y] @ rng.normal(size=(4, 6)) + rng.normal(size=(240, 6))).astype(np.float32)
    path = tmp_path / "table.npz"
    np.savez(path, x=x, y=y, sites=np.arange(240) % 2, test=np.arange(240) < 60)
    words = ["data=npz", f"data.source.path={path}", "data.source.class_names=[a,b,c,d]", "partition=by_column"]
    words += ["clients.count=2", "data.n_max=null", "data.class_order=fixed", "data.public=5", "engine=inline"]
    words += ["model=mlp", "model.hidden=[8]", "data.labels.annotated={0: [a,b], 1: [c,d]}"]
    result = launch_in(tmp_path, *words, "strategy=fedmd", ALONE, "rounds=1")
    arrays = load_arrays(result.folder / "checkpoint.safetensors")[0]
    (consensus,) = [value for key, value in arrays.items() if key.startswith("method/") and value.shape == (20, 4)]
    own, public = [], public_rows(Federation.load(result.folder)).x
    for client in range(2):
        model = fedimb.load_model(result.folder, site=f"client-{client}").classifier
        with torch.no_grad():
            own.append(model(public).numpy())
    np.testing.assert_allclose(consensus[:, :2], own[0][:, :2], atol=1e-5)
    np.testing.assert_allclose(consensus[:, 2:], own[1][:, 2:], atol=1e-5)
    # A class that a site does not annotate has taught its head nothing.
    start = launch_in(tmp_path, *words, "strategy=fedmd", ALONE, "rounds=1", "local.lr=1e-9", "study=start")
    first = fedimb.load_model(start.folder, site="client-0").classifier.head.weight
    trained = fedimb.load_model(result.folder, site="client-0").classifier.head.weight
    torch.testing.assert_close(first[2:], trained[2:])
    assert (first[:2] - trained[:2]).abs().max() > 1e-3
