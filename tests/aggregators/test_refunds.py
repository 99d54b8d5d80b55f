"""What robust aggregators that give back to rare classes compute, by hand."""

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from small_runs import launch_in

from fedimb import registry
from fedimb.aggregators.refunds import trimmed_mean
from fedimb.engine.flower_private import ensure_identity, number
from fedimb.errors import ConfigError
from fedimb.records import array_record, to_numpy
from fedimb.seeds import Stream, numpy_rng
from fedimb.serverapp.aggregator import Aggregator

SENT = {"head.weight": np.zeros((3, 2), np.float32), "head.bias": np.zeros(3, np.float32)}


def round_of(name, updates, **settings):
    """The weights after one round in which clients sent these (weight [3, 2], bias [3]) pairs."""
    ensure_identity()
    strategy = registry.build("aggregator", name, {"seed": 3}, **settings)
    model = Aggregator(strategy, False, SENT, {})
    sent = model.configure(1, {client + 1: client for client in range(len(updates))})
    replies = []
    for (_, message), (weight, bias) in zip(sent, updates, strict=True):
        number(message, str(message.metadata.dst_node_id))
        own = {"head.weight": np.asarray(weight, np.float32), "head.bias": np.asarray(bias, np.float32)}
        content = {"arrays": array_record(own), "metrics": MetricRecord({"num-examples": 5.0})}
        replies.append(Message(RecordDict(content), reply_to=message))
    merged, metrics = strategy.aggregate_train(1, replies)
    assert metrics is not None
    return to_numpy(merged)


def same(value, bias=(0.0, 0.0, 0.0)):
    return np.full((3, 2), value), bias


def test_bucketing_is_the_median_of_the_means_of_seeded_groups():
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 50.0])
    found = round_of("bucketing", [same(v) for v in values], size=2)
    order = numpy_rng(3, Stream.BUCKETS, 1).permutation(6)
    means = values[order].reshape(3, 2).mean(axis=1)
    assert found["head.weight"][0, 0] == pytest.approx(np.median(means))
    alone = round_of("bucketing", [same(v) for v in values], size=1)
    assert (alone["head.weight"] == 2.5).all()
    everyone = round_of("bucketing", [same(v) for v in values], size=6)
    assert (everyone["head.weight"] == 10).all()
    trimmed = round_of("bucketing", [same(v) for v in values], size=1, rule="trimmed_mean", beta=0.2)
    assert (trimmed["head.weight"] == 2.5).all()


def test_class_aware_median_weighs_the_medians_of_holders_and_others():
    holders = [(np.array([[0, 0], [0, 0], [v, v]]), (0.0, 0.0, 1.0)) for v in (8.0, 9.0, 100.0)]
    others = [(np.array([[0, 0], [0, 0], [v, v]]), (0.0, 0.0, -1.0)) for v in (-1.0, -2.0, -3.0, -2.0, -2.0)]
    found = round_of("class_aware_median", [*holders, *others])
    assert found["head.weight"][2, 0] == pytest.approx(3 / 8 * 9 + 5 / 8 * -2)
    assert found["head.bias"][2] == pytest.approx(3 / 8 - 5 / 8)
    few = round_of("class_aware_median", [*holders, *others], fewest=4)
    assert few["head.weight"][2, 0] == -1.5  # the median over all
    assert (found["head.weight"][:2] == 0).all()


def test_a_head_without_a_bias_is_refused_before_a_run_folder_exists(tmp_path):
    with pytest.raises(ConfigError, match=r"mlp has none; use model\.head=linear"):
        launch_in(tmp_path, "engine=inline", "model.head=cosine", "aggregator=class_aware_median")
    assert not (tmp_path / "runs").exists()


def test_trimmed_mean_leaves_out_both_ends():
    assert trimmed_mean(np.array([[9.0], [1.0], [2.0], [3.0], [-50.0]]), 0.2) == 2.0
    assert trimmed_mean(np.array([[1.0], [3.0]]), 0.4) == 2.0
