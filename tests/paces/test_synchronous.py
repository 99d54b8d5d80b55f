"""Which replies a round takes and when it ends."""

import numpy as np
import pytest

from fedimb.errors import ConfigError
from fedimb.paces.base import SECOND
from fedimb.paces.synchronous import (
    Deadline,
    DeadlineSettings,
    Oversample,
    OversampleSettings,
    Sync,
    SyncSettings,
    Tiered,
    TieredSettings,
)

CLIENTS = np.arange(10, 30)
EXPECTED = np.random.default_rng(0).permutation(20) * SECOND + SECOND


def test_sync_waits_for_the_slowest():
    assert Sync(SyncSettings()).closes([3, 5, 9], 3) == (3, 9)
    assert Sync(SyncSettings()).closes([], 3) == (0, 0)


def test_oversampling_takes_the_first():
    pace = Oversample(OversampleSettings(over=1.3))
    assert [pace.asks(size) for size in (1, 10, 20)] == [2, 13, 26]
    assert pace.closes([1, 2, 3, 4], 3) == (3, 3)
    assert pace.closes([1, 2], 3) == (2, 2)


def test_a_deadline_ends_the_round_unless_all_are_there():
    pace = Deadline(DeadlineSettings(after_s=5.0))
    pace.prepare(CLIENTS, EXPECTED)
    assert pace.closes([SECOND, 5 * SECOND, 5 * SECOND + 1], 3) == (2, 5 * SECOND)
    assert pace.closes([SECOND, 2 * SECOND], 3) == (2, 2 * SECOND)


def test_a_lost_client_holds_the_round_until_its_planned_time():
    """Of three asked, at 3, 5 and 9 s, one is lost: that its reply never comes is not known before its time."""
    sync, tiered = Sync(SyncSettings(clock=True)), Tiered(TieredSettings())
    for pace in (sync, tiered):
        assert pace.closes([3, 5], 3, lost=[9]) == (2, 9)
        assert pace.closes([3, 9], 3, lost=[5]) == (2, 9)
        assert pace.closes([], 3, lost=[3, 5, 9]) == (0, 9)


def test_oversampling_waits_for_lost_clients_only_where_replies_are_lacking():
    pace = Oversample(OversampleSettings(over=1.5))
    assert pace.closes([3, 5], 2, lost=[9]) == (2, 5)
    assert pace.closes([5], 2, lost=[3, 9]) == (1, 9)
    assert pace.closes([9], 2, lost=[3, 5]) == (1, 9)
    assert pace.closes([], 2, lost=[3, 5, 9]) == (0, 9)


def test_a_deadline_waits_for_lost_clients_to_its_end():
    pace = Deadline(DeadlineSettings(after_s=5.0))
    pace.prepare(CLIENTS, EXPECTED)
    assert pace.closes([SECOND, 2 * SECOND], 3, lost=[3 * SECOND]) == (2, 5 * SECOND)
    assert pace.closes([SECOND, 2 * SECOND], 3, lost=[9 * SECOND]) == (2, 5 * SECOND)
    assert pace.closes([], 3, lost=[3 * SECOND]) == (0, 5 * SECOND)


def test_a_deadline_by_quantile_lets_that_share_through():
    pace = Deadline(DeadlineSettings(quantile=0.8))
    pace.prepare(CLIENTS, EXPECTED)
    assert pace.after == 16 * SECOND
    assert (pace.after >= EXPECTED).mean() == 0.8


def test_a_deadline_that_nobody_meets_is_refused():
    with pytest.raises(ConfigError, match="nobody would be in time"):
        Deadline(DeadlineSettings(after_s=0.5)).prepare(CLIENTS, EXPECTED)


def test_tiers_are_of_one_speed_and_of_equal_size():
    pace = Tiered(TieredSettings(tiers=4))
    pace.prepare(CLIENTS, EXPECTED)
    times = dict(zip(CLIENTS.tolist(), EXPECTED.tolist(), strict=True))
    assert [len(one.clients) for one in pace.tiers] == [5] * 4
    slowest = [max(times[client] for client in one.clients.tolist()) for one in pace.tiers]
    assert slowest == sorted(slowest)
    assert all(one.step == 1.0 for one in pace.tiers)


def test_clients_count_alike_in_expectation_however_often_their_tier_is_drawn():
    pace = Tiered(TieredSettings(tiers=2, probabilities=(0.8, 0.2)))
    pace.prepare(CLIENTS, EXPECTED)
    drawn = [pace.pool(np.random.default_rng(seed)) for seed in range(2000)]
    counts = dict.fromkeys(CLIENTS.tolist(), 0.0)
    for pool in drawn:
        for client in pool.clients.tolist():
            counts[client] += pool.step / len(pool.clients)
    share = np.array(list(counts.values())) / 2000
    assert share == pytest.approx(1 / 20, rel=0.1)
    assert np.mean([pool is pace.tiers[0] for pool in drawn]) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("wrong", [(0.5, 0.4), (1.0,), (1.0, 0.0), (0.7, 0.7)])
def test_probabilities_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="2 numbers above 0 that add up to 1"):
        TieredSettings(tiers=2, probabilities=wrong)


def test_more_tiers_than_clients_are_refused():
    with pytest.raises(ConfigError, match="20 clients have rows"):
        Tiered(TieredSettings(tiers=21)).prepare(CLIENTS, EXPECTED)


def test_settings_of_a_clock_that_does_not_run_are_refused():
    assert not Sync(SyncSettings()).timed
    assert Sync(SyncSettings(clock=True, slow=0.5)).timed
    with pytest.raises(ValueError, match=r"slow is of a clock that does not run; set pace\.clock=true"):
        SyncSettings(slow=0.5)
