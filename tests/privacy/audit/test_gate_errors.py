"""How often the gate errs, by simulation."""

import numpy as np
import pytest
from leaky import copying, gaussian, verdict

from fedimb.privacy.audit.gate import GateSettings


def refusals(runs, spoil=None, **sizes):
    """Share of runs in which leakage was found, and in which the class passed."""
    states = []
    for seed in range(runs):
        rng = np.random.default_rng([18, seed])
        train, holdout, made = gaussian(rng, sizes.get("train", 100), 100, 200)
        if spoil:
            made[:20] = copying(rng, train, 20, of=len(train))
        states.append(verdict(made, train, holdout, GateSettings(min_count=1, draws=10, bootstrap=10), seed).state)
    return states.count("fail") / runs, states.count("pass") / runs


def test_error_rates_by_a_small_simulation():
    assert refusals(5)[0] <= 0.4  # binomial: above that with a chance of .001 at .05
    assert refusals(5, spoil=True)[0] >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("train", [5, 20, 100])
def test_error_rates(train):
    wrongly, passed = refusals(200, train=train)
    assert wrongly <= 0.085  # 99 % bound of 200 draws at .05
    assert passed >= 0.85
    assert refusals(100, spoil=True, train=train)[0] >= 0.9
