import torch
from sklearn.cluster import KMeans

from fedimb.selection.queries.clusters import best_of_each, k_means, nearest_centre, topped_up


def drawn(n, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_passes_are_those_of_scikit_learn_from_the_same_start():
    rows, generator = drawn(200), torch.Generator().manual_seed(3)
    start = rows[torch.randperm(200, generator=torch.Generator().manual_seed(3))[:8]]
    cluster, centres = k_means(rows, 8, generator, passes=300)
    theirs = KMeans(8, init=start.numpy(), n_init=1, max_iter=300, tol=0).fit(rows.numpy())
    assert cluster.tolist() == theirs.labels_.tolist()
    assert torch.allclose(centres, torch.from_numpy(theirs.cluster_centers_), atol=1e-5)


def test_each_row_is_with_its_nearest_centre():
    rows, centres = drawn(50), drawn(7, seed=1)
    assert torch.equal(nearest_centre(rows, centres), torch.cdist(rows, centres).argmin(1))


def test_more_clusters_than_rows_and_rows_that_coincide():
    cluster, centres = k_means(drawn(3), 9, torch.Generator().manual_seed(0))
    assert sorted(cluster.tolist()) == [0, 1, 2]
    cluster, centres = k_means(torch.ones(6, 2), 4, torch.Generator().manual_seed(0))
    assert len(set(cluster.tolist())) == 1
    assert torch.isfinite(centres).all()


def test_best_of_each_and_topping_up():
    cluster, scores = torch.tensor([2, 0, 2, 0, 5, 5]), torch.tensor([1.0, 4.0, 3.0, 4.0, 2.0, 9.0])
    assert best_of_each(cluster, scores).tolist() == [5, 1, 2]
    assert topped_up(torch.tensor([5, 1, 2]), scores, 5).tolist() == [5, 1, 2, 3, 4]
    assert topped_up(torch.tensor([5, 1, 2]), scores, 2).tolist() == [5, 1]
