import numpy as np
import pytest
import torch
from beside import measured
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from fedimb.selection.coverage import herd, k_center_greedy, k_means, nearest_squared, squared_distances


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def one_by_one(points, count, anchors=None, first=None):
    """The rule as the paper has it, in float64."""
    points = points.double().numpy()
    nearest = np.full(len(points), np.inf)
    if anchors is not None and len(anchors):
        nearest = ((points[:, None] - anchors.double().numpy()) ** 2).sum(2).min(1)
        first = int(nearest.argmax()) if first is None else first
    if first is None:
        first = int(((points - points.mean(0)) ** 2).sum(1).argmin())
    chosen = []
    for _ in range(count):
        chosen.append(first)
        nearest = np.minimum(nearest, ((points - points[first]) ** 2).sum(1))
        first = int(np.where(np.isin(np.arange(len(points)), chosen), -1, nearest).argmax())
    return chosen


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 150),
    d=st.integers(1, 9),
    share=st.floats(0, 1),
    anchors=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_k_center_chooses_what_one_by_one_chooses(n, d, share, anchors, seed):
    points, fixed, count = (
        normal(n, d, seed=seed).double(),
        normal(anchors, d, seed=seed + 1).double(),
        round(share * n),
    )
    assert k_center_greedy(points, count, fixed).tolist() == one_by_one(points, count, fixed)
    assert k_center_greedy(points, count, first=n // 2).tolist() == one_by_one(points, count, first=n // 2)


def test_k_center_far_from_zero_and_with_a_distance_of_ones_own():
    points = normal(60, 3) + 1000
    wanted = one_by_one(points - 1000, 20, first=4)
    assert k_center_greedy(points, 20, first=4)[:10].tolist() == wanted[:10]
    shifted = points - 1000
    found = k_center_greedy(
        points[:, :0], 20, first=4, distances=lambda rows: squared_distances(shifted, shifted[rows])
    )
    assert found.tolist() == wanted


def test_k_center_of_points_all_alike_and_of_none():
    assert sorted(k_center_greedy(torch.ones(7, 2), 7).tolist()) == list(range(7))
    assert k_center_greedy(torch.zeros(0, 2), 0).tolist() == []
    for bad in ({"count": 4}, {"count": 1, "first": 3}, {"count": 1, "distances": lambda rows: rows}):
        with pytest.raises(ValueError, match="k-centre"):
            k_center_greedy(torch.ones(3, 2), **bad)


@pytest.mark.slow
@pytest.mark.alone
def test_k_center_of_fifty_thousand_rows_stays_under_five_hundred_units():
    with measured() as units:
        assert len(k_center_greedy(normal(50_000, 256), 5000, first=0).unique()) == 5000
    assert float(units) < 500


def test_distances_are_squared_euclidean_and_never_negative():
    a, b = normal(40, 5), normal(7, 5, seed=1)
    assert torch.allclose(squared_distances(a, b), torch.cdist(a, b).square(), atol=1e-4)
    assert torch.allclose(nearest_squared(a, b), torch.cdist(a, b).square().amin(1), atol=1e-4)
    assert squared_distances(a, a).min() >= 0


def test_k_means_finds_blobs_repeats_by_generator_and_bears_copies():
    truth = torch.arange(4).repeat_interleave(30)
    points = 20 * torch.eye(4)[truth] + normal(120, 4)
    centres, clusters = k_means(points, 4, torch.Generator().manual_seed(0))
    assert adjusted_rand_score(truth, clusters) == 1
    for c in range(4):
        assert torch.allclose(centres[c], points[clusters == c].mean(0), atol=1e-4)
    assert torch.equal(k_means(points, 4, torch.Generator().manual_seed(0))[1], clusters)
    assert k_means(torch.ones(5, 2), 9, torch.Generator())[1].unique().numel() == 1


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 30), d=st.integers(1, 5), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_herding_takes_the_row_that_brings_the_means_together(n, d, share, seed):
    points = normal(n, d, seed=seed).double()
    found = herd(points, round(share * n)).tolist()
    x, mean = points.numpy(), points.numpy().mean(0)
    for t, row in enumerate(found):
        gap = {i: np.linalg.norm(mean - x[[*found[:t], i]].mean(0)) for i in range(n) if i not in found[:t]}
        assert gap[row] == pytest.approx(min(gap.values()), abs=1e-9)


def test_herding_cannot_choose_more_than_there_is():
    with pytest.raises(ValueError, match="4 of 3"):
        herd(torch.ones(3, 1), 4)
