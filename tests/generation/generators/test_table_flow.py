"""Flow on rows of numbers: class means and deviations, constant columns, and two sites of which one holds a class."""

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.generation.averaging import average
from fedimb.generation.examples import Examples
from fedimb.generation.training import Training, train_generator
from tests.generation.generator_cases import build, rng

MEANS = torch.tensor([[0.0, 0.0], [40.0, -3.0]])
SPREADS = torch.tensor([[10.0, 1.0], [15.0, 0.5]])


def clouds(counts, seed=0):
    """Two Gaussian classes of unlike scales, a constant column, and one of zeros with a single other value."""
    y = torch.from_numpy(np.repeat(np.arange(2), counts))
    values = MEANS[y] + SPREADS[y] * torch.randn(len(y), 2, generator=rng(seed))
    lone = torch.zeros(len(y), 1)
    lone[0] = 1.0
    return Examples(torch.cat([values, torch.full((len(y), 1), 7.1), lone], 1), y, torch.zeros_like(y))


def test_samples_have_their_classes_means_and_deviations():
    data = clouds((200, 40))
    model = build("table_flow", n_classes=2, n_domains=1, shape=(4,), width=32, depth=2, steps=20)
    train_generator(model, data, Training(steps=300, batch=64, lr=5e-3), 0)
    y = torch.arange(2).repeat_interleave(300)
    made = model.sample(y, torch.zeros_like(y), rng(1))
    for c in range(2):
        own, real = made[y == c][:, :2], data.x[data.y == c][:, :2]
        assert ((own.mean(0) - real.mean(0)).abs() < 0.6 * SPREADS[c]).all()
        assert ((own.std(0) / real.std(0) - 1).abs() < 0.5).all()
    assert torch.equal(made[:, 2], torch.full((600,), 7.1)), "a constant column stays one"
    assert made[:, 3].min() >= 0
    assert made[:, 3].max() <= 1


def test_two_sites_of_which_one_holds_the_class_make_it_together():
    """Three rounds of averaging; the class held by one of two lies where it should, not half-way."""
    sites, rounds = (clouds((60, 0)), clouds((60, 60), seed=1)), 3
    both = Examples(*(torch.cat([getattr(s, key) for s in sites]) for key in ("x", "y", "d")))
    server = build("table_flow", n_classes=2, n_domains=1, shape=(4,), width=32, depth=2, steps=10)
    server.fit_scale(both)
    client = build("table_flow", n_classes=2, n_domains=1, shape=(4,), width=32, depth=2, steps=10)
    state = server.state_dict()
    for k in range(rounds):
        replies = []
        for seed, own in enumerate(sites):
            client.load_state_dict(state)
            train_generator(client, own, Training(steps=50, batch=32, lr=5e-3, ema=0.9), 2 * k + seed)
            replies.append({key: value.numpy().copy() for key, value in client.state_dict().items()})
        counts, domains = [[60, 0], [60, 60]], [[60], [120]]
        merged = average(replies, counts, domains, server.class_rows(), server.domain_rows())
        state = {key: torch.from_numpy(value) for key, value in merged.items()}
    server.load_state_dict(state)
    y = torch.ones(200, dtype=torch.int64)
    made = server.sample(y, torch.zeros_like(y), rng(1))
    own = made[:, :2].mean(0)
    assert ((own - MEANS[1]).abs() < SPREADS[1]).all(), "two or more deviations from class 0"


def test_what_is_no_table_is_refused_with_the_generator_to_use():
    with pytest.raises(ConfigError, match=r"\(columns,\), this data has \(1, 8, 8\): use flow"):
        build("table_flow", shape=(1, 8, 8))
    for wrong in ({"width": 0}, {"depth": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            build("table_flow", **wrong)
