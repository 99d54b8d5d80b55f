"""FedProto: prototypes are means over all clients' rows, they attract features, and no weight leaves a client."""

import numpy as np
import torch
from flwr.app import RecordDict
from flwr.serverapp.strategy import FedAvg
from small_runs import launch_in

from fedimb.clientapp.private_weights import STATE
from fedimb.clientapp.state import StateStore
from fedimb.contracts.fedproto import FEATURE_SUMS
from fedimb.records import array_record, load_arrays, to_numpy
from fedimb.serverapp.steps import Reply
from fedimb.strategies.fedproto import FedProto
from fedimb.training.objectives.prototype_distance import PrototypeDistance

WORDS = (
    "engine=inline",
    "strategy=fedproto",
    "clients.private=['*']",
    "strategy.fedproto.min_count=1",
    "clients.count=3",
)


def reply(client, sums, counts):
    arrays = {"sums": np.array(sums, np.float32), "counts": np.array(counts, np.int64)}
    return Reply(client, RecordDict({FEATURE_SUMS: array_record(arrays)}))


def test_a_prototype_is_the_mean_of_all_rows_and_stays_where_nobody_reports_it():
    own = FedProto(FedAvg())
    own.before_aggregation(
        1, [reply(0, [[6, 0], [0, 0], [0, 0]], [3, 0, 0]), reply(1, [[0, 4], [8, 2], [0, 0]], [1, 2, 0])]
    )
    np.testing.assert_allclose(own.memory["prototypes"], [[1.5, 1.0], [4.0, 1.0], [0, 0]])
    assert own.memory["known"].tolist() == [1, 1, 0]
    own.before_aggregation(2, [reply(0, [[2, 2], [0, 0], [0, 0]], [2, 0, 0])])
    np.testing.assert_allclose(own.memory["prototypes"], [[1.0, 1.0], [4.0, 1.0], [0, 0]])


def test_the_regularizer_is_the_mean_squared_difference_and_nothing_without_a_prototype():
    features = torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 7.0]], requires_grad=True)
    term = PrototypeDistance(0.5, torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([True, False]))
    loss = term.loss(torch.nn.Identity(), features, features, torch.tensor([0, 0, 1]))
    assert loss.item() == 0.5 * (1 + 4 + 9 + 25) / 6
    (gradient,) = torch.autograd.grad(loss, [features])
    torch.testing.assert_close(gradient, 0.5 * 2 * features.detach() / 6 * torch.tensor([[1.0], [1.0], [0.0]]))


def kept(result):
    info = load_arrays(result.folder / "checkpoint.safetensors")[1]
    store = StateStore(result.folder / "clients")
    return [to_numpy(store.load(int(c), int(v)).array_records[STATE]) for c, v in sorted(info["versions"].items())]


def test_no_weight_is_at_the_server_and_prototypes_act_from_the_second_round(tmp_path):
    """In the first there are none: only training alone."""
    found = {}
    for weight in (0, 1):
        for rounds in (1, 2):
            words = [f"strategy.fedproto.weight={weight}", f"rounds={rounds}", f"study=w{weight}-{rounds}"]
            result = launch_in(tmp_path, *WORDS, *words)
            arrays = load_arrays(result.folder / "checkpoint.safetensors")[0]
            assert not [name for name in arrays if name.startswith("model/")]
            assert not result.rows[0].suspect.get("unmoved")
            found[weight, rounds] = kept(result)
    for one, two in zip(found[0, 1], found[1, 1], strict=True):
        np.testing.assert_array_equal(one["body.1.weight"], two["body.1.weight"])
    assert all((a["body.1.weight"] != b["body.1.weight"]).any() for a, b in zip(found[0, 2], found[1, 2], strict=True))
