"""The rules that draw: random, stratified random, and coverage-centric selection."""

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.selection.coresets.base import Candidates
from fedimb.selection.coresets.ccs import CoverageCentric, area_under_margin
from fedimb.selection.coresets.random import Random
from fedimb.selection.coresets.stratified_random import StratifiedRandom


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_random_is_uniform_over_rows():
    hits = torch.zeros(20)
    rows = Candidates(torch.arange(20) // 19, 2, generator())
    for _ in range(2000):
        hits[Random().select(rows, 5)] += 1
    assert (hits - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_stratified_random_keeps_shares_and_a_row_of_the_rare():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 9 + [3])
    rows = Candidates(labels, 5, generator())
    assert torch.bincount(labels[StratifiedRandom().select(rows, 33)], minlength=5).tolist() == [19, 10, 3, 1, 0]
    again = Candidates(labels, 5, generator(1))
    assert not torch.equal(StratifiedRandom().select(again, 33), StratifiedRandom().select(again, 33))


def given(margins):
    """Two classes, label 0; a probability p has margin 2 p - 1."""
    p = (torch.as_tensor(margins) + 1) / 2
    history = torch.stack([p, 1 - p], dim=1)[None].float()
    return Candidates(torch.zeros(len(p), dtype=torch.int64), 2, generator(), history=history)


def test_area_under_margin_is_the_mean_lead_over_the_best_other():
    history = torch.randn(4, 10, 3, generator=generator()).softmax(2)
    labels = torch.randint(3, (10,), generator=generator(1))
    wanted = [
        np.mean([h[i, c] - max(h[i, j] for j in range(3) if j != c) for h in history.numpy()])
        for i, c in enumerate(labels.tolist())
    ]
    assert np.allclose(area_under_margin(history, labels), wanted, atol=1e-6)


def test_the_hardest_are_cut_and_levels_filled_evenly():
    # 10 hard outliers, then 90 rows crowded at the easy end and 10 spread over the range
    margins = np.concatenate([np.full(10, -0.99), np.full(90, 0.95), np.linspace(-0.5, 0.9, 10)])
    kept = CoverageCentric(beta=10 / 110, bins=10).select(given(margins), 19)
    assert not (kept < 10).any()
    assert int((kept >= 100).sum()) >= 9  # the few at each level are all taken
    assert CoverageCentric(beta=1.0, bins=10).select(given(margins), 109).numel() == 109  # the budget limits the cut


def test_fewer_rows_than_levels_leave_out_levels_by_lot():
    margins = np.linspace(-1, 1, 100)
    rows = given(margins)
    seen = torch.cat([CoverageCentric(beta=0, bins=50).select(rows, 5) for _ in range(60)])
    assert int(torch.unique(seen // 2).numel()) > 40


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="bins=0"):
        CoverageCentric(bins=0)
    with pytest.raises(ConfigError, match="beta=2"):
        CoverageCentric(beta=2)
