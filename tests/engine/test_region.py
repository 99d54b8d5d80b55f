"""Regions: a client that answers with the sum of its sites, and what of a site that sum does not show."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from safetensors.numpy import load_file

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.contracts import platform as names
from fedimb.contracts.base import declaration_fault
from fedimb.contracts.region import PARTIAL, PARTIAL_BUFFERS, REGION, REGIONS
from fedimb.data.region_rows import RegionRows
from fedimb.engine.admission import Admission, Told
from fedimb.engine.flower_private import ensure_identity
from fedimb.engine.grid import SimulationGrid, deliver
from fedimb.engine.lanes import ClientReply, LaneSum, Reduce, gather
from fedimb.engine.record_checks import Sizes
from fedimb.engine.region import NOT_CARRIED, TOO_FEW, Region, limits_record
from fedimb.privacy.egress_filter import declared_for, violation
from fedimb.records import array_record, arrays_of, pack
from fedimb.rundir.result import RunResult
from fedimb.schema import ClientsConfig
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar
from fedimb.sums import OutOfRange, Scale, WeightLimits

SIZES = {"w": (2, 3), "b": (3,)}
LIMITS = WeightLimits.of([30.0, 20.0, 11.0, 7.0])


@pytest.fixture(autouse=True)
def _identity():
    ensure_identity()  # a Flower message can only be made by a task with an identity


def clients(**changed) -> ClientsConfig:
    return validate(compose([])).clients.model_copy(update={"min_members": 2} | changed)


def asked(kind: str = "train") -> Message:
    arrays = {name: np.ones(shape, np.float32) for name, shape in SIZES.items()}
    content = {"arrays": array_record(arrays), "x.buffers": array_record({"m": np.ones(2, np.float32)})}
    content |= {REGION: limits_record(LIMITS), "x.fedimb": ConfigRecord({"round": 1, "step": 1})}
    return Message(RecordDict(content), dst_node_id=1, message_type=kind)


def site_reply(site: int, message: Message, **changed) -> Message:
    """What site 0, 1, ... answers: 30, 20, 11 or 7 rows."""
    rng = np.random.default_rng(site)
    metrics = {"num-examples": [30, 20, 11, 7][site], "train_loss": 0.1 + site, "steps": 40 + site, "seconds": 0.5}
    content = {
        "arrays": array_record({name: rng.normal(size=shape).astype(np.float32) for name, shape in SIZES.items()}),
        "metrics": MetricRecord(metrics),
        "x.buffers": array_record({"m": rng.normal(size=2).astype(np.float32)}),
        "x.confusion": array_record({"matrix": rng.integers(1, 9, (3, 3))}),
    }
    kept = {key: record for key, record in (content | changed).items() if record is not None}
    return Message(RecordDict(kept), reply_to=message)


class Sites(SimulationGrid):
    """Sites that answer as a function says."""

    def __init__(self, answer=site_reply, order=(0, 1, 2, 3)) -> None:
        super().__init__(len(order))
        self._answer, self._order, self.seen = answer, order, []

    def run_lanes(self, lanes, reduce, costs):
        sent = {client: message for lane in lanes for client, message in lane}
        self.seen += list(sent.values())

        def app(message, context):
            return self._answer(self._order[message.metadata.dst_node_id - 1], message)

        context = SimpleNamespace()
        replies = [(client, deliver(app, message, context, client)) for client, message in sent.items()]
        return [gather(replies, reduce, sent, self.admission)]


def region(grid: SimulationGrid, sites=(0, 1), **changed) -> Region:
    return Region("north", grid, sites, clients(**changed))


def scales() -> Reduce:
    arrays = {name: np.ones(shape, np.float32) for name, shape in SIZES.items()}
    return Reduce(Scale.of(arrays, LIMITS), Scale.of({"m": np.ones(2, np.float32)}, LIMITS))


def test_sums_of_regions_add_up_to_the_sum_of_their_sites_to_the_bit():
    message, flat = asked(), scales()
    whole = gather([(site, site_reply(site, message)) for site in range(4)], flat, dict.fromkeys(range(4), message))
    grid = Sites()
    replies = [(k, region(grid, sites).answer(message)[0]) for k, sites in enumerate([(0, 1), (2, 3)])]
    tree = gather(replies, scales(), dict.fromkeys(range(2), message))
    assert all(reply.usable for reply in tree.replies)
    np.testing.assert_array_equal(tree.total.model.words(), whole.total.model.words())
    np.testing.assert_array_equal(tree.total.buffers.words(), whole.total.buffers.words())
    np.testing.assert_array_equal(tree.total.confusion, whole.total.confusion)
    for name, value in whole.total.model.mean().items():
        assert tree.total.model.mean()[name].tobytes() == value.tobytes()
    assert [reply.metrics["steps"] for reply in tree.replies] == [81.0, 85.0]
    assert tree.replies[0].metrics["train_loss"] == pytest.approx((30 * 0.1 + 20 * 1.1) / 50)
    assert all(REGION not in message.content for message in grid.seen)


def test_nothing_of_a_single_site_is_in_a_regions_reply():
    one = region(Sites()).answer(asked())[0]
    swapped = region(Sites(order=(1, 0, 2, 3))).answer(asked())[0]
    assert pack(one.content) == pack(swapped.content)  # the reply does not say who sent what
    assert violation(one, declared_for("train", [REGIONS])) is None
    assert set(one.content) == {PARTIAL, PARTIAL_BUFFERS, REGION, "metrics", "x.confusion"}
    assert set(one.content["metrics"]) == {"num-examples", "train_loss", "steps", "seconds"}
    assert dict(one.content[REGION]).keys() == {"members", "units"}
    shown = [value for record in ("metrics", REGION) for value in one.content[record].values()]
    for site in (0, 1):
        alone, message = scales(), asked()
        own = gather([(site, site_reply(site, message))], alone, {site: message})
        assert not set(shown) & {own.replies[0].metrics[key] for key in ("num-examples", "train_loss", "steps")}
        assert own.total.model.units not in shown
        for name, value in own.total.model.totals().items():
            assert not np.isin(arrays_of(one.content, PARTIAL)[name], value).any()
        assert (arrays_of(one.content, "x.confusion")["matrix"] > own.total.confusion).all()


@pytest.mark.parametrize("record", [*REGIONS.train, *(r for own in REGIONS.queries.values() for r in own)])
def test_what_regions_send_is_declared_as_sums(record):
    assert declaration_fault(record) == ""
    assert record.sensitivity != "individual"


def _fails(site, message):
    if site == 1:
        raise ValueError("row 17 of patient Huber")
    return site_reply(site, message)


def test_a_region_with_too_few_usable_sites_says_so_and_nothing_else():
    reply, members = region(Sites(_fails)).answer(asked())
    assert (reply.error.code, members) == (TOO_FEW, [])
    assert reply.error.reason == (
        "north: 1 of its 2 sites gave a usable reply, and its sum must be over 2 (clients.min_members, or as many as "
        "when it was asked first); which sites, and why, is in its log"
    )
    reply, members = region(Sites(_fails), (0, 1, 2)).answer(asked())
    assert (dict(reply.content[REGION])["members"], members) == (2, [0, 2])


def test_asked_again_a_region_answers_for_the_same_sites_or_not_at_all():
    first, members = region(Sites(_fails), (0, 1, 2)).answer(asked())
    again, _ = region(Sites(), (0, 1, 2)).answer(asked(), members)  # site 1 is back, and was not in the sum
    assert pack(again.content) == pack(first.content)
    reply, _ = region(Sites(_fails), (0, 1, 2)).answer(asked(), [0, 1, 2])
    assert reply.error.code == TOO_FEW
    assert "must be over 3" in reply.error.reason


def test_asked_again_what_only_some_of_the_sites_have_is_in_the_answer_as_before():
    def without_a_matrix(site, message):
        return site_reply(site, message, **({"x.confusion": None} if site == 2 else {}))

    first, members = region(Sites(without_a_matrix), (0, 1, 2)).answer(asked())
    assert members == [0, 1, 2]
    assert "x.confusion" in first.content
    again, _ = region(Sites(without_a_matrix), (0, 1, 2)).answer(asked(), members)
    assert pack(again.content) == pack(first.content)


@pytest.mark.parametrize("key", ["x.confusion", "train_loss"])
def test_a_matrix_or_mean_of_one_site_alone_stays_in_the_region(key):
    def alone(site, message):
        metrics = {"num-examples": 20.0, "train_loss": float("nan")}
        return site_reply(
            site, message, **({} if site else {key: None} if key[0] == "x" else {"metrics": MetricRecord(metrics)})
        )

    reply = region(Sites(alone)).answer(asked())[0]
    if key == "train_loss":
        assert np.isnan(reply.content["metrics"]["train_loss"])
    else:
        assert "x.confusion" not in reply.content


def _counts(site, message):
    counts = np.array([[5, 0, 1], [7, 2, 0], [0, 0, 0], [1, 1, 1]][site])
    return Message(RecordDict({"x.counts": array_record({"counts": counts})}), reply_to=message)


def test_counts_leave_as_their_sum():
    reply, members = region(Sites(_counts)).answer(asked("query.class_counts"))
    assert arrays_of(reply.content, "x.counts")["counts"].tolist() == [12, 2, 1]
    assert (dict(reply.content[REGION]), members) == ({"members": 2}, [0, 1])
    assert violation(reply, declared_for("query.class_counts", [REGIONS])) is None
    reply, _ = region(Sites(_counts), (0, 2)).answer(asked("query.class_counts"))  # site 2 has no row
    assert reply.error.code == TOO_FEW
    assert "1 of its sites have anything in 'x.counts'" in reply.error.reason


@pytest.mark.parametrize("kind", ["query.explain", "query.masked_counts", "query.upload"])
def test_a_message_that_does_not_add_up_is_not_handed_on(kind):
    grid = Sites(_counts)
    reply, _ = region(grid).answer(asked(kind))
    assert (reply.error.code, grid.seen) == (NOT_CARRIED, [])


def test_sites_that_keep_a_state_are_refused():
    def keeps(site, message):
        return site_reply(site, message, **{"x.state": ConfigRecord({"version": 1})})

    reply, _ = region(Sites(keeps)).answer(asked())
    assert reply.error.code == NOT_CARRIED
    assert "keep a state" in reply.error.reason


def test_one_site_with_other_records_is_left_out_and_the_others_count(caplog):
    def odd(site, message):
        reply = _counts(site, message)
        if site == 1:
            reply.content["x.counts"] = array_record({"counts": np.array([1, 2])})
        return reply

    reply, members = region(Sites(odd), (0, 1, 3)).answer(asked("query.class_counts"))
    assert arrays_of(reply.content, "x.counts")["counts"].tolist() == [6, 1, 2]
    assert (dict(reply.content[REGION]), members) == ({"members": 2}, [0, 3])
    assert "site 1 sent other records" in caplog.text
    reply, _ = region(Sites(odd), (0, 1, 3), min_members=3).answer(asked("query.class_counts"))
    assert reply.error.code == TOO_FEW


def _admission(rows=(30, 20, 11, 7), **changed) -> Admission:
    sizes = Sizes({"C": 3, "D": 1, "d": 1, "F": 3}, (3,), epochs=99)
    held = {site: (n, 90) for site, n in enumerate(rows)}
    return Admission([names.PLATFORM], {}, sizes, held, **changed)


def test_one_site_that_reports_a_state_is_left_out_and_the_others_count():
    def keeps(site, message):
        return site_reply(site, message, **({"x.state": ConfigRecord({"version": 1})} if site == 1 else {}))

    own = Region("north", Sites(keeps), (0, 1, 2), clients(), _admission())
    reply, members = own.answer(asked())
    assert not reply.has_error(), reply.error.reason
    assert members == [0, 2]
    assert reply.content["metrics"]["num-examples"] == 41.0


@pytest.mark.parametrize("limits", [(5, 6, 4), (4, 7, 4), (5, 7, 3), (5, -2000, 4), (5, 80, 4), (10**6, 31, 4)])
def test_the_root_cannot_choose_who_is_in_a_sum_by_its_limits_on_weights(limits):
    message, grid = asked(), Sites()
    message.content[REGION] = limits_record(WeightLimits(*limits))
    reply, members = Region("north", grid, range(4), clients(), _admission()).answer(message)
    assert (reply.error.code, members, grid.seen) == (NOT_CARRIED, [], [])
    assert "not those of a sum over all of its sites" in reply.error.reason


def test_of_a_region_more_rows_than_before_are_no_contradiction():
    matrix = array_record({"matrix": np.array([[5, 1], [0, 2]])})
    told = Told(validation={0: np.array([3, 2])}, train={0: np.array([9, 0])})
    content = Message(RecordDict({"x.confusion": matrix}), reply_to=asked())
    record = next(one for one in names.PLATFORM.train if one.key == "x.confusion")
    contract = replace(names.PLATFORM, train=(record,))
    sizes = Sizes({"C": 2, "D": 1, "d": 1, "F": 3}, (3,))
    single = Admission([contract], {}, sizes, {0: (50, 8)}, told=told)
    assert "before" in str(single.refusal(0, content, asked()))
    tree = replace(single, regions={0: RegionRows(2, 32.0)}, _limits={})
    assert tree.refusal(0, content, asked()) is None
    beyond = replace(tree, rows={0: (50, 7)}, _limits={})
    assert beyond.refusal(0, content, asked()) is not None


def test_different_records_do_not_add_up():
    def shorter(site, message):
        reply = _counts(site, message)
        if site:
            reply.content["x.counts"] = array_record({"counts": np.array([1, 2])})
        return reply

    assert "do not add up" in region(Sites(shorter)).answer(asked("query.class_counts"))[0].error.reason


def _partial(**changed) -> ClientReply:
    content = region(Sites()).answer(asked())[0].content
    content.update({key: record for key, record in changed.items() if key != "weight"})
    return ClientReply(0, content=content, metrics={"num-examples": changed.get("weight", 50.0)})


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"weight": 40.0}, "its sum has the weight 50, and its metrics say another"),
        ({PARTIAL: array_record({"w": np.zeros((2, 3), np.int64)})}, "holds other arrays than the region was sent"),
        (
            {PARTIAL: array_record({name: np.full(shape, 2**61) for name, shape in SIZES.items()})},
            "is above what its weights allow",
        ),
        ({REGION: ConfigRecord({"members": 2, "units": -1})}, "not the words of a sum"),
    ],
)
def test_a_sum_that_cannot_be_is_not_added(changed, match):
    total = LaneSum(scales())
    with pytest.raises(OutOfRange, match=match):
        total.add_partial(_partial(**changed), asked())
    assert (total.model.units, total.model.shapes, total.buffers.shapes) == (0, {}, {})


def test_without_limits_on_weights_there_is_no_sum():
    message = asked()
    del message.content[REGION]
    assert "no limits on weights" in region(Sites()).answer(message)[0].error.reason


def run(to: Path, *words: str) -> RunResult:
    common = [
        "clients.count=4",
        "tracking=none",
        "engine=inline",
        "data.validation=0.2",
        "rounds=2",
        f"output_dir={to}",
    ]
    return launch(validate(compose([*common, *words])), None, ProgressBar(1, enabled=False))


TREE = ("clients.regions=[2,2]", "clients.min_members=2")


@pytest.mark.parametrize(
    "words",
    [
        ("model=logistic", "loss=balanced_softmax", "prior.provenance=clear_sum", "data.test={name: none}"),
        ("model=logistic", "aggregator=fedadam", "aggregation_weight=uniform", "clients.dropout=0"),
        pytest.param(("model=resnet8", "model.norm=batch", "rounds=1"), marks=pytest.mark.slow),
    ],
)
def test_a_simulated_tree_is_the_flat_run_to_the_bit(words, tmp_path):
    flat, tree = run(tmp_path, *words), run(tmp_path, *words, *TREE)
    mine, theirs = (load_file(one.folder / "artifacts" / "model" / "model.safetensors") for one in (tree, flat))
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value.tobytes() == theirs[name].tobytes(), name
    for row, other in zip(tree.rows, flat.rows, strict=True):
        np.testing.assert_array_equal(row.confusion, other.confusion)
    found = [json.loads((one.folder / "result.json").read_text()) for one in (tree, flat)]
    assert found[0]["prior"] == found[1]["prior"]


def test_a_region_that_fails_is_all_its_sites_lost():
    message = asked()
    failed = Message(Error(code=TOO_FEW, reason="north: 1 of its 2 sites"), reply_to=message)
    south = region(Sites(), (2, 3)).answer(message)[0]
    outcome = gather([(0, failed), (1, south)], scales(), dict.fromkeys(range(2), message))
    assert [reply.usable for reply in outcome.replies] == [False, True]
    assert outcome.total.weight == 18.0
