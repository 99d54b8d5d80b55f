import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict

from fedimb.contracts.base import Contract, Record
from fedimb.contracts.platform import PLATFORM
from fedimb.engine.flower_private import ensure_identity
from fedimb.privacy.egress_filter import REFUSED, declared_for, egress_filter
from fedimb.records import array_record

MINE = Contract(
    name="mine",
    train=(
        Record("x.mine", "arrays", "sums of scores", "aggregate", dtypes=("float32",), max_bytes=16, optional=True),
    ),
    queries={
        "mine_profile": (
            Record("x.profile", "arrays", "class means", "aggregate", dtypes=("float32", "int64")),
            Record("x.note", "config", "a note", "operational", max_bytes=10, optional=True),
        )
    },
)


@pytest.fixture(autouse=True)
def _identity():
    ensure_identity()  # a Flower message can only be made by a task with an identity


def pass_through(message_type, content, contracts=(PLATFORM, MINE)):
    """The reply that leaves when a client answers ``content``."""
    context = Context(1, 1, {}, RecordDict(), {})
    message = Message(RecordDict(), dst_node_id=1, message_type=message_type)
    seen = []

    def client(asked, _):
        seen.append(asked)
        return Message(content, reply_to=asked)

    reply = egress_filter(lambda _: list(contracts), message, context, client)
    assert seen == [message]
    return reply


def trained(**more):
    records = {
        "arrays": array_record({"w": np.zeros(3, np.float32)}),
        "metrics": MetricRecord({"num-examples": 3.0}),
    }
    return RecordDict({k: v for k, v in (records | more).items() if v is not None})


def refused(reply):
    assert reply.has_error()
    assert reply.error.code == REFUSED
    assert reply.error.reason.startswith("egress filter: ")
    return reply.error.reason


def test_a_declared_reply_leaves_as_it_is():
    mine = array_record({"a": np.zeros(4, np.float32)})
    everything = {
        "x.mine": mine,
        "x.buffers": array_record({"n": np.array(1)}),
        "x.confusion": array_record({"matrix": np.zeros((2, 2), np.int64)}),
        "x.state": ConfigRecord({"version": 3}),
    }
    content = trained(**everything)
    reply = pass_through("train", content)
    assert not reply.has_error()
    assert reply.content is content
    assert set(reply.content) == {"arrays", "metrics", *everything}


def test_without_optional_records_it_leaves_too():
    assert not pass_through("train", trained()).has_error()
    assert not pass_through("train", trained(), contracts=[PLATFORM]).has_error()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"x.other": array_record({"a": np.zeros(1)})}, "record 'x.other' is not declared by any contract"),
        ({"x.profile": array_record({"a": np.zeros(1, np.float32)})}, "record 'x.profile' is not declared"),
        ({"x.mine": MetricRecord({"a": 1.0})}, "record 'x.mine' is metrics, declared as arrays"),
        ({"x.mine": ConfigRecord({"a": "text"})}, "record 'x.mine' is config, declared as arrays"),
        ({"x.mine": array_record({"a": np.zeros(1)})}, "array 'a' is float64, declared as float32"),
        ({"x.mine": array_record({"a": np.zeros(5, np.float32)})}, "carries 20 bytes, declared at most 16"),
        ({"x.confusion": array_record({"matrix": np.zeros((2, 2))})}, "array 'matrix' is float64, declared as int64"),
        ({"x.state": ConfigRecord({"version": "é" * 33})}, "carries 66 bytes, declared at most 64"),
        ({"metrics": MetricRecord({"num-examples": 1.0, "per-row": [0.0] * 600})}, "at most 4096"),
        ({"arrays": None}, "record 'arrays' is declared but missing"),
        ({"metrics": None}, "record 'metrics' is declared but missing"),
    ],
)
def test_anything_else_stays_inside(more, reason):
    assert reason in refused(pass_through("train", trained(**more)))


def test_a_record_of_another_contract_is_not_let_through():
    content = trained(**{"x.mine": array_record({"a": np.zeros(1, np.float32)})})
    assert "not declared" in refused(pass_through("train", content, contracts=[PLATFORM]))


def test_a_query_lets_out_only_its_own_records():
    profile = {"x.profile": array_record({"a": np.zeros(2, np.float32), "n": np.zeros(2, np.int64)})}
    assert not pass_through("query.mine_profile", RecordDict(profile)).has_error()
    allowed = RecordDict(
        {**profile, "x.note": ConfigRecord({"a": "0123456789"}), "x.state": ConfigRecord({"version": 1})}
    )
    assert not pass_through("query.mine_profile", allowed).has_error()
    assert "'arrays' is not declared" in refused(pass_through("query.mine_profile", trained(**profile)))
    assert "'x.profile' is declared but missing" in refused(pass_through("query.mine_profile", RecordDict()))
    both = RecordDict({**profile, "x.counts": array_record({"counts": np.zeros(2, np.int64)})})
    assert "'x.counts' is not declared" in refused(pass_through("query.mine_profile", both))


def test_class_counts_are_whole_numbers():
    counts = RecordDict({"x.counts": array_record({"counts": np.array([3, 0], np.int64)})})
    assert not pass_through("query.class_counts", counts).has_error()
    shares = RecordDict({"x.counts": array_record({"counts": np.array([1.0, 0.0])})})
    assert "declared as int64" in refused(pass_through("query.class_counts", shares))


@pytest.mark.parametrize("message_type", ["query.unheard_of", "query.mine_profil", "evaluate"])
def test_a_message_no_contract_declares_gets_nothing(message_type):
    assert all(record.key == "x.state" for record in declared_for(message_type, [PLATFORM, MINE]))
    secret = RecordDict({"x.profile": array_record({"a": np.zeros(2, np.float32)})})
    assert "'x.profile' is not declared" in refused(pass_through(message_type, secret))


def test_error_replies_pass_as_they_are():
    reply = pass_through("train", Error(code=1302, reason="state_lost: client 3"))
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (1302, "state_lost: client 3")


def test_a_failing_client_is_not_hidden():
    def client(message, context):
        raise RuntimeError("boom")

    message = Message(RecordDict(), dst_node_id=1, message_type="train")
    with pytest.raises(RuntimeError, match="boom"):
        egress_filter(lambda _: [PLATFORM], message, Context(1, 1, {}, RecordDict(), {}), client)
