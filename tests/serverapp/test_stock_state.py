"""The table of what Flower's strategies keep, against the installed Flower: an update that adds state fails here."""

import inspect
import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, FedAvgM, Strategy

from fedimb.engine.grid import SimulationGrid
from fedimb.records import Arrays, array_record, to_numpy
from fedimb.serverapp.state_dict import decode, encode, load_state
from fedimb.serverapp.state_digest import attributes, digest
from fedimb.serverapp.stock_state import STOCK_STATE, stock_attributes

CLIENTS = 4
EXPORTED = [
    cls
    for cls in (getattr(flower, name) for name in flower.__all__)
    if inspect.isclass(cls) and issubclass(cls, Strategy) and cls is not Strategy
]
DP = {"noise_multiplier": 0.1, "num_sampled_clients": CLIENTS}
ARGUMENTS = {
    "FedAvgM": {"server_momentum": 0.9},
    "QFedAvg": {"client_learning_rate": 0.1},
    "FedProx": {"proximal_mu": 0.1},
    "DifferentialPrivacyServerSideFixedClipping": {**DP, "clipping_norm": 1.0},
    "DifferentialPrivacyClientSideFixedClipping": {**DP, "clipping_norm": 1.0},
    "DifferentialPrivacyServerSideAdaptiveClipping": DP,
    "DifferentialPrivacyClientSideAdaptiveClipping": DP,
}


class Cohort(SimulationGrid):
    def get_node_ids(self):
        return range(1, CLIENTS + 1)

    def run_lanes(self, lanes, reduce, costs):
        raise AssertionError("no strategy sends messages by itself")


def build(cls: type, inner: type = FedAvgM) -> Strategy:
    given = dict(ARGUMENTS.get(cls.__name__, {}))
    if "strategy" in inspect.signature(cls).parameters:
        given["strategy"] = build(inner)
    return cls(**given)


def booster(trees: int) -> np.ndarray:
    """A model of xgboost as far as Flower reads it."""
    model = {
        "gbtree_model_param": {"num_trees": str(trees), "num_parallel_tree": "1"},
        "trees": [{"id": number} for number in range(trees)],
        "iteration_indptr": list(range(trees + 1)),
        "tree_info": [0] * trees,
    }
    return np.frombuffer(json.dumps({"learner": {"gradient_booster": {"model": model}}}).encode(), np.uint8)


def begin(cls: type) -> Arrays:
    if cls is flower.FedXgbBagging:
        return {"0": booster(1)}
    return {"w": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}


def trained(arrays: Arrays, server_round: int, client: int) -> ArrayRecord:
    if "0" in arrays:
        return ArrayRecord({"0": Array(booster(1))})
    rng = np.random.default_rng([server_round, client])
    return array_record({k: (v + 0.1 * rng.normal(size=v.shape)).astype(v.dtype) for k, v in arrays.items()})


def play(strategy: Strategy, arrays: Arrays, server_round: int) -> Arrays:
    """One round; returns the next weights."""
    grid = Cohort(CLIENTS)
    messages = list(strategy.configure_train(server_round, array_record(arrays), ConfigRecord({}), grid))
    replies = []
    for client, message in enumerate(messages):
        metrics = MetricRecord({"num-examples": 10.0, "train_loss": 1.0 + client / 10, "norm_bit": 1})
        content = {"arrays": trained(arrays, server_round, client), "metrics": metrics}
        replies.append(Message(RecordDict(content), reply_to=message))
    np.random.seed(server_round)  # the differential privacy wrappers draw from NumPy's global generator
    merged, _ = strategy.aggregate_train(server_round, replies)
    return arrays if merged is None else to_numpy(merged)


SLOW = ("Bulyan", "QFedAvg")  # large temporary arrays
every = pytest.mark.parametrize(
    "cls",
    [pytest.param(cls, marks=pytest.mark.slow if cls.__name__ in SLOW else ()) for cls in EXPORTED],
    ids=lambda cls: cls.__name__,
)


def digests(strategy: Strategy) -> dict[str, bytes]:
    return {name: digest(value) for name, value in attributes(strategy).items()}


@every
def test_the_table_holds_exactly_what_changes_over_rounds(cls):
    strategy, arrays, changed = build(cls), begin(cls), set()
    before = digests(strategy)
    for server_round in (1, 2, 3):
        arrays = play(strategy, arrays, server_round)
        now = digests(strategy)
        changed |= {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
        before = now
    assert sorted(changed) == sorted(stock_attributes(cls))


@every
def test_a_strategy_put_back_in_the_middle_goes_on_to_the_same_bits(cls):
    straight, arrays = build(cls), begin(cls)
    for server_round in (1, 2):
        arrays = play(straight, arrays, server_round)
    spec, stored = encode(straight)
    resumed = build(cls)
    load_state(resumed, decode(json.loads(json.dumps(spec)), stored))
    for server_round in (3, 4):
        one, two = (play(strategy, arrays, server_round) for strategy in (straight, resumed))
        assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in two.items()}
        arrays = one
    assert digests(straight).keys() == digests(resumed).keys()


def test_what_a_wrapper_holds_is_kept_with_it():
    wrapper = build(flower.DifferentialPrivacyClientSideFixedClipping)
    play(wrapper, begin(FedAvg), 1)
    assert wrapper.strategy.momentum_vector is not None
    spec, arrays = encode(wrapper)
    again = build(flower.DifferentialPrivacyClientSideFixedClipping)
    load_state(again, decode(spec, arrays))
    assert digest(again.strategy.momentum_vector) == digest(wrapper.strategy.momentum_vector)


def test_every_class_of_the_table_is_exported_by_the_installed_flower():
    assert set(STOCK_STATE) <= set(EXPORTED)
    assert len(EXPORTED) >= 18
