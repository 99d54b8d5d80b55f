"""How long clients take: right figures without chance, the same for the same seed, slow holders as asked."""

import numpy as np
import pytest

from fedimb.paces.base import PaceSettings
from fedimb.paces.latency import Latency, normal_scores

STEPS = np.array([10, 20, 0, 40] * 25)
HELD = np.array([0.0, 0.0, 0.0, 0.0] * 20 + [0.3, 0.0, 0.0, 0.1] * 5)


def latency(seed=0, payload=0, ranking=None, extra=None, **settings):
    return Latency(PaceSettings(**settings), seed, STEPS, payload, ranking, extra)


def test_without_chance_a_training_takes_its_steps():
    made = latency(step_s=0.01, sigma=0.0, jitter=0.0)
    assert made.expected(np.array([0, 1, 3])).tolist() == [10**8, 2 * 10**8, 4 * 10**8]
    assert [made.duration(client, 7) for client in (0, 1, 3)] == [10**8, 2 * 10**8, 4 * 10**8]


def test_bytes_go_up_at_the_bandwidth_and_down_five_times_as_fast():
    made = latency(payload=250_000, sigma=0.0, jitter=0.0, mbit_s=20.0)
    share = (made.expected(np.arange(100)) - STEPS * 10**7) / (0.1 * 1.2 * 10**9)  # 2 megabits at 20 a second: .1 s
    assert np.median(share) == pytest.approx(1.0, abs=0.15)
    assert np.log(share).std() == pytest.approx(0.5, abs=0.1)


def test_times_repeat_and_differ_by_training_client_and_seed():
    made = latency()
    assert made.duration(0, 5) == latency().duration(0, 5)
    assert len({made.duration(0, 5), made.duration(0, 6), latency(seed=1).duration(0, 5)}) == 3
    assert isinstance(made.duration(0, 5), int)
    draws = [made.duration(4, number) for number in range(400)]
    assert np.log(draws).std() == pytest.approx(0.1, abs=0.02)
    assert np.median(draws) == pytest.approx(made.expected(np.array([4]))[0], rel=0.03)


def test_slow_clients_are_so_many_and_so_slow():
    usual, made = (latency(jitter=0.0, slow=slow, slow_factor=30.0) for slow in (0.0, 0.2))
    assert made.slow.sum() == 15  # of the 75 with rows
    assert not made.slow[STEPS == 0].any()
    ratio = made.factors / usual.factors
    assert ratio[made.slow] == pytest.approx(30.0)
    assert ratio[~made.slow] == pytest.approx(1.0)


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_at_correlation_one_the_holders_are_the_slow_ones(sigma):
    made = latency(sigma=sigma, slow=10 / 75, correlate="minority", rho=1.0, ranking=HELD)
    assert made.slow.sum() == 10
    assert (HELD[made.slow] > 0).all()
    fast = latency(sigma=sigma, slow=10 / 75, correlate="minority", rho=-1.0, ranking=HELD)
    assert not HELD[fast.slow].any()


def test_without_correlation_the_slow_ones_are_the_same_whatever_clients_hold():
    plain, asked = latency(slow=0.1), latency(slow=0.1, correlate="minority", rho=0.0, ranking=HELD)
    assert np.array_equal(plain.slow, asked.slow)
    assert np.array_equal(plain.factors, asked.factors)


def test_half_a_correlation_is_between():
    ranking = np.arange(2000.0)
    scores = normal_scores(ranking)
    for rho in (0.0, 0.5, 1.0):
        made = Latency(PaceSettings(correlate="size", rho=rho), 3, np.ones(2000, int), 0, ranking)
        assert np.corrcoef(np.log(made.factors), scores)[0, 1] == pytest.approx(rho, abs=0.06)


def test_what_is_added_is_added():
    extra = np.arange(100) * 5
    gained = latency(extra=extra).expected(np.arange(100)) - latency().expected(np.arange(100))
    assert gained[STEPS > 0].tolist() == extra[STEPS > 0].tolist()


def test_a_correlation_with_nothing_is_refused():
    with pytest.raises(ValueError, match="set correlate=minority or size"):
        PaceSettings(rho=0.5)
