"""One client's update: cut to a norm over all arrays together, with its share of noise."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from fedimb.errors import ConfigError, FedimbError
from fedimb.privacy.updates import check_model, clip_and_noise, cohort_size, noise_share
from fedimb.schema import PrivacyConfig

BEFORE = {"w": np.ones((2, 2), np.float32), "b": np.zeros(3, np.float32)}
AFTER = {"w": np.array([[4, 1], [1, 1]], np.float32), "b": np.array([0, 4, 0], np.float32)}


def none(count):
    raise AssertionError("no noise is asked for")


def test_a_long_update_is_cut_over_all_arrays_and_a_short_one_stays():
    sent, norm = clip_and_noise(BEFORE, AFTER, 1.0, 0.0, none)
    assert norm == 5
    np.testing.assert_allclose(sent["w"], [[1.6, 1], [1, 1]])
    np.testing.assert_allclose(sent["b"], [0, 0.8, 0])
    assert {name: value.dtype for name, value in sent.items()} == {"w": np.float32, "b": np.float32}
    same, _ = clip_and_noise(BEFORE, AFTER, 5.0, 0.0, none)
    assert all(np.array_equal(same[name], AFTER[name]) for name in AFTER)
    unchanged, norm = clip_and_noise(BEFORE, BEFORE, 1.0, 0.0, none)
    assert norm == 0
    assert np.array_equal(unchanged["w"], BEFORE["w"])


def test_shares_of_a_cohort_add_up_to_the_noise():
    privacy, before = PrivacyConfig(clip=0.5, noise=2.0), {"w": np.zeros(5000)}
    draws = np.random.default_rng(1)
    shares = [
        clip_and_noise(before, before, 0.5, noise_share(privacy, 16), draws.standard_normal)[0]["w"] for _ in range(16)
    ]
    assert np.std(sum(shares)) == pytest.approx(2.0 * 0.5, rel=0.05)
    assert np.std(shares[0]) == pytest.approx(2.0 * 0.5 / 4, rel=0.05)
    assert noise_share(PrivacyConfig(), 4) == noise_share(PrivacyConfig(clip=1.0), 4) == 0


def test_an_update_that_is_not_finite_is_not_made_good():
    for wrong in (math.nan, math.inf):
        with np.errstate(invalid="ignore"):
            sent, _ = clip_and_noise(BEFORE, AFTER | {"b": np.array([0, wrong, 0], np.float32)}, 1.0, 0.0, none)
        assert not np.isfinite(sent["b"]).all()


def test_a_cohort_larger_than_the_run_is_refused():
    config = SimpleNamespace(clients=SimpleNamespace(count=4))
    assert cohort_size(config, {"cohort": 4}) == 4
    for said in ({"cohort": 5}, {"cohort": 0}, {}):
        with pytest.raises(FedimbError, match="each client divides its noise by that number"):
            cohort_size(config, said)


def test_running_statistics_would_leave_without_noise():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ConfigError, match=r"model\.norm=group"):
        check_model(PrivacyConfig(clip=1.0, noise=0.1), model)
    check_model(PrivacyConfig(clip=1.0), model)
    check_model(PrivacyConfig(clip=1.0, noise=0.1), nn.Linear(2, 2))
