import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from fedimb.errors import DataError
from fedimb.generation.fidelity import copies, fidelity, frechet_distance, kernel_distance, precision_recall


def drawn(n, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_frechet_is_the_formula_by_a_matrix_square_root():
    a, b = drawn(60, 4), drawn(50, 4, 1) * torch.tensor([1.0, 2.0, 0.5, 1.0]) + 0.3
    x, y = a.double().numpy(), b.double().numpy()
    first, second = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_frechet_of_equal_sets_is_0_and_of_a_shift_its_square():
    a = drawn(30)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(12, rel=1e-6)
    assert frechet_distance(drawn(5, 20), drawn(5, 20)) == pytest.approx(0, abs=1e-9)  # singular covariances
    assert frechet_distance(drawn(9, 1), drawn(9, 1)) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_the_mean_over_pairs():
    a, b = drawn(7).double(), drawn(5, seed=1).double()

    def k(u, v):
        return (float(u @ v) / 3 + 1) ** 3

    own = [np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (a, b)]
    assert kernel_distance(a, b) == pytest.approx(sum(own) - 2 * np.mean([k(u, v) for u in a for v in b]))


def test_precision_falls_with_strange_samples_and_recall_with_missing_ones():
    real = torch.cat([drawn(100), drawn(100, seed=1) + 50])
    half = drawn(100, seed=2)  # one of two modes, all of it plausible
    precision, recall = precision_recall(real, half)
    assert precision > 0.9
    assert 0.4 < recall < 0.5
    strange = torch.cat([half, drawn(100, seed=3) - 80])
    assert precision_recall(real, strange)[0] < 0.5
    assert precision_recall(real, real) == (1.0, 1.0)


def test_precision_by_hand():
    real, made = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[1.5], [4.9], [5.1], [9.0]])
    # k = 1: reaches 1, 1, 2 of the real rows; 3.4, .2, .2 and 3.9 of the made ones.
    assert precision_recall(real, made, k=1) == (0.5, 1.0)


def test_few_rows_are_scored_by_precision_and_recall_and_too_few_not_at_all():
    real, made = drawn(250), drawn(260, seed=1)
    real_y = torch.tensor([0] * 200 + [1] * 47 + [2] * 3)
    made_y = torch.tensor([0] * 200 + [1] * 57 + [2] * 3)
    big, small, tiny, none = fidelity(real, real_y, made, made_y, 4)
    assert big["frechet"] == pytest.approx(frechet_distance(real[:200], made[:200]))
    assert big["kernel"] == pytest.approx(kernel_distance(real[:200], made[:200]))
    assert math.isnan(big["precision"])
    assert math.isnan(small["frechet"])
    assert 0 < small["recall"] <= 1
    assert (tiny["rows_real"], tiny["rows_made"]) == (3, 3)
    for score in (tiny, none):
        assert all(math.isnan(score[name]) for name in ("frechet", "kernel", "precision", "recall"))


def test_copies_are_counted():
    real = drawn(20)
    assert copies(real, torch.cat([real[3:5], drawn(9, seed=1)])) == 2


def test_sets_without_a_spread_or_of_another_width_are_refused():
    with pytest.raises(DataError, match="n >= 2"):
        frechet_distance(drawn(1), drawn(5))
    with pytest.raises(DataError, match="distances need"):
        kernel_distance(drawn(5, 2), drawn(5, 3))
    with pytest.raises(DataError, match="of one d"):
        precision_recall(drawn(9, 2), drawn(9, 3))
