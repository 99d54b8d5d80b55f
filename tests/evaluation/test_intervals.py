import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from fedimb.evaluation.intervals import (
    _Cells,
    _normal_quantile,
    bca_interval,
    bootstrap,
    bootstrap_scores,
    resample,
    t_interval,
    wilson,
)
from fedimb.evaluation.metrics import score_arrays, scores
from fedimb.evaluation.ratios import percentiles

MATRIX = np.array([[50, 6, 4], [9, 31, 10], [6, 6, 8]])


# 81 of 263: Newcombe 1998, table I, method 3; the others there too
@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(hits, total, low, high):
    ours = wilson(hits, total)
    assert [float(bound) for bound in ours] == pytest.approx([low, high], abs=5e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(1, 400), st.floats(0.5, 0.99))
def test_wilson_is_scipys_and_holds_the_share(hits, total, level):
    hits = min(hits, total)
    low, high = wilson(hits, total, level)
    theirs = stats.binomtest(hits, total).proportion_ci(level, method="wilson")
    assert (float(low), float(high)) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= low <= hits / total <= high <= 1


def test_wilson_of_an_absent_class_is_nan_and_shapes_hold():
    low, high = wilson(np.array([0, 5, 5]), np.array([0, 5, 10]))
    assert np.isnan([low[0], high[0]]).all()
    assert high[1] == 1.0
    assert low.shape == (3,)
    with pytest.raises(ValueError, match="successes"):
        wilson(6, 5)


def test_resamples_keep_class_sizes_and_mean():
    matrix = np.array([[50, 6, 4], [0, 0, 0], [6, 6, 8]])
    drawn = resample(matrix, 4000, np.random.default_rng(1))
    assert drawn.shape == (4000, 3, 3)
    assert drawn.dtype == np.int64
    assert (drawn.sum(2) == matrix.sum(1)).all()
    assert drawn.mean(0) == pytest.approx(matrix, abs=0.25)  # 4 standard errors of the widest cell


def test_bootstrap_of_one_recall_has_the_binomial_spread():
    low, high = bootstrap(MATRIX, lambda m: m[1, 1] / m[1].sum(), 4000, np.random.default_rng(2))
    assert (low, high) == pytest.approx(tuple(stats.binom(50, 0.62).ppf([0.025, 0.975]) / 50), abs=0.021)


def test_stacked_bootstrap_is_the_same_as_one_at_a_time():
    together = bootstrap_scores(MATRIX, [2], 300, np.random.default_rng(3))
    for name in ("macro_recall", "minority_recall", "g_mean", "mcc"):
        alone = bootstrap(MATRIX, lambda m, name=name: scores(m, [2])[name], 300, np.random.default_rng(3))
        assert together[name] == pytest.approx(alone)


@pytest.mark.parametrize("seed", range(3))
def test_stacked_margins_are_those_of_the_whole_matrices(seed):
    counts = np.random.default_rng(seed).poisson(0.3, (30, 30))
    counts[:, 4] = 0  # a class that is never predicted
    cells = _Cells(counts)
    hits, support, called = cells.resample(20, np.random.default_rng(seed))
    whole = cells.dense(cells.draw(20, np.random.default_rng(seed)))
    assert np.array_equal(called, whole.sum(1))
    assert np.array_equal(hits, np.diagonal(whole, axis1=1, axis2=2))
    assert np.array_equal(support, whole.sum(2))


def test_the_quantile_of_95_percent_is_scipys_to_the_last_bit():
    assert _normal_quantile(0.5 + 0.95 / 2) == float(special.ndtri(0.5 + 0.95 / 2)) == 1.959963984540054
    assert _normal_quantile(0.95) == float(special.ndtri(0.95))


def test_chunking_changes_no_draw(monkeypatch):
    whole = bootstrap_scores(MATRIX, [2], 50, np.random.default_rng(4))
    monkeypatch.setattr("fedimb.evaluation.intervals._CHUNK_CELLS", 9 * 7)
    assert bootstrap_scores(MATRIX, [2], 50, np.random.default_rng(4)) == whole


def test_an_undefined_score_has_no_interval():
    absent = np.array([[5, 5], [0, 0]])
    ours = bootstrap_scores(absent, [1], 50, np.random.default_rng(0))
    assert np.isnan(ours["minority_recall"]).all()
    assert not np.isnan(ours["macro_recall"]).any()
    assert np.isnan(bootstrap(absent, lambda m: math.nan, 5, np.random.default_rng(0))).all()


def test_bootstrap_covers_macro_recall():
    rng = np.random.default_rng(5)
    chances = np.array([[0.8, 0.2], [0.4, 0.6]])
    hits = 0
    for _ in range(200):
        matrix = rng.multinomial([60, 40], chances)
        low, high = bootstrap_scores(matrix, [1], 400, rng)["macro_recall"]
        hits += low <= 0.7 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_t_interval_covers_and_a_normal_one_would_not():
    rng = np.random.default_rng(6)
    hits = 0
    for _ in range(1000):
        _, low, high = t_interval(rng.normal(0.7, 0.1, 3).tolist())
        hits += low <= 0.7 <= high
    assert 0.93 <= hits / 1000 <= 0.97  # with 1.96 instead of 4.30 it would be .81


def test_t_interval_values_and_edges():
    mean, low, high = t_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert mean - low == pytest.approx(high - mean)
    assert t_interval([0.5])[0] == 0.5
    assert np.isnan(t_interval([0.5])[1:]).all()
    assert np.isnan(t_interval([])).all()
    assert np.isnan(t_interval([0.5, math.nan, 0.7])).all()
    with pytest.raises(ValueError, match="level"):
        t_interval([0.5, 0.6], level=95)


@pytest.mark.parametrize(
    ("matrix", "resamples", "words"),
    [(np.eye(2), 5, "integers"), (np.eye(2, dtype=int), 0, "at least 1")],
)
def test_what_cannot_be_resampled_is_refused(matrix, resamples, words):
    with pytest.raises(ValueError, match=words):
        resample(matrix, resamples, np.random.default_rng(0))


def test_bca_is_scipys_and_moves_with_shift_and_scale():
    values = np.random.default_rng(7).lognormal(size=12)
    mean, low, high = bca_interval(values.tolist(), resamples=2000, rng=np.random.default_rng(8))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(8))
    assert (mean, low, high) == pytest.approx((values.mean(), *theirs.confidence_interval))
    assert high - mean > mean - low  # skewed to the right, where a t interval is symmetric
    moved = bca_interval((1e3 + 1e-6 * values).tolist(), resamples=2000, rng=np.random.default_rng(8))
    assert [(v - 1e3) * 1e6 for v in moved] == pytest.approx([mean, low, high], abs=1e-5)


def test_bca_edges():
    rng = np.random.default_rng(0)
    assert bca_interval([0.7] * 5, rng=rng) == (pytest.approx(0.7),) * 3
    assert bca_interval([0.0] * 5, rng=rng) == (0.0, 0.0, 0.0)
    assert bca_interval([0.1 + 0.2, 0.3, 0.3], rng=rng)[1:] == pytest.approx((0.3, 0.3))
    mean, low, high = bca_interval([0.5, 0.6], rng=rng)
    assert mean == pytest.approx(0.55)
    assert np.isnan([low, high]).all()
    for values in ([], [0.5, math.nan, 0.7], [0.5, math.inf, 0.7]):
        assert np.isnan(bca_interval(values, rng=rng)).all()
    assert np.isfinite(bca_interval([0.2, 0.2, 0.9], rng=rng)).all()
    for wrong in ({"level": 95}, {"resamples": 0}):
        with pytest.raises(ValueError, match="must"):
            bca_interval([0.1, 0.2, 0.3], rng=rng, **wrong)
    with pytest.raises(ValueError, match="one number per seed"):
        bca_interval([[0.1, 0.2]], rng=rng)


@pytest.mark.parametrize(("draw", "centre", "n", "share"), [("normal", 0.0, 40, 0.94), ("exponential", 1.0, 40, 0.93)])
def test_bca_and_t_cover_the_mean_of_forty_seeds(draw, centre, n, share):
    """``share`` is the coverage known for this n (a little below .95); 4 binomial errors of 500 draws are .042."""
    rng, drawn = np.random.default_rng(9), 500
    hits = np.zeros(2)
    for _ in range(drawn):
        values = getattr(rng, draw)(size=n).tolist()
        for at, (_, low, high) in enumerate((bca_interval(values, resamples=300, rng=rng), t_interval(values))):
            hits[at] += low <= centre <= high
    assert hits / drawn == pytest.approx([share, share], abs=4 * math.sqrt(share * (1 - share) / drawn))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 80), st.integers(0, 2**32 - 1))
def test_only_cells_that_can_be_drawn_are_drawn_with_the_same_random_numbers(n, rows, seed):
    made = np.random.default_rng(seed)
    true = made.integers(0, max(1, n - 1), rows)  # the last class has no rows, but is predicted
    said = np.where(made.random(rows) < 0.6, true, made.integers(0, n, rows))
    matrix = np.zeros((n, n), np.int64)
    np.add.at(matrix, (true, said), 1)
    sizes = matrix.sum(1)
    shares = matrix / np.maximum(sizes, 1)[:, None]
    shares[sizes == 0, 0] = 1.0
    whole, packed = np.random.default_rng(1), np.random.default_rng(1)
    drawn = whole.multinomial(sizes, shares, size=(7, n))
    assert np.array_equal(resample(matrix, 7, packed), drawn)
    assert whole.random() == packed.random()
    found = bootstrap_scores(matrix, [0], 7, np.random.default_rng(1))
    of_draws = score_arrays(drawn, [0])
    for name, point in score_arrays(matrix, [0]).items():
        assert np.array_equal(found[name], percentiles(float(point), of_draws[name], 0.95), equal_nan=True), name


def test_a_thousand_classes_cost_by_their_rows():
    rows, n = 5_000, 1_000
    made = np.random.default_rng(0)
    true = np.arange(rows) % n
    said = np.where(made.random(rows) < 0.4, true, made.integers(0, n, rows))
    matrix = np.zeros((n, n), np.int64)
    np.add.at(matrix, (true, said), 1)

    def seconds(work):
        start = time.process_time()
        work()
        return time.process_time() - start

    bootstrap_scores(matrix, [0], 1, np.random.default_rng(0))  # imports SciPy's matrices
    packed = seconds(lambda: bootstrap_scores(matrix, [0], 10, np.random.default_rng(0)))
    shares = matrix / matrix.sum(1)[:, None]
    whole = seconds(
        lambda: score_arrays(np.random.default_rng(0).multinomial(matrix.sum(1), shares, size=(10, n)), [0])
    )
    assert packed < whole / 4
