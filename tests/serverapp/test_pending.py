"""Updates in flight: the sums by hand, and the same after a checkpoint."""

import json

import numpy as np
import pytest
from flwr.app import RecordDict

from fedimb.engine.lanes import ClientReply, LaneOutcome, LaneSum, Place, Reduce
from fedimb.errors import FedimbError
from fedimb.paces.schedule import Training
from fedimb.records import array_record
from fedimb.serverapp.pending import Pending, mean_staleness
from fedimb.sums import Scale, WeightLimits

HOW = Scale(WeightLimits.of([100.0] * 10))


def training(client, version, makes):
    return Training(0, client, version, 0, 1, makes)


def exchange(places, values, weights, buffers=None):
    """An exchange's outcome: each client sends one value (and a buffer), with a weight."""
    total, replies = LaneSum(Reduce(HOW, HOW, places=places)), []
    for client, value in values.items():
        content = RecordDict({"arrays": array_record({"w": np.array([value], np.float32)})})
        if buffers is not None:
            content["x.buffers"] = array_record({"b": np.array(buffers[client], np.float32)})
        reply = ClientReply(client, content=content, metrics={"num-examples": weights[client], "train_loss": value})
        total.add_reply(reply, None)
        replies.append(reply)
    return LaneOutcome(replies, total)


def two_versions(mixes=False):
    """Version 3 of the model is made of client 1, which began with version 0 at weights 1, and of 2 and 4 at 2."""
    pending = Pending(mixes)
    first = exchange({1: Place("3", 1.0, 0.5), 5: Place("2")}, {1: 3.0, 5: 9.0}, {1: 10, 5: 10}, {1: 4.0, 5: 0.0})
    pending.add(first, {"w": np.array([1.0], np.float32)}, {1: training(1, 0, 3), 5: training(5, 0, 2)})
    second = exchange({2: Place("3"), 4: Place("3", 2.0)}, {2: 1.0, 4: 6.0}, {2: 30, 4: 5}, {2: 2.0, 4: 0.0})
    pending.add(second, {"w": np.array([2.0], np.float32)}, {2: training(2, 2, 3), 4: training(4, 2, 3)})
    return pending


def test_a_version_by_hand():
    found = two_versions().take(3)
    # weights 10, 30 and 5 x 2; differences 2, -1 and 4; the first at half, though not in what is divided by
    update = (0.5 * 10 * 2 + 30 * -1 + 10 * 4) / 50
    assert found.mean_update({}, mixes=False, rate=1.0)["w"] == pytest.approx([update], rel=1e-12)
    assert found.mean_update({}, mixes=False, rate=0.3)["w"] == pytest.approx([0.3 * update], rel=1e-12)
    assert found.mean_buffers()["b"] == pytest.approx((5 * 4.0 + 30 * 2.0) / 45, rel=1e-12)
    assert [(one.client, one.metrics["num-examples"]) for one in found.replies] == [(1, 10), (2, 30), (4, 10)]


def test_mixing_is_fedasync():
    """w <- (1 - a s) w + a s w_k, with the weights of the client, whatever it began with."""
    pending = Pending(mixes=True)
    outcome = exchange({1: Place("1", 1.0, 0.5)}, {1: 3.0}, {1: 10})
    pending.add(outcome, {"w": np.array([1.0], np.float32)}, {1: training(1, 0, 1)})
    current = {"w": np.array([7.0], np.float32)}
    new = current["w"] + pending.take(1).mean_update(current, mixes=True, rate=0.6)["w"]
    assert new == pytest.approx([(1 - 0.3) * 7.0 + 0.3 * 3.0])


def test_a_checkpoint_gives_the_same_sums_to_the_bit():
    before, after = two_versions(), Pending()
    arrays, info = before.state()
    after.load(arrays, json.loads(json.dumps(info)))
    for version in (2, 3):
        one, other = before.take(version), after.take(version)
        assert one.update["w"].tobytes() == other.update["w"].tobytes()
        assert np.asarray(one.buffers["b"]).tobytes() == other.buffers["b"].tobytes()
        assert (one.added, one.whole, one.replies) == (other.added, other.whole, other.replies)


def test_a_version_that_nothing_arrived_for_is_empty():
    found = two_versions().take(9)
    assert (found.replies, found.update) == ([], {})


def test_replies_of_one_exchange_may_go_into_several_sums_in_any_order():
    places = {1: Place("1"), 2: Place("2"), 3: Place("1")}
    values, weights = {1: 1.0, 2: 2.0, 3: 3.0}, {1: 1, 2: 1, 3: 3}
    whole = exchange(places, values, weights).total
    parts = [exchange(places, {client: value}, weights).total for client, value in reversed(values.items())]
    merged = LaneSum(parts[0].how)
    for part in parts:
        merged.add(part)
    assert {name: one.mean()["w"].tolist() for name, one in merged.means.items()} == {"1": [2.5], "2": [2.0]}
    assert all(np.array_equal(merged.means[name].words(), one.words()) for name, one in whole.means.items())
    assert merged.weight == whole.weight == 5.0


def test_a_reply_out_of_bounds_leaves_nothing_in_any_sum():
    total = LaneSum(Reduce(HOW, HOW, places={1: Place("1")}))
    content = RecordDict({"arrays": array_record({"w": np.array([1e9], np.float32)})})
    with pytest.raises(FedimbError):
        total.add_reply(ClientReply(1, content=content, metrics={"num-examples": 1.0}), None)
    assert (total.weight, total.means) == (0.0, {})


def test_staleness_by_class_is_weighed_by_rows():
    counts = np.array([[10, 0, 0], [30, 5, 0]])
    found = mean_staleness([training(0, 0, 1), training(1, 0, 5)], counts, ("a", "b", "c"))
    assert found == {
        "async/staleness_mean": 2.0,
        "async/staleness_max": 4.0,
        "async/staleness/a": 3.0,
        "async/staleness/b": 4.0,
    }
    assert mean_staleness([], counts, ("a", "b", "c")) == {}
