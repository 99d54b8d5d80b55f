"""Coverage and error rates of the tests over seeds, by simulation."""

import math

import numpy as np
import pytest

from fedimb.evaluation.significance import hodges_lehmann, holm, paired


def within(hits: int, drawn: int, share: float) -> bool:
    """Four binomial standard errors: a right answer fails once in 16,000 seeds."""
    return abs(hits / drawn - share) <= 4 * math.sqrt(share * (1 - share) / drawn)


@pytest.mark.parametrize("draw", ["normal", "standard_cauchy", "lognormal"])
def test_the_effects_interval_covers_whatever_the_tails(draw):
    """Two rows that differ by .3; n = 12 at .95 has the exact level 1 - 2 * 55 / 4096."""
    rng, drawn = np.random.default_rng(3), 1500
    first, second = (getattr(rng, draw)(size=(drawn, 12)) for _ in range(2))
    hits = 0
    for d in first + 0.3 - second:
        _, low, high = hodges_lehmann(d)
        hits += low <= 0.3 <= high
    cut = max(k for k in range(79) if signed_rank_at_most(k, 12) <= 0.025)
    assert within(hits, drawn, 1 - 2 * signed_rank_at_most(cut, 12))


def signed_rank_at_most(k: int, n: int) -> float:
    """P(T <= k) by listing the sum of every subset of 1..n."""
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    return float((bits @ np.arange(1, n + 1) <= k).mean())


def test_wilcoxon_with_holm_rejects_no_more_than_alpha_under_the_null():
    """6 rows against one control, 10 seeds, nothing differs: some row is called different in at most 5 % of studies."""
    rng, studies, false, uncorrected = np.random.default_rng(4), 240, 0, 0
    for scores in rng.gumbel(size=(studies, 7, 10)):
        raw = {str(k): paired(scores[k], scores[0]).p for k in range(1, 7)}
        uncorrected += min(raw.values()) <= 0.05
        false += min(holm(raw).values()) <= 0.05
    most = 0.05 + 4 * math.sqrt(0.05 * 0.95 / studies)
    assert 0 < false / studies <= most < uncorrected / studies


def test_tost_errs_at_the_margin_in_alpha_of_cases():
    """A true difference of exactly the margin is called equivalent in 5 % of studies, half of it far more often."""
    rng, studies = np.random.default_rng(5), 600
    noise = rng.normal(0, 0.005, (studies, 12))
    zero = np.zeros(12)
    at_margin = sum(paired(0.02 + d, zero, margin=0.02).tost_p <= 0.05 for d in noise)
    assert within(at_margin, studies, 0.05)
    assert sum(paired(0.01 + d, zero, margin=0.02).tost_p <= 0.05 for d in noise[:100]) > 95
