from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.selection.medoids import _Clustering, k_medoids


def between(n, seed=0, d=2):
    points = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double()
    return torch.cdist(points, points)


def loss(distances, medoids):
    return float(distances[:, list(medoids)].amin(1).sum())


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 16), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_no_single_swap_lowers_the_sum(n, share, seed):
    distances, count = between(n, seed), round(share * n)
    found = k_medoids(distances, count, torch.Generator().manual_seed(seed)).tolist()
    assert found == sorted(set(found))
    assert len(found) == count
    if count:
        best = loss(distances, found)
        for out in found:
            for new in set(range(n)) - set(found):
                assert loss(distances, [*(m for m in found if m != out), new]) >= best - 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_among_many_points_no_swap_lowers_the_sum_either(seed):
    distances = between(80, seed, d=3)
    found = k_medoids(distances, 12, torch.Generator().manual_seed(seed)).tolist()
    best = loss(distances, found)
    for out in found:
        near = distances[:, [m for m in found if m != out]].amin(1, keepdim=True)
        assert torch.minimum(near, distances).sum(0).min() >= best - 1e-9


def test_the_best_of_all_choices_is_met_from_most_starts():
    distances = between(12, 3)
    best = min(loss(distances, c) for c in combinations(range(12), 3))
    found = [loss(distances, k_medoids(distances, 3, torch.Generator().manual_seed(s)).tolist()) for s in range(20)]
    assert min(found) == pytest.approx(best)
    assert max(found) < 1.3 * best


def test_one_medoid_is_the_point_nearest_to_all():
    distances = between(30, 1)
    assert k_medoids(distances, 1, torch.Generator()).tolist() == [int(distances.sum(1).argmin())]


def test_copies_none_and_too_many():
    assert len(k_medoids(torch.zeros(6, 6), 3, torch.Generator())) == 3
    assert k_medoids(torch.zeros(0, 0), 0, torch.Generator()).tolist() == []
    with pytest.raises(ValueError, match="4 of 3"):
        k_medoids(torch.zeros(3, 3), 4, torch.Generator())


def test_after_every_swap_the_two_nearest_medoids_are_known():
    distances = between(40, 5).numpy()
    found = _Clustering(distances, np.arange(6))
    swaps = [candidate for candidate in range(40) if found.try_swap(candidate)]
    assert len(swaps) > 3
    two = np.sort(distances[:, found.medoids], axis=1)
    assert np.array_equal(found.near, two[:, 0])
    assert np.array_equal(found.far, two[:, 1])
