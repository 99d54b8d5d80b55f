"""Heads against reference values, scikit-learn and what must hold of them."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedimb.discriminant import heads
from fedimb.discriminant.estimates import Within, freedom_of, means_of, oas, trace_within, within_of
from fedimb.discriminant.fisher import fisher_mix, fisher_space, mix_steps
from fedimb.discriminant.leave_one_out import GRID, Fitted, chosen, held_out, scores_without
from fedimb.discriminant.statistics import Statistics
from fedimb.errors import ConfigError

REFERENCE = Path(__file__).parent / "reference"
INPUT, PUBLISHED, CORRECTED = (
    json.loads((REFERENCE / f"{name}.json").read_text()) for name in ("input", "published", "corrected")
)
X = np.concatenate([np.array(client["rows"]) for client in INPUT["clients"]])
Y = np.concatenate([np.array(client["labels"]) for client in INPUT["clients"]])
TEST = np.array(INPUT["test"])
EVEN = np.zeros(4)


def statistics_of(x, y, classes=4):
    """All statistics of rows, in floating point."""
    groups = [x[y == c] for c in range(classes)]
    counts = np.array([float(len(g)) for g in groups])
    scatter = np.stack([g.T @ g for g in groups])
    weights = counts.sum() / (classes * np.maximum(counts, 1))
    return Statistics(
        counts=counts,
        sums=np.stack([g.sum(0) for g in groups]),
        squares=float(np.square(x).sum()),
        second=scatter.sum(0),
        by_class=np.stack([np.square(g).sum(0) for g in groups]),
        scatter=scatter,
        weighted=np.einsum("c,cde->de", weights, scatter),
        weights=weights,
    )


ALL = statistics_of(X, Y)
DATA = np.log(ALL.counts / ALL.counts.sum())


def close(found, expected, rtol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


def centred(scores):
    return np.asarray(scores) - np.mean(scores, axis=1, keepdims=True)


def program(name):
    spec = importlib.util.spec_from_file_location(name, REFERENCE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_independent_programs_made_the_reference_values():
    """One in fractions without NumPy, which leaves each row out by beginning again; one from the definitions."""
    refitted = program("by_refitting")
    assert program("by_fractions").corrected(INPUT) == CORRECTED
    assert refitted.furthest(refitted.corrected(INPUT), CORRECTED) < 1e-12


@pytest.mark.parametrize("shrinkage", [0.05, 0.5])
def test_corrected_discriminant_analysis_and_its_leave_one_out(shrinkage):
    wanted, within = CORRECTED[f"lda {shrinkage}"], within_of(ALL)
    made = heads.lda(ALL, shrinkage, EVEN)
    close(within.effective_width(shrinkage), wanted["effective_width"])
    close(made.weight, wanted["weight"])
    close(made.bias, wanted["bias"])
    fitted = Fitted(ALL.counts, means_of(ALL), within, EVEN)
    out = [scores_without(fitted, X[[i]], Y[i], shrinkage)[0] for i in range(len(X))]
    close(centred(out), wanted["left_out"])


def test_other_corrected_heads():
    close(heads.ncm(ALL).bias, CORRECTED["ncm"]["euclidean"])
    close(heads.ncm(ALL, metric="cosine").weight, CORRECTED["ncm"]["cosine"])
    close(heads.qda(ALL, 0.2, EVEN)(TEST), CORRECTED["qda 0.2"])
    close(trace_within(ALL), np.trace(within_of(ALL).matrix))


def test_heads_as_published():
    lda = PUBLISHED["lda"]["shrink_.05"]
    made = heads.lda(ALL, 0.05, EVEN, correct=False)
    close(made.weight, lda["weight"])
    close(made.bias, lda["bias_uniform"])
    close(heads.lda(ALL, 0.05, DATA, correct=False).bias, lda["bias_data"])
    close(heads.ncm(ALL, correct=False)(TEST), PUBLISHED["ncm"]["euclidean"])
    close(heads.ncm(ALL, correct=False, metric="cosine").weight, PUBLISHED["ncm"]["cosine"])
    close(heads.qda(ALL, 0.1, EVEN, correct=False, borrowed=0.0)(TEST), PUBLISHED["qda"]["logits"])
    close(centred(heads.naive_bayes(ALL, EVEN)(TEST)), centred(PUBLISHED["nb"]))
    for penalty in (0.01, 1.0):
        wanted = PUBLISHED["ridge"][f"lambda_{penalty}"]
        close(heads.ridge(ALL, penalty, balanced=False, intercept=False).weight, wanted["weight"])
        close(heads.ridge(ALL, penalty, balanced=False).weight, wanted["weight_intercept"])
        close(heads.ridge(ALL, penalty, balanced=False).bias, wanted["intercept"])
        close(heads.ridge(ALL, penalty, balanced=True, intercept=False).weight, wanted["weight_balanced"])
        close(heads.fed3r(ALL, penalty).weight, wanted["weight_unit"])
    parts = [statistics_of(np.array(c["rows"]), np.array(c["labels"])) for c in INPUT["clients"]]
    counts, sums = np.stack([p.counts for p in parts]), np.stack([p.sums for p in parts])
    close(heads.fedcof(counts, sums, 1.0).weight, PUBLISHED["fedcof"]["weight_unit"])
    close(heads.fedcgs(ALL, DATA).weight, PUBLISHED["fedcgs"]["weight"])
    close(heads.fedcgs(ALL, DATA).bias, PUBLISHED["fedcgs"]["bias"])
    space, wanted = fisher_space(ALL), PUBLISHED["fisher"]
    close(space.eigenvalues, wanted["eigenvalues"])
    close(np.abs(space.basis), np.abs(wanted["basis"]))  # each up to its sign
    close(np.abs(space.means), np.abs(wanted["means"]))


def test_scikit_learn_has_the_same_estimators():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
    from sklearn.linear_model import Ridge
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import NearestCentroid

    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), (40, 30, 20, 10))
    x = rng.normal(size=(100, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=(4, 5))[y]
    given = statistics_of(x, y)
    data = np.log(given.counts / 100)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x, y)
    ours = heads.lda(given, 0.0, data, correct=False, within=within_of(given, divisor=100.0))
    close(centred(ours(x)), centred(theirs.decision_function(x)), 1e-8)
    # its shrinkage standardises first; with equal variances both shrink to the same
    spread = replace(within_of(given, divisor=100.0), values=np.full(5, 2.0))
    assert spread.shrunk(0.3).tolist() == [2.0] * 5
    probability = QuadraticDiscriminantAnalysis().fit(x, y).predict_log_proba(x)
    nothing = Within(
        np.full(5, 1e-300), np.eye(5), 96.0
    )  # one borrowed row of it: scatter / n, as scikit-learn divides
    own = heads.qda(given, 0.0, data, correct=False, borrowed=1.0, within=nothing)(x)
    close(centred(own), centred(probability), 1e-8)
    bayes = GaussianNB(var_smoothing=0).fit(x, y).predict_log_proba(x)
    close(centred(heads.naive_bayes(given, data)(x)), centred(bayes), 1e-8)
    nearest = NearestCentroid().fit(x, y)
    assert (heads.ncm(given, correct=False)(x).argmax(1) == nearest.predict(x)).all()
    onehot = np.eye(4)[y]
    for balanced in (False, True):
        weights = given.weights[y] if balanced else None
        fit = Ridge(alpha=0.7).fit(x, onehot, sample_weight=weights)
        ridge = heads.ridge(given, 0.7, balanced)
        close(ridge.weight, fit.coef_, 1e-8)
        close(ridge.bias, fit.intercept_, 1e-8)


def test_lda_does_not_depend_on_a_shift_or_a_common_factor():
    moved = statistics_of(3.0 * X + 5.0, Y)
    close(centred(heads.lda(moved, 0.2, EVEN)(3.0 * TEST + 5.0)), centred(heads.lda(ALL, 0.2, EVEN)(TEST)), 1e-8)


def test_the_correction_goes_as_rows_come():
    sizes = []
    for times in (1, 10, 1000):
        given = statistics_of(np.tile(X, (times, 1)), np.tile(Y, times))
        sizes.append(np.abs(heads.lda(given, 0.2, EVEN).bias - heads.lda(given, 0.2, EVEN, correct=False).bias).max())
    assert sizes[1] < sizes[0] / 5
    assert sizes[2] < sizes[0] / 500


def bias_of_scores(width, rows, shrinkage, draws, seed, correct=True):
    """Errors [draws] of the score of a class of three rows, against that with its true mean, A from the same rows."""
    rng, errors = np.random.default_rng(seed), []
    spread = np.sqrt(np.linspace(0.2, 2.0, width))
    others = np.array([3, *np.full(9, (rows - 3) // 9), rows - 3 - 9 * ((rows - 3) // 9)])
    y = np.repeat(np.arange(len(others)), others)
    classes = int((others > 0).sum())
    truth = np.zeros((classes, width))
    truth[:, :classes] = 2 * np.eye(classes)[:, :width]
    for _ in range(draws):
        x = truth[y] + rng.normal(size=(len(y), width)) * spread
        given = statistics_of_means(x, y, classes)
        within = within_of(given)
        scores = heads.lda(given, shrinkage, np.zeros(classes), correct, within)
        turned = truth[0] @ within.basis
        best = -(np.square(turned) / within.shrunk(shrinkage)).sum() / 2
        at = truth[0] @ within.basis / within.shrunk(shrinkage) @ within.basis.T
        errors.append(scores.bias[0] + truth[0] @ scores.weight[0] - best - truth[0] @ at)
    return np.array(errors)


def statistics_of_means(x, y, classes):
    sums = np.zeros((classes, x.shape[1]))
    np.add.at(sums, y, x)
    return Statistics(np.bincount(y, minlength=classes).astype(float), sums, None, x.T @ x)


def test_without_the_correction_a_class_of_three_rows_is_pushed_away():
    errors = bias_of_scores(64, 307, 0.2, 40, 1, correct=False)
    width = 50
    assert errors.mean() < -width / 6 / 2


@pytest.mark.slow
@pytest.mark.parametrize(("width", "rows"), [(64, 307), (320, 280)])
def test_the_score_of_a_class_of_three_rows_has_no_bias(width, rows):
    """Mean error 0 within 3 standard errors over 2,000 draws, with the covariance from the same rows."""
    errors = bias_of_scores(width, rows, 0.5, 2000, 0)
    assert abs(errors.mean()) < 3 * errors.std(ddof=1) / np.sqrt(len(errors))


def test_the_order_of_classes_changes_no_bit():
    order = np.array([2, 0, 3, 1])
    turned = replace(statistics_of(X, np.argsort(order)[Y]), second=ALL.second)  # the sum over all rows is exact
    one, ids = ALL.in_order()
    other, turned_ids = turned.in_order()
    assert order[turned_ids].tolist() == ids.tolist()
    for make in (lambda s: heads.lda(s, 0.1, EVEN), heads.ncm, lambda s: heads.qda(s, 0.1, EVEN)):
        first, second = make(one).spread(ids, 4), make(other).spread(turned_ids, 4)
        assert np.array_equal(first.weight[order], second.weight)
        assert np.array_equal(first.bias[order], second.bias)


def test_oas_and_the_choice_by_leaving_one_out():
    assert 0 < oas(within_of(ALL)) < 1
    assert oas(Within(np.ones(3), np.eye(3), 20.0)) == 1.0
    fitted = Fitted(ALL.counts, means_of(ALL), within_of(ALL), EVEN)
    sums = held_out(fitted, X, Y, GRID, (1.0, 4.0))
    assert sums["rows"].tolist() == ALL.counts.tolist()
    choice = chosen(sums["rows"], sums["hits"], sums["losses"], GRID, (1.0, 4.0))
    losses = (sums["losses"][:, :, 0] / sums["rows"][:, None]).mean(0)
    assert losses[GRID.index(choice.shrinkage)] == losses.min()
    even = {"rows": np.array([1, 0]), "hits": np.ones((2, 2), np.int64), "losses": np.ones((2, 2, 1), np.int64)}
    assert chosen(**even, shrinkages=(0.1, 0.2), temperatures=(1.0,)).shrinkage == 0.2  # the larger of equal ones
    assert chosen(np.zeros(2, np.int64), even["hits"], even["losses"], (0.1, 0.2), (1.0,)) is None


def test_degenerate_statistics():
    alone = statistics_of(X[:4], np.arange(4))  # one row of each class
    assert freedom_of(alone) == 0
    made = heads.lda(alone, 0.5, EVEN)
    assert (made(X[:4]).argmax(1) == np.arange(4)).all()  # the nearest mean
    wide = statistics_of(np.random.default_rng(0).normal(size=(8, 20)), np.arange(8) % 4)
    with pytest.raises(ConfigError, match="20 features have only 4 degrees of freedom; set shrinkage above 0"):
        heads.lda(wide, 0.0, EVEN)
    assert np.isfinite(heads.lda(wide, 0.1, EVEN).bias).all()
    flat = np.column_stack([X, X[:, 0], np.full(len(X), 7.0)])  # a column twice, and one that is constant
    for given in (statistics_of(flat, Y), statistics_of(np.repeat(X, 2, axis=0), np.repeat(Y, 2))):
        for made in (heads.lda(given, 0.1, EVEN), heads.qda(given, 0.1, EVEN), heads.naive_bayes(given, EVEN)):
            assert np.isfinite(made.weight).all()
            assert np.isfinite(made.bias).all()
    few = statistics_of(np.vstack([X, X[:1]]), np.append(Y, 4), 5)  # a class of one row has the pooled variances
    variance = 1 / heads.naive_bayes(few, np.zeros(5)).precision
    assert (variance[4] > 0.1).all()
    spread = heads.ncm(ALL).spread(np.array([0, 2, 3, 4]), 5)
    assert spread(TEST).argmax(1).max() != 1
    assert spread.bias[1] == -np.inf


def test_fisher_mix_finds_the_boundary_of_lda_in_the_steps_that_it_says(monkeypatch):
    step, taken = torch.optim.AdamW.step, []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: taken.append(1) or step(self))
    made = fisher_mix(ALL, EVEN, torch.Generator().manual_seed(0), draws=1000)
    assert len(taken) == mix_steps(len(EVEN), 1000) > 0
    assert (made(X).argmax(1) == heads.lda(ALL, 0.05, EVEN, correct=False)(X).argmax(1)).mean() > 0.85
