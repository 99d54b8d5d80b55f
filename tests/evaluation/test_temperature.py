"""The temperature of the least held-out log loss, from sums that neither order nor parties change."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from fedimb.errors import DataError
from fedimb.evaluation.temperature import (
    ONE_FOLD,
    TEMPERATURES,
    at_edge,
    best_temperature,
    loss_sums,
    mean_losses,
)


def rows(seed, n=400, classes=5, sure=3.0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), y] += 1.0
    return sure * logits, y


def test_the_grid_is_from_a_quarter_to_sixteen_in_equal_ratios():
    assert len(TEMPERATURES) == 37
    assert (TEMPERATURES[0], TEMPERATURES[12], TEMPERATURES[-1]) == (0.25, 1.0, 16.0)
    ratios = np.array(TEMPERATURES[1:]) / TEMPERATURES[:-1]
    np.testing.assert_allclose(ratios, 2 ** (1 / 6))


@pytest.mark.parametrize("sure", [0.5, 1.0, 3.0, 7.0])
def test_it_is_that_of_a_direct_minimisation_to_the_grid(sure):
    logits, y = rows(1, sure=sure)
    found = best_temperature(loss_sums(logits, y))
    z = logits.double()
    direct = minimize_scalar(lambda t: float(cross_entropy(z / np.exp(t), y)), bounds=(-2, 3), method="bounded")
    assert abs(np.log(found) - direct.x) < np.log(2) / 6  # the least of a convex curve is at a neighbour
    losses = mean_losses(loss_sums(logits, y), len(y))
    np.testing.assert_allclose(losses, [float(cross_entropy(z / t, y)) for t in TEMPERATURES], atol=1e-6)


def test_neither_order_nor_parties_change_a_bit():
    logits, y = rows(2)
    whole = loss_sums(logits, y)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(whole, loss_sums(logits[order], y[order]))
    for sizes in ([1, 0, 399], [100, 100, 100, 100]):
        parts = zip(logits[order].split(sizes), y[order].split(sizes), strict=True)
        np.testing.assert_array_equal(whole, sum(loss_sums(*part) for part in parts))


def test_one_fold_is_clamped_and_the_ends_are_told():
    sure = loss_sums(*(part[:20] for part in rows(3, sure=60.0)))
    assert best_temperature(sure) == TEMPERATURES[-1]
    assert at_edge(16.0)
    assert best_temperature(sure, ONE_FOLD) == pytest.approx(8)
    assert at_edge(best_temperature(sure, ONE_FOLD), ONE_FOLD)
    assert not at_edge(1.0)


def test_of_equal_losses_the_one_nearest_to_one():
    assert best_temperature(np.zeros(37, np.int64)) == 1.0


def test_a_diverged_model_is_refused():
    with pytest.raises(DataError, match="diverged"):
        loss_sums(torch.tensor([[1.0, float("nan")]]), torch.tensor([0]))
