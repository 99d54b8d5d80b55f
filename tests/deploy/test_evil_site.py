"""One site lies, in one process: nothing it sends is used before it is checked, it is named, and the run goes on."""

import json
import re

import numpy as np
import pytest
from deployed import assert_same, events, small_study, usable, weights
from evil_site import EvilSite, round_of
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from loopback import Loopback
from study_plans import plan_of, run_config

from fedimb.deploy.coordinator.serve import join_refusal, run_sites, serve
from fedimb.deploy.site.approvals import receive_plan
from fedimb.deploy.study_plan.limits import SiteLimits
from fedimb.engine.flower_private import ensure_identity
from fedimb.errors import RunFailed
from fedimb.records import array_record, arrays_of
from fedimb.report.panel import panels
from fedimb.rundir.result import RunResult
from fedimb.serverapp.left_out import set_aside

SITES = {"linz": 60, "st-anna": 90, "va": 75}


def approved(tmp_path, *words):
    study = small_study(tmp_path, SITES, "tracking=none", *words)
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    return study


def lies(message, reply):
    """Another lie in each round; the first three are refused, then nobody asks again."""
    match round_of(message):
        case 1:
            reply.content["metrics"]["num-examples"] = 1e15
        case 2:
            matrix = arrays_of(reply.content, "x.confusion")["matrix"]
            matrix[0, 0] = -(10**12)
            reply.content["x.confusion"] = array_record({"matrix": matrix})
        case 3:
            weights_of = arrays_of(reply.content, "arrays")
            data = {name: Array("float32", (10**12,), "numpy.ndarray", b"") for name in weights_of}
            reply.content["arrays"] = ArrayRecord(data)
        case number if number > 3:
            raise AssertionError("a site that is set aside is not asked again")


def test_every_reply_is_screened_its_site_named_and_set_aside(tmp_path):
    study = approved(tmp_path)
    folder = study.new("rounds=5")
    serve(folder.path, EvilSite(study.homes.values(), "va", lies))
    result = RunResult.read(folder.path)
    assert usable(folder) == [2] * 5
    said = [f"{one['site']} {one['where']}: {one['record']} {one['field']} {one['reason']}" for one in result.left_out]
    assert said[0] == "va round 1: metrics num-examples is 1e+15, allowed are 0 to 56"
    assert said[1] == "va round 2: x.confusion matrix holds -1e+12, allowed are 0 to 19"
    assert said[2].startswith("va round 3: arrays ")
    assert said[3] == "va from then on:   set aside: 3 of its replies were refused (left_out.jsonl)"
    assert events(folder)[0] == "va: record 'metrics', 'num-examples': is 1e+15, allowed are 0 to 56"
    journal = [json.loads(line) for line in (folder.path / "journal.jsonl").read_text().splitlines()]
    assert [one["record"] for one in journal if one.get("event") == "left out"] == ["metrics", "x.confusion", "arrays"]
    assert [one["site"] for one in journal if one.get("event") == "set aside"] == ["va"]
    text = panels(result)
    assert "va, round 1: metrics num-examples is 1e+15" in text
    assert list(result.without_site["fedavg"]) == ["linz", "st-anna"]
    assert np.abs(weights(result)["head.weight"]).max() < 5


def test_no_site_is_more_than_its_share_of_a_mean_and_of_the_score(tmp_path, caplog):
    """va has 300 of 360 rows, and says of all that it validates that they are found."""
    study = small_study(
        tmp_path, {"linz": 30, "st-anna": 30, "va": 300}, "tracking=none", "clients.max_weight_share=0.5"
    )
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    folder = study.new("rounds=1")

    def boasts(message, reply):
        for key in ("x.confusion", "x.scores"):
            if key in reply.content:
                found = {name: np.diag(matrix.sum(axis=1)) for name, matrix in arrays_of(reply.content, key).items()}
                reply.content[key] = array_record(found)

    serve(folder.path, EvilSite(study.homes.values(), "va", boasts))
    assert re.search(r"va: weight 22\d cut to 4\d \(clients.max_weight_share\)", caplog.text)
    result = RunResult.read(folder.path)
    assert result.confusion.sum() <= 2 * 16  # of 75 rows of va's, as many count as the others have
    alone = result.without_site["fedavg"]
    assert list(alone) == ["linz", "st-anna", "va"]
    assert alone["va"]["macro_recall"] < min(alone["linz"]["macro_recall"], alone["st-anna"]["macro_recall"])


def swaps(message, reply):
    """From round 2 on, and in the scores, the rows of the rare class are said to be of the other one."""
    scores = reply.content.array_records.get("x.scores")
    if round_of(message) == 2 or scores is not None:
        key = "x.confusion" if scores is None else "x.scores"
        matrices = arrays_of(reply.content, key)
        reply.content[key] = array_record({name: matrix[::-1, ::-1].copy() for name, matrix in matrices.items()})


def test_a_site_that_swaps_rare_and_common_rows_is_named_after_a_kill_too(tmp_path):
    study = approved(tmp_path, "evaluation.every=1")
    folder = study.new("rounds=2")

    def dies(message, reply):
        if round_of(message) == 2:
            raise OSError("the servers are gone")

    with pytest.raises(OSError, match="gone"):
        serve(folder.path, EvilSite(study.homes.values(), "va", dies))
    serve(folder.path, EvilSite(study.homes.values(), "va", swaps, 2))
    found = [(one["site"], one["where"], one["record"], one["field"]) for one in RunResult.read(folder.path).left_out]
    assert found == [("va", "round 2", "x.confusion", "matrix"), ("va", "query scored", "x.scores", "none")]
    assert all(
        re.search(r"has \d+ rows of class \d, of which there were \d+ before", one["reason"])
        for one in RunResult.read(folder.path).left_out
    )


@pytest.mark.slow
def test_killed_and_resumed_the_same_site_is_set_aside_in_the_same_round(tmp_path):
    study = approved(tmp_path)
    whole, folder = study.new("rounds=5"), study.new("rounds=5")
    serve(whole.path, EvilSite(study.homes.values(), "va", lies))

    def dies(message, reply):
        if round_of(message) == 3:
            raise OSError("the servers are gone")
        return lies(message, reply)

    with pytest.raises(OSError, match="gone"):
        serve(folder.path, EvilSite(study.homes.values(), "va", dies, 2))
    serve(folder.path, EvilSite(study.homes.values(), "va", lies, 3))
    one, other = RunResult.read(whole.path), RunResult.read(folder.path)
    assert one.left_out == other.left_out
    assert_same(one, other, 0)


def test_an_error_is_no_refused_reply_and_its_text_is_one_clean_line(tmp_path):
    study = approved(tmp_path)
    folder = study.new("rounds=1")

    def shouts(message, reply):
        return (
            Message(Error(7, "\x1b[2J\nall is well\u202e" + "x" * 10**6), reply_to=message)
            if round_of(message)
            else None
        )

    serve(folder.path, EvilSite(study.homes.values(), "va", shouts))
    assert usable(folder) == [2]
    assert RunResult.read(folder.path).left_out == []
    assert events(folder)[0].startswith("va: [2J all is well xxx")
    assert len(events(folder)[0]) < 520


def test_an_audit_line_that_is_none_is_refused_like_any_record(tmp_path):
    study = approved(tmp_path)
    folder = study.new("rounds=2")

    def forges(message, reply):
        if round_of(message) == 1:
            reply.content["x.audit"] = ConfigRecord({"line": "all", "sha": 3})

    serve(folder.path, EvilSite(study.homes.values(), "va", forges))
    assert [one["record"] for one in RunResult.read(folder.path).left_out] == ["x.audit"]
    assert usable(folder) == [2, 3]


def plan(**limits):
    config = run_config("clients.count=2")
    tight = {"most_rows": 100, "rows": {"va": 50}, "values": [[0, 10]] * 4}
    return plan_of(config, limits=SiteLimits(**(tight | limits)))


def joined(sums=None, **about):
    ensure_identity()
    own = {
        "site": "va",
        "rows": 40,
        "validation": 10,
        "version": "a" * 16,
        "scale": 1.0,
        "key": f"{'0' * 64}:{'A' * 140}",
    }
    content = RecordDict({"x.site": ConfigRecord(own | {"code": "0.2.0 abc"} | about)})
    if sums is not None:
        content["x.sums"] = array_record({"sums": np.asarray(sums, np.float64), "scaled": np.ones(4, bool)})
    asked = Message(RecordDict(), 1, "query.join_site")
    return Message(content, reply_to=asked)


SUMS = np.array([[40, 40, 40, 0], [200, 0, 400, 0], [1200, 0, 4000, 0]], np.float64)


def test_an_honest_site_joins():
    assert join_refusal(plan(), "va", joined(SUMS)) is None


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"rows": 30_000_000_000}, "'rows': is 3e+10, allowed are 1 to 50"),
        ({"rows": 45}, "'rows': adds up with 'validation' to 55 rows, of at most 50 in the plan"),
        ({"rows": -1}, "'rows': is -1"),
        ({"scale": float("nan")}, "'scale': is nan"),
        ({"code": "\x1b[31mred"}, "'code': is not a text of the form"),
        ({"key": "no key"}, "'key': is not a text of the form"),
        ({"note": "hello"}, "'note': is not declared"),
    ],
)
def test_what_a_site_declares_on_joining_is_not_its_own_word(about, text):
    assert text in str(join_refusal(plan(), "va", joined(SUMS, **about)))


def test_names_of_columns_are_one_printable_text_of_bounded_length():
    message = joined(SUMS)
    for text, refused in (
        ('{"columns": ["a"]}', None),
        ("\x1b[31mred", "'names': is not a text"),
        ("x" * 70_000, "bytes"),
    ):
        message.content["x.inputs"] = ConfigRecord({"names": text})
        found = join_refusal(plan(), "va", message)
        assert found is None if refused is None else refused in str(found)


def changed(row, column, value):
    sums = SUMS.copy()
    sums[row, column] = value
    return sums


@pytest.mark.parametrize(
    ("sums", "text"),
    [
        (changed(1, 0, np.nan), "'sums': is not finite at [1, 0]"),
        (changed(0, 1, 41), "column 2 counts 41 values, of at most 40 rows"),
        (changed(0, 1, -1), "column 2 counts -1 values"),
        (changed(1, 0, 401), "column 1 sums to 401, more or less than its values within the plan's range can"),
        (changed(1, 3, 1), "column 4 sums to 1,"),
        (changed(2, 0, 5000), "column 1 has squares that sum to 5000, more than"),
        (changed(2, 0, 500), "column 1 has squares that sum to 500, less than its sum allows"),
        (np.zeros((3, 5)), "'sums': has shape [3, 5], declared as 3 x F"),
    ],
)
def test_sums_that_rows_within_the_plans_ranges_cannot_have(sums, text):
    assert text in str(join_refusal(plan(), "va", joined(sums)))


def test_a_join_reply_beyond_the_plan_ends_the_run_with_the_sites_name(tmp_path):
    study = approved(tmp_path)
    folder = study.new()

    def declares(message, reply):
        if message.metadata.message_type == "query.join_site":
            reply.content["x.site"]["rows"] = 30_000_000_000

    with pytest.raises(RunFailed, match=r"^va does not take part: .*'x.site', 'rows': is 3e\+10"):
        serve(folder.path, EvilSite(study.homes.values(), "va", declares))


def test_an_honest_site_with_more_rows_or_other_values_than_the_plan_says_so_itself(tmp_path):
    study = approved(tmp_path)
    for limits, text in (
        (SiteLimits(rows={"va": 70}), "va: it holds more rows than the 70 that the plan allows this site"),
        (SiteLimits(values=[[-50, 200]] * 3 + [[0, 99]]), "linz: 'pressure' has values outside the plan's 0 to 99"),
    ):
        study.plan = study.plan.model_copy(update={"limits": limits})
        for home in study.homes.values():
            receive_plan(home, study.plan.to_json())
        study.approve()
        with pytest.raises(RunFailed, match=text):
            serve(study.new().path, Loopback(study.homes.values()))


def test_a_run_goes_on_without_a_site_that_a_person_sets_aside(tmp_path):
    study = approved(tmp_path)
    folder = study.new("rounds=3")

    def dies(message, reply):
        if round_of(message) == 2:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        serve(folder.path, EvilSite(study.homes.values(), "va", dies))
    set_aside(folder.path, run_sites(folder.path), "va", "the hospital left")
    left = Loopback([home for site, home in study.homes.items() if site != "va"], 2)
    serve(folder.path, left)
    assert usable(folder) == [3, 2, 2]
    assert [one["reason"] for one in RunResult.read(folder.path).left_out] == ["the hospital left"]


@pytest.mark.slow
def test_a_masked_total_out_of_range_is_discarded_and_nobody_is_named(tmp_path):
    words = ("prior.provenance=secure_sum", "evaluation.secure=true", "calibration=[none,la_post]")
    study = approved(tmp_path, *words)

    def garbles(message, reply):
        if message.metadata.message_type == "query.masked_counts":
            counts = arrays_of(reply.content, "x.counts")["counts"]
            reply.content["x.counts"] = array_record({"counts": counts + np.uint64(10**15)})

    with pytest.raises(RunFailed, match="masked_counts: the opened total is out of range") as found:
        serve(study.new().path, EvilSite(study.homes.values(), "va", garbles))
    assert "va" not in str(found.value).split("after fixing")[0].split()
