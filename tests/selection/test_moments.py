import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import ConfigError, DataError
from fedimb.selection.moments import Moments, add_noise, class_moments, pool, suppress


def data(n, classes, seed, metrics=3):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    return torch.rand(n, metrics, generator=generator, dtype=torch.float64) * 2 - 1, y


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 60), classes=st.integers(1, 6), clients=st.integers(1, 5), seed=st.integers(0, 999))
def test_pooled_moments_are_those_of_the_rows_laid_end_to_end(n, classes, clients, seed):
    scores, y = data(n, classes, seed)
    where = np.random.default_rng(seed).integers(clients, size=n)
    pooled = pool([class_moments(scores[where == k], y[where == k], classes) for k in range(clients)])
    for c in range(classes):
        rows = scores[y == c].numpy()
        assert pooled.counts[c] == len(rows)
        assert np.allclose(pooled.mean[c], rows.mean(0) if len(rows) else 0, atol=1e-12)
        assert np.allclose(pooled.variance[c], rows.var(0) if len(rows) else 0, atol=1e-12)


def test_variance_survives_a_large_mean():
    scores = 1e6 + torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    y = torch.zeros(3, dtype=torch.int64)
    pooled = pool([class_moments(scores[:1], y[:1], 1), class_moments(scores[1:], y[1:], 1)])
    assert pooled.variance[0, 0] == pytest.approx(2 / 3, abs=1e-9)


def test_messages_hold_zeros_never_nan():
    scores = torch.tensor([[0.5, torch.nan], [0.7, torch.nan], [0.1, 0.2]])
    found = class_moments(scores, torch.tensor([0, 0, 2]), 4)
    assert found.counts.tolist() == [2, 0, 1, 0]
    assert np.isfinite(found.mean).all()
    assert np.isfinite(found.variance).all()
    assert found.mean[0].tolist() == pytest.approx([0.6, 0])
    assert found.variance[2].tolist() == [0, 0]


def test_scores_missing_for_a_part_of_a_class_are_refused():
    with pytest.raises(DataError, match="some rows of a class"):
        class_moments(torch.tensor([[0.5], [torch.nan]]), torch.tensor([0, 0]), 1)
    with pytest.raises(DataError, match="infinite"):
        class_moments(torch.tensor([[0.5], [torch.inf]]), torch.tensor([0, 0]), 1)


def test_small_cells_are_left_out_and_listed():
    scores, _ = data(9, 1, 0)
    whole = class_moments(scores, torch.tensor([0] * 5 + [1] * 3 + [3]), 4)
    found = suppress(whole, 4)
    assert found.suppressed.tolist() == [1, 3]  # class 2 has no rows: nothing to leave out
    assert found.counts.tolist() == [5, 0, 0, 0]
    assert not found.mean[1:].any()
    assert not found.variance[1:].any()
    assert np.array_equal(found.mean[0], whole.mean[0])
    assert suppress(whole, 1).suppressed.size == 0
    with pytest.raises(ConfigError, match="at least 1"):
        suppress(whole, 0)


def normals():
    rng = np.random.default_rng(0)
    return lambda shapes: [rng.standard_normal(shape) for shape in shapes]


def test_noise_has_the_deviation_asked_for_and_reaches_classes_nobody_holds():
    scores, y = data(4000, 400, 1)
    whole = class_moments(scores * 0.1, y, 800)
    noisy = add_noise(whole, 3.0, normals())
    change = noisy.counts[:400] - whole.counts[:400]
    kept = noisy.counts[:400] > 0
    assert 2.0 < change[kept & (whole.counts[:400] > 9)].std() < 3.5
    assert 0.2 < (noisy.counts[400:] > 0).mean() < 0.5  # P(noise of deviation 3 >= 1) = .37
    assert np.abs(noisy.mean).max() <= 1
    assert 0 <= noisy.variance.min() <= noisy.variance.max() <= 1
    assert noisy.counts[noisy.counts > 0].min() >= 1
    assert not noisy.mean[noisy.counts == 0].any()
    again = add_noise(whole, 3.0, normals())
    assert np.array_equal(noisy.mean, again.mean)


def test_noise_fades_with_the_rows_and_is_off_at_zero():
    scores, y = data(30_000, 2, 2)
    whole = class_moments(scores, y, 2)
    noisy = add_noise(whole, 2.0, normals())
    assert 0 < np.abs(noisy.mean - whole.mean).max() < 2e-3
    assert np.abs(noisy.variance - whole.variance).max() < 2e-3
    assert add_noise(whole, 0.0, normals()) is whole
    with pytest.raises(ConfigError, match="sigma"):
        add_noise(whole, -1.0, normals())
    with pytest.raises(DataError, match=r"\[-1, 1\]"):
        add_noise(class_moments(scores + 5, y, 2), 1.0, normals())


def test_what_is_not_moments_is_refused():
    good = class_moments(*data(9, 3, 0), 3)
    with pytest.raises(DataError, match="at least one client"):
        pool([])
    with pytest.raises(DataError, match="the same class list"):
        pool([good, class_moments(*data(9, 3, 0), 4)])
    bad = Moments(good.counts, good.mean, -good.variance - 1, good.suppressed)
    with pytest.raises(DataError, match="variance of part 1"):
        pool([good, bad])
