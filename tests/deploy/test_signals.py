"""Signals at sites: sums per channel leave, and make the scaling that one place with all windows would make."""

from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedimb.data.scaling import prepared, scaling_of_rows, sums_of_rows
from fedimb.data.windows import Windows
from fedimb.deploy.coordinator.serve import _read_join_reply, _scaling, join_refusal
from fedimb.deploy.study_plan.limits import SiteLimits, column_ranges
from fedimb.engine.flower_private import ensure_identity
from fedimb.records import array_record

X = np.random.default_rng(0).normal(3, 2, size=(50, 2, 16)).astype(np.float32)
SCALED = np.ones((2, 1), bool)
PLAN = SimpleNamespace(
    limits=SiteLimits(most_rows=100, values=[[-50.0, 50.0]] * 2),
    input_shape=[2, 16],
    classes=["a", "b"],
    run_config=lambda: SimpleNamespace(clients=SimpleNamespace(regions=None)),
)


def reply(rows, sums=None, **about):
    ensure_identity()
    own = {"site": "va", "rows": len(rows), "validation": 0, "version": "a" * 16, "scale": 1.0, "rate": 50.0}
    own |= {"key": f"{'0' * 64}:{'A' * 140}", "code": "0.2.0 abc"}
    content = RecordDict({"x.site": ConfigRecord(own | about)})
    sums = sums_of_rows(X, rows).reshape(3, -1) if sums is None else sums
    content["x.sums"] = array_record({"sums": sums, "scaled": SCALED.ravel()})
    return Message(content, reply_to=Message(RecordDict(), 1, "query.join_site"))


def test_the_sites_scaling_is_that_of_all_their_windows():
    parts = [np.arange(20), np.arange(20, 50)]
    joined = [_read_join_reply(PLAN, "va", reply(rows)) for rows in parts]
    assert [site.rate for site in joined] == [50.0, 50.0]
    found, pooled = _scaling(joined, None, (2, 16)), scaling_of_rows(X, parts, SCALED)
    assert found.mean.shape == (2, 1)
    assert np.array_equal(found.mean, pooled.mean)
    assert np.array_equal(found.deviation, pooled.deviation)
    assert np.allclose(prepared(X, 1.0, found).mean((0, 2)), 0, atol=1e-5)


def test_a_site_says_no_more_than_its_windows_can_sum_to():
    rows = np.arange(40)
    assert join_refusal(PLAN, "va", reply(rows)) is None
    sums = sums_of_rows(X, rows).reshape(3, -1)
    more, larger = np.array([[1.0], [0], [0]]), np.array([[1.0], [50], [1]])
    assert "of at most 640 rows" in str(join_refusal(PLAN, "va", reply(rows, sums + more)))
    assert "within the plan's range" in str(join_refusal(PLAN, "va", reply(rows, sums * larger)))
    assert join_refusal(PLAN, "va", reply(rows, np.zeros((3, 32)))) is not None
    assert "rate" in str(join_refusal(PLAN, "va", reply(rows, rate=float("nan"))))


def test_a_site_that_says_no_rate_has_none():
    content = reply(np.arange(40))
    del content.content["x.site"]["rate"]
    assert _read_join_reply(PLAN, "va", content).rate is None


@pytest.mark.parametrize("n", [3, 700])
def test_the_range_of_a_channel_is_that_of_all_its_samples(n):
    recording = np.random.default_rng(1).normal(size=(2, 16 * n)).astype(np.float32)
    low, high = column_ranges(Windows(recording, 16 * np.arange(n), 16))
    assert np.allclose(low, recording.min(axis=1))
    assert np.allclose(high, recording.max(axis=1))
