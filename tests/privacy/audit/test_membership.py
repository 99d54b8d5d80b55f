import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedimb.privacy.audit.membership import attack_figures, auc, tpr


def test_auc_is_sklearns_also_with_ties():
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 70).astype(float)
    y = np.r_[np.ones(40), np.zeros(70)]
    assert auc(members, others) == pytest.approx(roc_auc_score(y, np.r_[members, others]))


def test_tpr_allows_one_false_alarm_in_a_hundred():
    others = np.arange(100.0)
    assert tpr(np.array([98.5, 97.5, 200.0]), others) == pytest.approx(2 / 3)  # above 98: only 99 exceeds it
    assert tpr(np.array([98.5, 99.5]), others[1:]) == pytest.approx(1 / 2)  # 99 of them: none may
    assert tpr(np.array([5.0]), np.array([5.0])) == 0.0


def test_an_attack_that_works_is_seen_and_one_that_does_not_is_not():
    rng = np.random.default_rng(1)
    area, rate = attack_figures(rng.normal(2, 1, 80), rng.normal(0, 1, 100), 0.01, 200, rng)
    assert area.low <= area.value <= area.high
    assert area.value == pytest.approx(0.92, abs=0.05)  # Phi(2 / sqrt 2)
    assert area.bound > 0.8
    assert area.p < 1e-6
    assert rate.bound > 0.1
    area, rate = attack_figures(rng.normal(size=80), rng.normal(size=100), 0.01, 200, rng)
    assert area.low <= 0.5 <= area.high
    assert min(area.p, rate.p) > 0.01


def test_a_few_members_known_for_certain_move_the_rate_not_the_area():
    rng = np.random.default_rng(2)
    members = rng.normal(size=100)
    members[:15] += 20
    area, rate = attack_figures(members, rng.normal(size=100), 0.01, 200, rng)
    assert rate.value >= 0.15
    assert rate.p < 1e-3
    assert area.value < 0.65


def test_one_member_and_one_other():
    area, rate = attack_figures(np.array([1.0]), np.array([0.0]), 0.05, 20, np.random.default_rng(3))
    assert (area.value, rate.value) == (1.0, 1.0)
    assert min(area.p, rate.p) == pytest.approx(0.5)  # of two orders one
