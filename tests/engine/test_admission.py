"""Admission: what every contract declares is what clients send, and nothing else passes, on any engine."""

import math
import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedimb import registry
from fedimb.contracts.base import Contract, Record
from fedimb.contracts.variate import VARIATE
from fedimb.engine.admission import Admission, check_total
from fedimb.engine.flower_private import ensure_identity, number
from fedimb.engine.lanes import gather
from fedimb.engine.record_checks import Refusal, Sizes
from fedimb.errors import RunFailed
from fedimb.records import array_record
from fedimb.text import clean_text

SIZES = Sizes({"C": 2, "D": 2, "d": 3, "F": 4}, (4,), epochs=2, batch_size=8)
SENT = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b.running_var": np.ones(2, np.float32)}


@pytest.fixture(autouse=True)
def _identity() -> None:
    ensure_identity()


def admission(*names, settings=None, sizes=SIZES, **more):
    contracts = [registry.build("contract", name) for name in ("platform", *names)]
    return Admission(contracts, settings or {}, sizes, {0: (30, 10)}, **more)


def request(kind="train", **records):
    message = Message(RecordDict({"arrays": array_record(SENT), **records}), 1, kind)
    number(message, "1")
    return message


def fault(kind="train", by=None, sent=None, **records):
    sent = sent or request(kind)
    reply = Message(RecordDict(records), reply_to=sent)
    return (by or admission()).refusal(0, reply, sent)


def trained(**metrics):
    own = {"num-examples": 30.0, "train_loss": 0.5, "steps": 8.0, "seconds": 0.1} | metrics
    return {"arrays": array_record(SENT), "metrics": MetricRecord(own)}


def matrix(*rows):
    return array_record({"matrix": np.array(rows, np.int64)})


def test_an_honest_reply_passes():
    assert (
        fault(**trained(), **{"x.confusion": matrix([5, 1], [0, 4]), "x.state": ConfigRecord({"version": 3})}) is None
    )
    assert fault(**trained(train_loss=math.nan, steps=0.0)) is None


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"num-examples": 1e15}, "'num-examples': is 1e+15, allowed are 0 to 30"),
        ({"num-examples": -1.0}, "'num-examples': is -1, allowed are 0 to 30"),
        ({"num-examples": math.nan}, "'num-examples': is nan, not finite"),
        ({"num-examples": [30.0]}, "'num-examples': is not a number"),
        ({"steps": 1e9}, "'steps': is 1e+09, allowed are 0 to 8"),
        ({"steps": 0.5}, "'steps': is 0.5, not a whole number"),
        ({"seconds": -1.0}, "'seconds': is -1"),
        ({"start_loss": math.inf}, "'start_loss': is inf"),
    ],
)
def test_weights_and_metrics_out_of_range(metrics, text):
    assert text in str(fault(**trained(**metrics)))


def test_a_reply_without_a_weight_is_no_empty_one():
    assert str(fault(arrays=array_record(SENT), metrics=MetricRecord({"steps": 1}))) == (
        "record 'metrics', 'num-examples': is missing"
    )


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (matrix([5, 1], [-1, 4]), "holds -1, allowed are 0 to 10"),
        (matrix([5, 1], [1, 4]), "adds up to 11, more than the 10 validation rows"),
        (matrix([5, 1, 0], [1, 4, 0]), "has shape [2, 3], declared as C x C"),
        (array_record({"matrix": np.eye(2)}), "is float64, declared as int64"),
        (array_record({"other": np.eye(2, dtype=np.int64)}), "'other': is not declared"),
        (ArrayRecord(), "'matrix': is missing"),
        (ConfigRecord({"matrix": "all of them"}), "is config, declared as arrays"),
    ],
)
def test_confusion_matrices(found, text):
    assert text in str(fault(**trained(), **{"x.confusion": found}))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"w": np.zeros((3, 2), np.float32)}, "'w': is float32 [3, 2], not float32 [2, 3] as it was sent"),
        ({"w": np.zeros((2, 3))}, "'w': is float64 [2, 3], not float32"),
        ({"head": np.zeros(2, np.float32)}, "'head': is none of the arrays the client was sent"),
    ],
)
def test_weights_of_another_model(change, text):
    assert text in str(fault(**(trained() | {"arrays": array_record(SENT | change)})))


def test_a_missing_array_and_a_negative_variance():
    assert "other arrays than the client was sent (b.running_var)" in str(
        fault(**(trained() | {"arrays": array_record({"w": SENT["w"]})}))
    )
    buffers = {"bn.running_var": np.ones(2, np.float32), "bn.num_batches_tracked": np.array(3)}
    sent = request(**{"x.buffers": array_record(buffers)})
    assert fault(sent=sent, **trained(), **{"x.buffers": array_record(buffers)}) is None
    bad = buffers | {"bn.running_var": np.array([1, -1], np.float32)}
    assert "'bn.running_var': holds -1" in str(fault(sent=sent, **trained(), **{"x.buffers": array_record(bad)}))


def test_weights_that_are_not_finite_are_left_to_the_lanes():
    bad = {name: np.full_like(value, np.nan) for name, value in SENT.items()}
    assert fault(**(trained() | {"arrays": array_record(bad)})) is None


@pytest.mark.parametrize("shape", [(10**12,), (2, 3), (1,) * 40])
def test_nothing_is_allocated_for_a_shape_that_the_bytes_do_not_have(shape):
    plain = Array(np.zeros(2, np.float32))
    claim = ArrayRecord({"counts": Array("int64", shape, "numpy.ndarray", plain.data)})
    assert fault("query.class_counts", **{"x.counts": claim}) is not None
    objects = ArrayRecord({"counts": Array("object", (2,), "numpy.ndarray", b"\x80\x04.")})
    assert "is object, not numbers" in str(fault("query.class_counts", **{"x.counts": objects}))


def test_undeclared_and_missing_records_and_a_type_the_reply_gives_itself():
    assert "x.patients" in str(fault(**trained(), **{"x.patients": ConfigRecord({"name": "Ada"})}))
    assert str(fault("query.class_counts")) == "record 'x.counts': is missing"
    sent = request()
    reply = Message(RecordDict({}), reply_to=request("query.public_share"))
    assert admission("public").refusal(0, reply, sent) == Refusal("arrays", "", "is missing")


def arrays(**values):
    return array_record({name: np.asarray(value) for name, value in values.items()})


ONE = np.ones(1, np.int32)
PRUNED = ("kept", "anomalous", "redundant")
METHODS = [
    ("query.class_counts", "plain", "x.counts", {"counts": np.array([20, 10])}, {"counts": np.array([20, 11])}),
    ("query.scored", "plain", "x.scores", {"none": np.eye(2, dtype=int)}, {"none": -np.eye(2, dtype=int)}),
    ("query.masked_counts", "plain", "x.counts", {"counts": np.array([2**64 - 1, 3], np.uint64)}, {
        "counts": np.zeros(3, np.uint64)}),
    ("query.active_start", "active", "x.choice", {"asked": ONE, "local": ONE, "distance": np.array([np.nan], "f4")},
     {"asked": 31 * ONE, "local": ONE, "distance": np.zeros(1, "f4")}),
    ("query.fairfal_balance", "fairfal", "x.balance", {"balance": np.array([0.5], "f4")},
     {"balance": np.array([1e9], "f4")}),
    ("query.active_prototypes", "active", "x.class_sums", {"sums": np.full((2, 3), -30, "f4")},
     {"sums": np.full((2, 3), 31, "f4")}),
    ("query.coreset_centres", "coreset", "x.class_means", {"means": np.full((2, 3), np.nan, "f4")},
     {"means": np.zeros((2, 4), "f4")}),
    ("query.coreset_choose", "coreset", "x.chosen",
     {"kept": np.array([1, 2], "i4"), "held": np.array([10, 20], "i4"), "steps": ONE},
     {"kept": np.array([1, 2], "i4"), "held": np.array([10**9, 20], "i4"), "steps": ONE}),
    ("query.scope_prototypes", "scope", "x.class_sums", {"sums": np.ones((2, 7), "f4")},
     {"sums": np.full((2, 7), np.inf, "f4")}),
    ("query.scope_profile", "scope", "x.profile",
     {"counts": np.array([1, 2], "i4"), "mean": np.zeros((2, 3), "f4"), "variance": np.ones((2, 3), "f4")},
     {"counts": np.array([1, 2], "i4"), "mean": np.zeros((2, 3), "f4"), "variance": -np.ones((2, 3), "f4")}),
    ("query.scope_prune", "scope", "x.kept", {name: np.array([1, 2], "i4") for name in PRUNED},
     {name: np.array([-1, 2], "i4") for name in PRUNED}),
    ("query.public_gaussians", "public", "x.class_gaussians",
     {"counts": np.array([1, 2]), "mean": np.zeros((2, 3), "f4"), "covariance": np.zeros((2, 3, 3), "f4")},
     {"counts": np.array([1, 10**15]), "mean": np.zeros((2, 3), "f4"), "covariance": np.zeros((2, 3, 3), "f4")}),
    ("query.c2tc_centroids", "c2tc", "x.centroids",
     {"centres": np.full((2, 3, 4), np.nan, "f4"), "rows": np.ones((2, 3), "i8"), "people": np.ones((2, 3), "i8")},
     {"centres": np.zeros((2, 3, 4), "f4"), "rows": np.full((2, 3), 6), "people": np.ones((2, 3), "i8")}),
    ("query.feature_select_sums", "feature_select", "x.column_sums", {"sums": np.ones((3, 4), "i8")},
     {"sums": np.ones((3, 5), "i8")}),
    ("query.feature_select_counts", "feature_select", "x.feature_counts", {"counts": np.ones((2, 4, 10), "i8")},
     {"counts": -np.ones((2, 4, 10), "i8")}),
    ("query.fedssg_coverage", "fedssg", "x.coverage", {"counts": np.full((2, 2), 7, "i4")},
     {"counts": np.full((2, 2), 8, "i4")}),
    ("query.fedssg_take", "fedssg", "x.taken", {"taken": np.array([900, 0], "i4")}, {"taken": np.array([-1, 0], "i4")}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "method", "key", "good", "bad"), METHODS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_methods_records(kind, method, key, good, bad):
    by = admission(method)
    assert fault(kind, by, **{key: arrays(**good)}) is None
    assert isinstance(fault(kind, by, **{key: arrays(**bad)}), Refusal)
    first = next(iter(good))
    if key != "x.scores":
        assert "is missing" in str(fault(kind, by, **{key: arrays(**{k: v for k, v in good.items() if k != first})}))


def test_noise_widens_the_limits_and_only_that_much():
    by = admission("fedssg", settings={"fedssg": {"epsilon": 0.5}})
    assert fault("query.fedssg_coverage", by, **{"x.coverage": arrays(counts=np.full((2, 2), 60, "i4"))}) is None
    wild = arrays(counts=np.full((2, 2), 10**6, "i4"))
    assert "allowed are 0 to 110" in str(fault("query.fedssg_coverage", by, **{"x.coverage": wild}))


def test_a_matrix_whose_rows_changed_their_classes_is_refused():
    by = admission()
    by.told.validation[0] = np.array([8, 2])
    swapped = {"x.confusion": matrix([1, 1], [3, 5])}
    assert "'matrix': has 8 rows of class 1, of which there were 2 before" in str(fault(by=by, **trained(), **swapped))
    assert fault(by=by, **trained(), **{"x.confusion": matrix([3, 5], [0, 2])}) is None
    assert fault(by=by, **trained(), **{"x.confusion": matrix([3, 4], [0, 1])}) is None, "records were withdrawn"
    worker = pickle.loads(pickle.dumps(by.only([0])))
    assert fault(by=worker, **trained(), **swapped) == fault(by=by, **trained(), **swapped)
    assert by.told.only([1]).validation == {}
    own = array_record({"none": np.array([[3, 5], [0, 2]]), "la_post": np.array([[2, 0], [5, 3]])})
    assert "'la_post': has rows of other classes" in str(fault("query.scored", by, **{"x.scores": own}))
    both = {name: np.array([[1, 1], [5, 3]]) for name in ("none", "la_post")}
    assert "'none': has 8 rows of class 1" in str(fault("query.scored", by, **{"x.scores": array_record(both)}))


def test_a_matrix_with_rows_of_a_class_that_was_counted_empty_is_refused():
    by = admission()
    by.told.train[0] = np.array([30, 0])
    found = fault(by=by, **trained(), **{"x.confusion": matrix([2, 1], [3, 4])})
    assert "'matrix': has 7 rows of class 1, of which the client has counted none to train on" in str(found)
    assert fault(by=by, **trained(), **{"x.confusion": matrix([6, 1], [0, 0])}) is None


def test_weights_by_weighting_and_methods_that_add_rows():
    uniform = Sizes(SIZES.axes, (4,), weighting="uniform")
    assert "0 to 1" in str(fault(by=admission(sizes=uniform), **trained(**{"num-examples": 2.0, "steps": 1.0})))
    assert fault(by=admission("fedssg"), **trained(**{"num-examples": 90.0, "steps": 100.0})) is None


def test_the_variate_of_scaffold_has_the_shapes_of_the_one_sent():
    platform = registry.build("contract", "platform")
    with_variate = Contract("platform", (*platform.train, VARIATE), platform.queries)
    by = Admission([with_variate], {}, SIZES, {0: (30, 10)})
    sent = request(**{"x.variate": array_record({"w": SENT["w"]})})
    assert fault(by=by, sent=sent, **trained(), **{"x.variate": array_record({"w": SENT["w"]})}) is None
    other = array_record({"w": np.zeros(3, np.float32)})
    assert "as it was sent" in str(fault(by=by, sent=sent, **trained(), **{"x.variate": other}))


def test_a_record_that_declares_nothing_must_be_finite():
    own = Contract("own", queries={"own_ask": (Record("x.own", "arrays", "a mean", "aggregate"),)})
    by = Admission([registry.build("contract", "platform"), own], {}, SIZES, {0: (30, 10)})
    assert fault("query.own_ask", by, **{"x.own": arrays(mean=np.zeros(2))}) is None
    assert "is not finite at [1]" in str(fault("query.own_ask", by, **{"x.own": arrays(mean=[0.0, np.nan])}))


def test_lanes_keep_the_fault_with_the_reply_and_use_nothing_of_it():
    sent = {c: request() for c in range(3)}
    replies = [Message(RecordDict(trained()), reply_to=sent[c]) for c in range(3)]
    replies[1].content["x.confusion"] = matrix([10**9, 0], [0, 0])
    by = Admission([registry.build("contract", "platform")], {}, SIZES, dict.fromkeys(range(3), (30, 10)))
    outcome = gather(enumerate(replies), True, sent, by)
    assert [reply.usable for reply in outcome.replies] == [True, False, True]
    assert outcome.replies[1].refused.record == "x.confusion"
    assert outcome.total.weight == 60
    assert outcome.total.confusion is None


def test_an_opened_total_out_of_range_names_nobody():
    check_total("counts", np.array([3, 4]), 7)
    for total in (np.array([3, 5]), np.array([-1, 3]), np.array([2**62, 2**62])):
        with pytest.raises(RunFailed, match=r"out of range .* is discarded: at least one client"):
            check_total("counts", total, 7)


def test_texts_from_outside_are_one_clean_line():
    assert clean_text("a\x1b[31m\r\nb\u202ec") == "a [31m b c"
    assert len(clean_text("x" * 10**6)) == 500
