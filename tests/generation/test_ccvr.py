import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp

from fedimb.errors import ConfigError, DataError
from fedimb.generation.ccvr import ClassGaussians, class_gaussians, pool, retrain_head, virtual_features


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def close(a, b):
    return torch.allclose(a, b, atol=1e-9, rtol=1e-7)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40), st.integers(0, 2**32))
def test_pooled_reports_are_those_of_all_rows_together(rows, seed):
    y = torch.tensor([c for c, _ in rows])
    client = torch.tensor([k for _, k in rows])
    features = 1000 + torch.randn(len(y), 3, generator=seeded(seed)).double()  # far from 0: sums of squares cancel
    found = pool([class_gaussians(features[client == k], y[client == k], 5) for k in range(5)])
    assert torch.equal(found.counts, torch.bincount(y, minlength=5))
    for c in range(5):
        members = features[y == c].numpy()
        mean = members.mean(0) if len(members) else np.zeros(3)
        covariance = np.cov(members.T) if len(members) > 1 else np.zeros((3, 3))
        assert close(found.mean[c], torch.from_numpy(mean))
        assert torch.allclose(found.covariance[c], torch.from_numpy(covariance), atol=1e-7)


def test_pooling_is_the_papers_equation():
    y, client = torch.arange(30) % 2, torch.arange(30) % 3
    x = torch.randn(30, 2, generator=seeded()).double()
    parts = [class_gaussians(x[client == k], y[client == k], 2) for k in range(3)]
    found = pool(parts)
    for c in range(2):
        n = sum(float(p.counts[c]) for p in parts)
        mu = sum(p.counts[c] * p.mean[c] for p in parts) / n
        sigma = sum((p.counts[c] - 1) / (n - 1) * p.covariance[c] for p in parts)
        sigma = sigma + sum(p.counts[c] / (n - 1) * torch.outer(p.mean[c], p.mean[c]) for p in parts)
        assert close(found.covariance[c], sigma - n / (n - 1) * torch.outer(mu, mu))


def test_classes_below_the_least_count_are_left_out():
    found = class_gaussians(torch.rand(5, 2), torch.tensor([0, 0, 0, 1, 1]), 3, least=3)
    assert found.counts.tolist() == [3, 0, 0]
    assert not found.mean[1].any()
    assert not found.covariance[1].any()


def test_drawn_features_have_the_moments_of_their_class():
    covariance = torch.tensor([[[2.0, 0.6], [0.6, 0.5]], [[1.0, 1.0], [1.0, 1.0]]]).double()  # the second is singular
    gaussians = ClassGaussians(torch.tensor([9, 9]), torch.tensor([[5.0, -3.0], [0.0, 1.0]]).double(), covariance)
    made, y = virtual_features(gaussians, 20_000, seeded())
    assert torch.bincount(y).tolist() == [20_000, 20_000]
    for c in range(2):
        assert torch.allclose(made[y == c].mean(0).double(), gaussians.mean[c], atol=0.05)
        assert torch.allclose(torch.cov(made[y == c].T.double()), covariance[c], atol=0.06)
    assert torch.equal(made, virtual_features(gaussians, 20_000, seeded())[0])
    assert virtual_features(gaussians, 50, seeded(), nonnegative=True)[0].min() == 0


def test_a_class_of_one_row_borrows_the_spread_of_the_others_and_an_absent_one_is_left_out():
    x = torch.cat([torch.randn(400, 2, generator=seeded()) * torch.tensor([1.0, 3.0]), torch.tensor([[50.0, 50.0]])])
    y = torch.tensor([0] * 400 + [2])
    made, classes = virtual_features(class_gaussians(x, y, 4), 5000, seeded())
    assert classes.unique().tolist() == [0, 2]
    assert torch.allclose(made[classes == 2].mean(0), torch.tensor([50.0, 50.0]), atol=0.3)
    assert torch.allclose(made[classes == 2].std(0), x[:400].std(0), rtol=0.05)


def test_one_row_per_class_everywhere_gives_the_rows_themselves():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    made, y = virtual_features(class_gaussians(x, torch.tensor([0, 1]), 2), 3, seeded())
    assert torch.equal(made, x[y])


def three_classes(n=200):
    y = torch.arange(n) % 3
    centres = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    return centres[y] + torch.randn(n, 2, generator=seeded()), y


def test_the_head_comes_to_the_best_there_is():
    x, y = three_classes(120)
    w, b = retrain_head(torch.zeros(3, 2), torch.zeros(3), x, y, seeded(), epochs=60)

    def loss(head):  # convex: any minimiser finds the one lowest value
        logits = x.double().numpy() @ head[:6].reshape(3, 2).T + head[6:]
        return float((logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).mean())

    lowest = minimize(loss, np.zeros(9)).fun
    assert lowest - 1e-6 <= loss(np.concatenate([w.numpy().ravel(), b.numpy()])) < lowest + 2e-3 < loss(np.zeros(9))


def test_the_scale_of_features_does_not_matter():
    x, y = three_classes()
    start = torch.randn(3, 2, generator=seeded(1))
    w, b = retrain_head(start, torch.zeros(3), x, y, seeded())
    small_w, small_b = retrain_head(start * 1000, torch.zeros(3), x / 1000, y, seeded())
    assert torch.allclose(small_w / 1000, w, atol=1e-4)
    assert torch.allclose(small_b, b, atol=1e-4)


def test_a_class_without_rows_keeps_its_row_and_nothing_given_is_changed():
    x, y = three_classes()
    x, y = x[y != 1], y[y != 1]
    w, b = torch.randn(3, 2, generator=seeded(2)), torch.tensor([0.0, 7.0, 0.0])
    before = w.clone()
    new_w, new_b = retrain_head(w, b, x, y, seeded())
    assert torch.equal(new_w[1], w[1])
    assert new_b[1] == 7
    assert not torch.equal(new_w[0], w[0])
    assert torch.equal(w, before)
    assert not new_w.requires_grad


def test_no_global_draw_is_used():
    x, y = three_classes()
    state = torch.random.get_rng_state()
    made, classes = virtual_features(class_gaussians(x, y, 3), 20, seeded())
    retrain_head(torch.zeros(3, 2), torch.zeros(3), made, classes, seeded(), epochs=1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_cannot_be_used_is_refused():
    x, y = three_classes(9)
    with pytest.raises(DataError, match="NaN or infinite"):
        class_gaussians(x / 0, y, 3)
    with pytest.raises(DataError, match="label 2"):
        class_gaussians(x, y, 2)
    with pytest.raises(ConfigError, match="min_count"):
        class_gaussians(x, y, 3, least=0)
    with pytest.raises(DataError, match="cannot pool"):
        pool([])
    with pytest.raises(DataError, match="cannot pool"):
        pool([class_gaussians(x, y, 3), class_gaussians(x, y, 4)])
    good = class_gaussians(x, y, 3)
    with pytest.raises(DataError, match="part 1"):
        pool([good, ClassGaussians(good.counts, good.mean * torch.nan, good.covariance)])
    with pytest.raises(DataError, match="no class has rows"):
        virtual_features(class_gaussians(x[:0], y[:0], 3), 5, seeded())
    with pytest.raises(ConfigError, match="per class"):
        virtual_features(good, 0, seeded())
    with pytest.raises(DataError, match="does not match"):
        retrain_head(torch.zeros(3, 5), torch.zeros(3), x, y, seeded())
    with pytest.raises(ConfigError, match="epochs=0"):
        retrain_head(torch.zeros(3, 2), torch.zeros(3), x, y, seeded(), epochs=0)
