"""The dynamic margin on a fixed simplex: loss and head."""

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.models.heads import SimplexHead, open_set_score, simplex
from fedimb.training.losses.dm_simplex import DynamicMarginSimplex


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_vertices_have_length_1_and_equal_distances_around_0(classes):
    points = simplex(classes)
    assert points.shape == (classes, classes - 1)
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64).fill_diagonal_(1.0)
    torch.testing.assert_close(points @ points.T, expected)
    torch.testing.assert_close(points.sum(0), torch.zeros(classes - 1, dtype=torch.float64))


def test_logits_are_the_negative_squared_distances_to_the_vertices():
    head, x = SimplexHead(4, 3), torch.randn(5, 4)
    at = x @ head.projection.weight.T + head.projection.bias
    torch.testing.assert_close(head(x), -(torch.cdist(at, 100 * simplex(3).float()) ** 2), rtol=1e-4, atol=0.1)
    assert [name for name, p in head.named_parameters() if p.requires_grad] == ["projection.weight", "projection.bias"]


def test_by_hand():
    # 6 of 8 rows, 2 and none: margins 38 + 33 (1 - 6/10), and 38 + 33 (1 - 2/10) for the other two
    loss = DynamicMarginSimplex(np.array([6, 2, 0]))
    assert loss.margins.tolist() == pytest.approx([51.2, 64.4, 64.4])
    # distances 10, 30 and 200 with label 1: 30 / (2 x 2) + ((64.4 + 30 - 10) + 0) / (2 x 3)
    value = loss(torch.tensor([[-10.0, -30.0, -200.0]]), torch.tensor([1]))
    assert float(value) == pytest.approx(30 / 4 + 84.4 / 6, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_two_terms_of_the_paper_over_a_batch(seed):
    torch.manual_seed(seed)
    head, x, y = SimplexHead(4, 5), 30 * torch.randn(16, 4), torch.randint(5, (16,))
    counts = np.array([40, 6, 9, 3, 2])
    f, s = head.projection(x).detach().double(), head.weight.double()
    margins = 38 + (71 - 38) * (1 - counts / counts.sum())
    intra = sum(float((f[i] - s[y[i]]).square().sum()) for i in range(16)) / (2 * 16 * f.shape[1])
    inter = 0.0
    for i in range(16):
        distances = (f[i] - s).square().sum(1)
        for j in range(5):
            if j != y[i]:
                inter += max(0.0, float(margins[y[i]] + distances[y[i]] - distances[j]))
    found = DynamicMarginSimplex(counts)(head(x), y)
    assert float(found) == pytest.approx(intra + inter / (2 * 16 * 5), rel=1e-4)


def test_the_open_set_score_falls_with_the_distance_to_the_nearest_vertex():
    scores = open_set_score(torch.tensor([[0.0, -5.0], [-3.0, -1.0], [-99.0, -1e9]]))
    assert scores.tolist() == pytest.approx([1.0, 0.5, 0.01])


def test_margins_the_wrong_way_round_are_refused():
    with pytest.raises(ConfigError, match="max_margin=10 is below min_margin=38"):
        DynamicMarginSimplex(np.array([1, 2]), max_margin=10.0)
    with pytest.raises(ConfigError, match="loss 'dm_simplex': min_margin"):
        DynamicMarginSimplex(np.array([1, 2]), min_margin=-1.0)
