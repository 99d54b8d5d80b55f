"""Each stock strategy, run as fedimb runs it, against its paper's formula in float64 (Flower's choices are noted)."""

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from merge_rules import ARGS, Oracle

from fedimb import registry
from fedimb.engine.lanes import cut_lanes, gather, merge_lanes
from fedimb.errors import ConfigError
from fedimb.records import array_record, load_arrays, save_arrays
from fedimb.serverapp.aggregator import Aggregator
from fedimb.serverapp.state_dict import decode, encode
from fedimb.testing.aggregators import reduction_of

LINEAR = {"fedavg", "fedprox", "fedavgm", "fedadam", "fedadagrad", "fedyogi"}


STOCK = "fedimb.aggregators.stock"


SHAPES = {"w": (3, 2), "b": (2,), "a": ()}  # not in alphabetical order, as in a model


every = pytest.mark.parametrize("name", ARGS)


def test_every_stock_strategy_is_tested_and_says_whether_it_is_linear():
    stock = {n for n in registry.names("aggregator") if registry.get("aggregator", n).factory.__module__ == STOCK}
    assert stock == set(ARGS)
    assert {n for n in stock if registry.flags("aggregator", n)["linear"]} == LINEAR
    assert {n for n in stock if registry.flags("aggregator", n).get("needs_start_loss")} == {"qfedavg"}


def start():
    rng = np.random.default_rng(0)
    parameters = {k: rng.normal(size=s).astype(np.float32) for k, s in SHAPES.items()}
    return parameters, {"mean": np.zeros(2, np.float32), "variance": np.ones(2), "seen": np.array(0, np.int64)}


def aggregator(name, linear=None):
    strategy = registry.build("aggregator", name, **ARGS[name])
    return Aggregator(strategy, name in LINEAR if linear is None else linear, *start())


def trained(parameters, server_round, clients=7):
    """What clients send back: their weights, buffers, weight and start loss."""
    rng = np.random.default_rng(server_round)
    return {
        client: {
            "arrays": {k: (v + 0.1 * rng.normal(size=v.shape)).astype(np.float32) for k, v in parameters.items()},
            "buffers": {
                "mean": rng.normal(size=2).astype(np.float32),
                "variance": rng.uniform(1e-3, 1, size=2),
                "seen": np.array(rng.integers(1, 100)),
            },
            "weight": float(rng.integers(1, 50)),
            "start_loss": float(rng.uniform(0.1, 3)),
        }
        for client in range(clients)
    }


def message_of(order, reply):
    metrics = MetricRecord({"num-examples": reply["weight"], "start_loss": reply["start_loss"], "train_loss": 1.0})
    arrays, buffers = array_record(reply["arrays"]), array_record(reply["buffers"])
    return Message(RecordDict({"arrays": arrays, "metrics": metrics, "x.buffers": buffers}), reply_to=order)


def play(model, server_round, replies):
    """One round through lanes, as every engine plays it."""
    instructions = model.configure(server_round, {client + 1: client for client in replies})
    messages = [(client, message_of(order, replies[client])) for client, order in instructions]
    how = reduction_of(model, messages)
    outcome = merge_lanes([gather(messages[lane], how) for lane in cut_lanes(len(messages))])
    return model.aggregate(server_round, outcome, instructions)


def flat(arrays):
    return np.concatenate([np.asarray(arrays[k], np.float64).ravel() for k in SHAPES])


@every
def test_three_rounds_follow_the_papers_rule(name):
    model = aggregator(name)
    oracle = Oracle(name, flat(model.parameters))
    for server_round in (1, 2, 3):
        replies = trained(model.parameters, server_round)
        weights = np.array([r["weight"] for r in replies.values()])
        oracle.step(
            server_round,
            np.stack([flat(r["arrays"]) for r in replies.values()]),
            weights,
            np.array([r["start_loss"] for r in replies.values()]),
        )
        metrics = play(model, server_round, replies)
        np.testing.assert_allclose(flat(model.parameters), oracle.x, atol=2e-6)
        oracle.x = flat(model.parameters)  # so that rounding to float32 does not add up
        assert metrics["train_loss"] == pytest.approx(1.0)
        for key in ("mean", "variance", "seen"):
            mean = weights @ np.stack([r["buffers"][key] for r in replies.values()]) / weights.sum()
            np.testing.assert_allclose(model.buffers[key], np.rint(mean) if key == "seen" else mean, atol=1e-6)


@every
def test_dtypes_shapes_and_names_are_kept(name):
    model = aggregator(name)
    before, buffers = start()
    for server_round in (1, 2):
        play(model, server_round, trained(model.parameters, server_round))
    assert {k: (v.dtype, v.shape) for k, v in model.parameters.items()} == {
        k: (v.dtype, v.shape) for k, v in before.items()
    }
    assert list(model.parameters) == list(SHAPES)
    assert {k: (v.dtype, v.shape) for k, v in model.buffers.items()} == {
        k: (v.dtype, v.shape) for k, v in buffers.items()
    }
    assert (model.buffers["variance"] > 0).all()  # FedAdam would make it negative


@every
def test_a_checkpoint_in_the_middle_changes_no_bit(name, tmp_path):
    straight = aggregator(name)
    for server_round in (1, 2):
        play(straight, server_round, trained(straight.parameters, server_round))
    info, arrays = encode(straight.strategy)
    prefixed = {f"s/{k}": v for k, v in arrays.items()} | {f"p/{k}": v for k, v in straight.parameters.items()}
    save_arrays(tmp_path / "c", prefixed | {f"b/{k}": v for k, v in straight.buffers.items()}, info)

    resumed = aggregator(name)
    saved, info = load_arrays(tmp_path / "c")
    resumed.parameters = {k: saved[f"p/{k}"] for k in resumed.parameters}
    resumed.buffers = {k: saved[f"b/{k}"] for k in resumed.buffers}
    resumed.load_state_dict(decode(info, {k[2:]: v for k, v in saved.items() if k.startswith("s/")}))
    replies = trained(straight.parameters, 3)
    metrics = [play(model, 3, replies) for model in (straight, resumed)]
    assert metrics[0] == metrics[1]
    for key, value in straight.parameters.items():
        np.testing.assert_array_equal(value, resumed.parameters[key])
        assert value.dtype == resumed.parameters[key].dtype
    for key, value in straight.buffers.items():
        np.testing.assert_array_equal(value, resumed.buffers[key])
        assert value.shape == resumed.buffers[key].shape


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_a_merged_reply_gives_what_the_single_replies_give(name):
    merged, single = aggregator(name, linear=True), aggregator(name, linear=False)
    for server_round in (1, 2, 3):
        replies = trained(merged.parameters, server_round, clients=40)
        one, two = (play(model, server_round, replies) for model in (merged, single))
        assert one == pytest.approx(two)
        for key, value in merged.parameters.items():
            np.testing.assert_allclose(value, single.parameters[key], atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(ARGS) - LINEAR))
def test_the_others_are_rightly_not_called_linear(name):
    merged, single = aggregator(name, linear=True), aggregator(name, linear=False)
    replies = trained(merged.parameters, 1)
    for model in (merged, single):
        play(model, 1, replies)
    assert np.abs(flat(merged.parameters) - flat(single.parameters)).max() > 1e-3


def test_bulyan_with_too_few_replies_leaves_everything_as_it_was():
    model = aggregator("bulyan")
    before, buffers = start()
    assert play(model, 1, trained(model.parameters, 1, clients=6)) == {}
    for key, value in before.items():
        np.testing.assert_array_equal(model.parameters[key], value)
    for key, value in buffers.items():
        np.testing.assert_array_equal(model.buffers[key], value)
    play(model, 2, trained(model.parameters, 2, clients=7))
    assert not np.array_equal(model.parameters["w"], before["w"])


@pytest.mark.parametrize("name", ["fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"])
def test_a_poisoned_reply_does_not_move_robust_rules_far(name):
    model = aggregator(name)
    before = flat(model.parameters)
    replies = trained(model.parameters, 1)
    replies[3]["arrays"] = {k: v + np.float32(1e4) for k, v in replies[3]["arrays"].items()}
    play(model, 1, replies)
    assert np.abs(flat(model.parameters) - before).max() < 1


@every
def test_one_client_alone_is_enough_but_for_bulyan(name):
    model = aggregator(name)
    before = flat(model.parameters)
    play(model, 1, trained(model.parameters, 1, clients=1))
    assert np.isfinite(flat(model.parameters)).all()
    assert np.array_equal(flat(model.parameters), before) == (name == "bulyan")


def test_arguments_are_checked_by_name():
    with pytest.raises(ConfigError, match="server_momentum"):
        registry.build("aggregator", "fedavgm", server_momentun=0.5)
    with pytest.raises(ConfigError, match="client_learning_rate"):
        registry.build("aggregator", "qfedavg")
