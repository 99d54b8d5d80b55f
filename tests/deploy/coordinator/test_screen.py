"""Replies that cannot be right: left out, with the site's name; all others, and what the lanes judge, as they were."""

import math

import numpy as np
import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedimb.deploy.coordinator.screen import MAX_RATIO, screen_replies
from fedimb.engine.flower_private import ensure_identity, number
from fedimb.engine.lanes import gather
from fedimb.records import array_record

SITES = {0: "linz", 1: "st-anna", 2: "va", 3: "wels"}
SENT = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float32)}


@pytest.fixture(autouse=True)
def _identity() -> None:
    ensure_identity()


def order(kind="train", content=None):
    message = Message(content or RecordDict({"arrays": array_record(SENT)}), 1, kind)
    number(message, "1")
    return message


def moved(by, **other):
    arrays = {name: value + np.float32(by) for name, value in SENT.items()} | other
    return RecordDict({"arrays": array_record(arrays), "metrics": MetricRecord({"num-examples": 3.0})})


def screen(*contents, kind="train"):
    sent = {client: order(kind) for client in range(len(contents))}
    replies = {client: Message(content, reply_to=sent[client]) for client, content in enumerate(contents)}
    return screen_replies(sent, replies, SITES)[0], replies


def test_another_shape_is_no_measure_and_left_to_admission():
    other = {"w": np.zeros((3, 2), np.float32)}
    kept, replies = screen(moved(1, **other), moved(1), moved(2))
    assert all(kept[client] is replies[client] for client in kept)


def test_a_generator_and_a_variate_are_screened_as_an_update_is():
    for key, kind in (("x.generator", "query.fedssg_teach"), ("x.variate", "train")):
        sent = {c: order(kind, RecordDict({key: array_record(SENT), "arrays": array_record(SENT)})) for c in range(3)}
        own = [{name: value * factor + (factor > 1) for name, value in SENT.items()} for factor in (1.1, 1.2, 1e7)]
        replies = {c: Message(RecordDict({key: array_record(own[c])}), reply_to=sent[c]) for c in range(3)}
        kept, left_out = screen_replies(sent, replies, SITES)
        assert list(left_out) == [2]
        assert [kept[c].has_error() for c in range(3)] == [False, False, True]
        assert f"va's '{key}' is " in kept[2].error.reason


def test_an_update_a_million_times_as_long():
    kept, replies = screen(moved(0.01), moved(0.02), moved(1e4), moved(0.01))
    assert kept[2].error.reason == "va's update is 1e+06 times as long as the others'; left out"
    assert [kept[c] is replies[c] for c in (0, 1, 3)] == [True] * 3


@given(
    st.lists(st.floats(0.01, 10, allow_subnormal=False), min_size=3, max_size=4),
    st.floats(0.001, 0.9) | st.floats(1.2, 1e4),
)
def test_the_limit_is_a_thousand_medians_of_the_others(lengths, share):
    others = lengths[1:]
    own = float(np.median(others)) * MAX_RATIO * share
    kept, _ = screen(moved(own), *(moved(length) for length in others))
    assert kept[0].has_error() == (share > 1)
    assert not any(kept[client].has_error() for client in range(1, len(kept)))


def test_of_two_sites_none_is_the_measure_of_the_other():
    kept, _ = screen(moved(0.01), moved(1e6))
    assert not any(reply.has_error() for reply in kept.values())


def test_sites_that_did_not_move_are_no_measure():
    kept, _ = screen(moved(0), moved(0), moved(1))
    assert not any(reply.has_error() for reply in kept.values())


def test_what_is_not_finite_is_left_to_the_lanes():
    kept, _ = screen(moved(1), moved(math.nan), moved(1), moved(math.inf))
    assert not any(reply.has_error() for reply in kept.values())
    answers = gather(sorted(kept.items()), reduce=True).replies
    assert [answer.usable for answer in answers] == [True, False, True, False]


def test_queries_and_errors_pass():
    kept, replies = screen(moved(1e9), moved(1), moved(1), kind="query.any")
    assert all(kept[client] is replies[client] for client in kept)
    sent = {0: order(), 1: order()}
    said = {0: Message(Error(7, "gone"), reply_to=sent[0]), 1: Message(RecordDict(), reply_to=sent[1])}
    assert screen_replies(sent, said, SITES) == (said, {})
