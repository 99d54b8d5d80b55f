import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedimb.evaluation.significance import (
    hodges_lehmann,
    holm,
    paired,
    power_note,
    seeds_needed,
    smallest_p,
)

# Depression scores before and after treatment: Hollander and Wolfe 1973, table 3.1
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
NAN = math.nan

tenths = st.lists(st.integers(-6, 6), min_size=2, max_size=9).map(lambda whole: [i / 10 for i in whole])
numbers = st.lists(st.floats(-1, 1).map(lambda x: round(x, 6)), min_size=1, max_size=15)


def test_effect_interval_and_p_are_the_published_ones():
    ours = paired(AFTER, BEFORE)
    assert (ours.effect, ours.low, ours.high) == pytest.approx((-0.46, -0.786, -0.010))
    assert ours.p == pytest.approx(0.0391, abs=5e-5)
    assert (ours.n, ours.missing, ours.wins, ours.losses, ours.ties) == (9, 0, 2, 7, 0)
    assert ours.mean_difference == pytest.approx(np.mean(AFTER) - np.mean(BEFORE))
    assert math.isnan(ours.tost_p)


def test_wilcoxon_is_scipys_exact_one_without_ties():
    for n in (6, 12, 50):
        d = np.random.default_rng(n).normal(0.3, 1, n)
        assert paired(d, np.zeros(n)).p == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)


@settings(max_examples=25, deadline=None)
@given(tenths)
def test_wilcoxon_with_ties_and_zeros_counts_every_sign(d):
    ours = paired(d, [0.0] * len(d)).p
    if not any(d):
        assert ours == 1.0
        return
    # every choice of signs, one by one, with Pratt's ranks
    ranks = np.where(np.array(d) != 0, stats.rankdata(np.abs(d)), 0)
    signs = (np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1
    sums, found = signs @ ranks, ranks[np.array(d) > 0].sum()
    expected = min(1.0, 2 * min((sums <= found + 1e-9).mean(), (sums >= found - 1e-9).mean()))
    assert ours == pytest.approx(expected)


def test_many_tied_pairs_are_near_the_normal_approximation():
    d = np.random.default_rng(2).integers(-4, 6, 50) / 10
    theirs = stats.wilcoxon(d, zero_method="pratt", correction=True, method="asymptotic").pvalue
    assert paired(d, np.zeros(50)).p == pytest.approx(theirs, abs=0.002)
    more = np.tile(d, 2)
    theirs = stats.wilcoxon(more, zero_method="pratt", correction=True, method="asymptotic").pvalue
    assert paired(more, np.zeros(100)).p == pytest.approx(theirs)


def test_what_differs_by_rounding_alone_is_equal():
    ours = paired([0.1 + 0.2, 0.7], [0.3, 0.7])
    assert (ours.wins, ours.losses, ours.ties, ours.p) == (0, 0, 2, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(60, 90), st.integers(60, 90)), min_size=3, max_size=12))
def test_differences_equal_but_for_rounding_share_their_ranks(percent):
    """.72 - .70 and .70 - .68 differ in the 17th digit."""
    a, b = np.array(percent, float).T
    whole, shares = paired(a, b), paired(a / 100, b / 100)
    assert shares.p == whole.p
    assert (shares.wins, shares.ties) == (whole.wins, whole.ties)


def test_a_run_without_a_number_is_a_loss_and_is_counted():
    ours = paired([0.9, 0.9, NAN, NAN, 0.9, math.inf], [0.5, 0.6, 0.7, NAN, NAN, 0.8])
    assert (ours.n, ours.missing) == (2, 4)
    assert (ours.wins, ours.losses, ours.ties) == (3, 2, 1)
    assert ours.effect == pytest.approx(0.35)
    assert ours.p == smallest_p(2) == 0.5


def test_lower_is_better_turns_wins_and_keeps_the_effect():
    a, b = [0.1, 0.2, NAN], [0.3, 0.1, 0.2]
    up, down = paired(a, b), paired(a, b, lower_is_better=True)
    assert (up.wins, up.losses, down.wins, down.losses) == (1, 2, 1, 2)
    a, b = [0.1, 0.1, NAN], [0.3, 0.2, 0.2]
    up, down = paired(a, b), paired(a, b, lower_is_better=True)
    assert (up.wins, up.losses, down.wins, down.losses) == (0, 3, 2, 1)
    assert up.effect == down.effect < 0


def test_no_pair_and_one_pair():
    none = paired([NAN], [0.5], margin=0.1)
    assert (none.n, none.missing, none.losses) == (0, 1, 1)
    assert np.isnan([none.effect, none.low, none.mean_difference, none.p, none.smallest_p, none.tost_p]).all()
    one = paired([0.6], [0.5], margin=0.2)
    assert one.effect == pytest.approx(0.1)
    assert one.p == 1.0
    assert np.isnan([one.low, one.high, one.tost_p]).all()
    assert paired([], []).ties == 0


def test_five_pairs_have_no_95_per_cent_interval_and_six_have():
    assert np.isnan(hodges_lehmann([1, 2, 3, 4, 5])[1:]).all()
    assert hodges_lehmann([1, 2, 3, 4, 5, 6]) == (3.5, 1.0, 6.0)
    assert hodges_lehmann([1, 2, 3, 4, 5], level=0.9)[1:] == (1.0, 5.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(6, 14), st.integers(0, 10_000), st.sampled_from([0.8, 0.9, 0.95]))
def test_the_interval_holds_what_wilcoxon_does_not_reject(n, seed, level):
    d = np.random.default_rng(seed).normal(size=n)
    _, low, high = hodges_lehmann(d, level)
    if math.isnan(low):
        assert smallest_p(n) > 1 - level
        return
    for bound, inwards in ((low, 1e-9), (high, -1e-9)):
        assert stats.wilcoxon(d - (bound + inwards), method="exact").pvalue > 1 - level
        assert stats.wilcoxon(d - (bound - inwards), method="exact").pvalue <= 1 - level


@settings(max_examples=60, deadline=None)
@given(numbers, st.integers(-500, 500))
def test_a_shift_moves_effect_and_interval(d, shift):
    zero = [0.0] * len(d)
    moved = paired([x + shift / 1000 for x in d], zero)
    still = paired(d, zero)
    for name in ("effect", "low", "high", "mean_difference"):
        assert getattr(moved, name) == pytest.approx(getattr(still, name) + shift / 1000, abs=1e-9, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.one_of(st.integers(0, 20), st.just(NAN))] * 2), min_size=1, max_size=12))
def test_turning_the_comparison_round_turns_every_sign(pairs):
    a, b = [x / 20 for x, _ in pairs], [y / 20 for _, y in pairs]
    there, back = paired(a, b, margin=0.1), paired(b, a, margin=0.1)
    assert (there.wins, there.losses, there.ties) == (back.losses, back.wins, back.ties)
    assert there.wins + there.losses + there.ties == there.n + there.missing == len(pairs)
    expected = [-back.effect, -back.high, -back.low, back.p, back.tost_p]
    found = [there.effect, there.low, there.high, there.p, there.tost_p]
    assert found == pytest.approx(expected, nan_ok=True)
    if there.n:
        assert there.p >= min(there.smallest_p, 1.0) - 1e-12


def test_tost_is_two_t_tests_and_edges():
    d = np.array([0.010, -0.004, 0.006, 0.001, -0.007, 0.003])
    ours = paired(0.7 + d, [0.7] * 6, margin=0.01)
    t = (0.01 - abs(d.mean())) / (d.std(ddof=1) / math.sqrt(6))
    assert ours.tost_p == pytest.approx(stats.t.sf(t, 5))
    assert ours.margin == 0.01
    assert paired([0.7, 0.8], [0.7, 0.8], margin=0.01).tost_p == 0.0
    assert paired([0.8, 0.9], [0.7, 0.8], margin=0.01).tost_p == 1.0
    assert paired([0.71, 0.81], [0.7, 0.8], margin=0.01).tost_p == 1.0  # on the margin is not within


@pytest.mark.parametrize(
    ("words", "more"),
    [("margin", {"margin": 0}), ("margin", {"margin": NAN}), ("level", {"level": 95})],
)
def test_what_cannot_be_compared_is_refused(words, more):
    with pytest.raises(ValueError, match=words):
        paired([0.1, 0.2], [0.1, 0.3], **more)
    with pytest.raises(ValueError, match="one score per seed"):
        paired([0.1, 0.2], [0.1])


def test_smallest_p_is_reached():
    for n, p in ((3, 0.25), (5, 0.0625), (6, 0.03125), (9, 2**-8), (10, 2**-9)):
        assert smallest_p(n) == p == paired(np.arange(1, n + 1), np.zeros(n)).p
    assert math.isnan(smallest_p(0))


def test_seeds_needed_and_the_note():
    assert [seeds_needed(m) for m in (1, 12, 13, 25, 26, 102, 103)] == [6, 9, 10, 10, 11, 12, 13]
    assert seeds_needed(1, alpha=0.0625) == 5
    assert power_note(5, 12) == (
        "5 seeds: the smallest p that 5 pairs can reach is .0625; with Holm over 12 comparisons at least 9 seeds are "
        "needed; read these as descriptive"
    )
    assert "for .05 at least 6 seeds" in power_note(5, 1)
    assert power_note(1, 1).startswith("1 seed: the smallest p that 1 pair can reach is 1;")
    assert power_note(0, 3).startswith("no pair of seeds")
    assert power_note(8, 12) is not None
    assert power_note(9, 12) is None
    with pytest.raises(ValueError, match="at least 1 comparison"):
        seeds_needed(0)


def holds(pvalues: list[float], alpha: float) -> list[bool]:
    """Holm's procedure as he states it: from the smallest p on, stop at the first above alpha / (those left)."""
    held = [False] * len(pvalues)
    for left, at in zip(range(len(pvalues), 0, -1), np.argsort(pvalues, kind="stable"), strict=True):
        if pvalues[at] * left > alpha:
            break
        held[at] = True
    return held


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=15), st.sampled_from([0.01, 0.05, 0.2, 0.9]))
def test_holm_is_the_procedure_and_never_below_p_or_out_of_order(pvalues, alpha):
    ours = list(holm({str(at): p for at, p in enumerate(pvalues)}).values())
    assert [p <= alpha for p in ours] == holds(pvalues, alpha)
    assert all(p <= adjusted <= 1 for p, adjusted in zip(pvalues, ours, strict=True))
    in_order = [ours[at] for at in np.argsort(pvalues, kind="stable")]
    assert in_order == sorted(in_order)


@pytest.mark.slow
def test_holm_is_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for pvalues in np.random.default_rng(1).uniform(0, 0.2, (50, 12)):
        ours = list(holm({str(at): float(p) for at, p in enumerate(pvalues)}).values())
        assert ours == pytest.approx(multitest.multipletests(pvalues, method="holm")[1].tolist())


def test_holm_by_hand_and_with_a_comparison_that_could_not_be_made():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    kept = holm({"a": 0.01, "b": NAN, "c": 0.04})
    assert list(kept) == ["a", "b", "c"]
    assert [kept["a"], kept["c"]] == pytest.approx([0.03, 0.08])
    assert math.isnan(kept["b"])
    assert holm({}) == {}
    with pytest.raises(ValueError, match="'x' is 2"):
        holm({"x": 2})
