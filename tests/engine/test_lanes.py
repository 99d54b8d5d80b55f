import itertools
import re

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.engine.flower_private import ensure_identity
from fedimb.engine.lanes import (
    MAX_LANES,
    cut_lanes,
    gather,
    merge_lanes,
    read_reply,
    run_lane,
    run_lanes,
)
from fedimb.records import array_record, payload_bytes

few = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True)
def _identity():
    ensure_identity()  # a Flower message can only be made by a task with an identity


def order():
    return Message(RecordDict(), dst_node_id=1, message_type="train")


def reply(client, weight=None, confusion=False):
    rng = np.random.default_rng(client)
    content = RecordDict(
        {
            "arrays": array_record({"w": rng.normal(size=(2, 3)).astype(np.float32), "s": np.array(rng.normal())}),
            "metrics": MetricRecord({"num-examples": client + 1 if weight is None else weight, "train_loss": 0.5}),
            "x.buffers": array_record({"n": np.array(client)}),
            "x.note": ConfigRecord({"client": client}),
        }
    )
    if confusion:
        content["x.confusion"] = array_record({"matrix": rng.integers(0, 9, (3, 3))})
    return Message(content, reply_to=order())


@given(st.integers(0, 500))
def test_lanes_are_contiguous_even_and_at_most_32(count):
    lanes = cut_lanes(count)
    assert len(lanes) == min(MAX_LANES, count)
    assert [i for lane in lanes for i in range(count)[lane]] == list(range(count))
    sizes = [lane.stop - lane.start for lane in lanes]
    assert not sizes or (max(sizes) - min(sizes) <= 1 and min(sizes) >= 1)


def same(one, two):
    assert one.weight == two.weight
    for mine, theirs in ((one.model, two.model), (one.buffers, two.buffers)):
        assert mine.shapes == theirs.shapes
        np.testing.assert_array_equal(mine.words(), theirs.words())
    assert (one.confusion is None) == (two.confusion is None)
    if one.confusion is not None:
        np.testing.assert_array_equal(one.confusion, two.confusion)


@few
@given(st.integers(1, 40), st.sets(st.integers(1, 39)), st.booleans())
def test_sums_do_not_depend_on_how_clients_are_cut_into_lanes(count, edges, confusion):
    def lane(a, b):
        return gather([(c, reply(c, confusion=confusion)) for c in range(a, b)], reduce=True)

    stops = sorted({0, count, *(e for e in edges if e < count)})
    split = merge_lanes([lane(a, b) for a, b in itertools.pairwise(stops)])
    same(split.total, lane(0, count).total)
    assert [a.client for a in split.replies] == list(range(count))


@pytest.mark.parametrize("reduce", [True, False])
def test_a_worker_running_a_lane_sums_bit_for_bit_as_the_driver_gathering_it(reduce):
    instructions = [(client, order()) for client in range(9)]
    ran = run_lane(instructions, lambda client, message: reply(client, 0.1 * client, confusion=True), reduce)
    gathered = gather([(client, reply(client, 0.1 * client, confusion=True)) for client in range(9)], reduce)
    same(ran.total, gathered.total)
    assert [a.metrics for a in ran.replies] == [a.metrics for a in gathered.replies]
    assert [list(a.content) for a in ran.replies] == [list(a.content) for a in gathered.replies]


def test_the_sum_is_the_weighted_sum():
    total = gather([(c, reply(c)) for c in range(5)], reduce=True).total
    weights = np.arange(1.0, 6.0)
    assert total.weight == weights.sum()
    arrays = np.stack([reply(c).content["arrays"]["w"].numpy().astype(np.float64) for c in range(5)])
    half = 0.5 * 5 / 2 ** total.model.scale.shift("w")  # each product is rounded once
    np.testing.assert_allclose(total.model.sums()["w"], np.tensordot(weights, arrays, 1), rtol=0, atol=half)
    assert total.model.sums()["s"].shape == ()
    assert total.buffers.sums()["n"] == (weights * np.arange(5)).sum()


def test_adding_lanes_leaves_their_own_sums_alone():
    lanes = [gather([(c, reply(c, confusion=True))], reduce=True) for c in range(3)]
    before = [lane.total.model.words() for lane in lanes], [lane.total.confusion.copy() for lane in lanes]
    first, again = merge_lanes(lanes), merge_lanes(lanes)
    same(first.total, again.total)
    for lane, arrays, confusion in zip(lanes, *before, strict=True):
        np.testing.assert_array_equal(lane.total.model.words(), arrays)
        np.testing.assert_array_equal(lane.total.confusion, confusion)


def test_replies_are_merged_in_the_order_given_and_sums_in_any():
    outcomes = [gather([(client, reply(client, 0.1 * (client + 1)))], True) for client in range(4)]
    expected = merge_lanes(outcomes)
    assert expected.total.weight == pytest.approx(1.0)
    for order_ in itertools.permutations(outcomes):
        merged = merge_lanes(order_)
        same(merged.total, expected.total)
        assert [a.client for a in merged.replies] == [a.client for outcome in order_ for a in outcome.replies]


def test_all_lanes_of_a_call_have_one_sum():
    lanes = [[(c, order()) for c in range(start, start + 3)] for start in (0, 3, 6)]
    outcomes = run_lanes(lanes, lambda client, message: reply(client), True)
    assert [[a.client for a in outcome.replies] for outcome in outcomes] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert [outcome.total.weight for outcome in outcomes] == [45.0, 0.0, 0.0]
    same(merge_lanes(outcomes).total, gather([(c, reply(c)) for c in range(9)], True).total)


def test_no_lanes_sum_to_nothing():
    assert merge_lanes([]).replies == []
    assert merge_lanes([]).total.weight == 0


def test_reducing_keeps_a_methods_records_and_the_count_of_bytes():
    message = reply(3, confusion=True)
    size = payload_bytes(message.content)
    answer = gather([(3, message)], reduce=True).replies[0]
    assert list(answer.content) == ["x.note"]
    assert answer.up_bytes == size
    assert answer.metrics == {"num-examples": 4.0, "train_loss": 0.5}


@pytest.mark.parametrize("reduce", [True, False])
def test_confusion_matrices_are_summed_and_taken_out_before_a_strategy_looks(reduce):
    outcome = gather([(c, reply(c, confusion=True)) for c in range(4)], reduce)
    matrices = [reply(c, confusion=True).content["x.confusion"]["matrix"].numpy() for c in range(4)]
    np.testing.assert_array_equal(outcome.total.confusion, sum(matrices))
    assert outcome.total.confusion.dtype == np.int64
    for answer, matrix in zip(outcome.replies, matrices, strict=True):
        assert "x.confusion" not in answer.content
        np.testing.assert_array_equal(answer.hits, matrix.diagonal())
        np.testing.assert_array_equal(answer.support, matrix.sum(axis=1))


def test_an_unusable_reply_adds_no_weight_but_its_matrix_counts():
    outcome = gather([(0, reply(0)), (1, reply(1, weight=0.0, confusion=True)), (2, reply(2, weight=np.nan))], True)
    np.testing.assert_array_equal(outcome.total.model.words(), gather([(0, reply(0))], True).total.model.words())
    assert outcome.total.weight == 1
    assert outcome.total.confusion is not None
    assert [a.usable for a in outcome.replies] == [True, False, False]
    assert outcome.replies[1].error.startswith("empty")
    assert "num-examples is nan" in outcome.replies[2].error


@pytest.mark.parametrize(
    ("where", "value", "says", "diverged"),
    [
        ("arrays", np.nan, "a value that is not finite", True),
        ("arrays", -np.inf, "a value that is not finite", True),
        ("arrays", 65.0, "'w' holds a value of size 65, above the bound 64 .* clients.max_value_ratio", True),
        ("x.buffers", np.nan, "a value that is not finite", True),
        ("x.buffers", -1e300, "'n' holds a value of size 1e\\+300, above the bound", True),
        ("metrics", 2.0**21, "the weight 2.09715e\\+06 is above 1.04858e\\+06, the largest one expected", False),
        ("metrics", 1e-13, "the weight 1e-13 is too small", False),
    ],
)
def test_what_cannot_be_summed_is_not_used_and_leaves_no_trace_in_the_sum(where, value, says, diverged):
    wrong = reply(1)
    if where == "metrics":
        wrong.content[where]["num-examples"] = value
    else:
        record = {name: array.numpy() for name, array in wrong.content[where].items()}
        name = "w" if where == "arrays" else "n"
        record[name] = np.full(record[name].shape, 0.5)
        record[name].flat[-1] = value
        wrong.content[where] = array_record(record)
    outcome = gather([(0, reply(0)), (1, wrong), (2, reply(2))], True)
    assert [a.usable for a in outcome.replies] == [True, False, True]
    assert re.search(says, outcome.replies[1].error)
    assert outcome.replies[1].diverged is diverged
    same(outcome.total, gather([(0, reply(0)), (2, reply(2))], True).total)


def test_replies_are_judged():
    failed = read_reply(4, Message(Error(code=1300, reason="boom"), reply_to=order()))
    assert (failed.usable, failed.error, failed.up_bytes) == (False, "boom", 0)
    assert read_reply(4, Message(Error(code=7, reason=""), reply_to=order())).error == "error 7"
    diverged = reply(1)
    diverged.content["x.mine"] = array_record({"a": np.array([np.nan])})
    assert "not finite" in read_reply(1, diverged).error
    counted = reply(1)
    counted.content["x.mine"] = array_record({"a": np.array([2**60]), "text": np.array(["a"])})
    assert read_reply(1, counted).usable


def test_a_querys_reply_needs_no_weight():
    query = Message(RecordDict(), dst_node_id=1, message_type="query.mine")
    answer = read_reply(2, Message(RecordDict({"x.a": array_record({"a": np.zeros(2)})}), reply_to=query))
    assert answer.usable
    assert answer.metrics == {}
    assert answer.up_bytes == 16
