"""Parts of a class: planted clusters are found, drawn and made evenly; what is too small for a part is not one."""

import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.generation.batches import draw_batch
from fedimb.generation.examples import Examples
from fedimb.generation.subclusters import subclusters
from fedimb.generation.training import Training, train_generator
from tests.generation.generator_cases import build, rng


def planted(counts, step=10.0):
    """Class c has a cluster of ``counts[c][k]`` rows around k * ``step``: (x [n, 2], y [n], cluster [n])."""
    y = torch.cat([torch.full((size,), c) for c, sizes in enumerate(counts) for size in sizes])
    cluster = torch.cat([torch.full((size,), k) for sizes in counts for k, size in enumerate(sizes)])
    return step * cluster[:, None] + torch.randn(len(y), 2, generator=rng(2)), y, cluster


def test_planted_clusters_are_the_parts_of_each_class():
    x, y, cluster = planted([(200, 25), (30, 30, 40), (60,)])
    parts = subclusters(x, y, 3, 20, rng())
    pairs = {(int(c), int(k)): set(parts[(y == c) & (cluster == k)].tolist()) for c, k in zip(y, cluster, strict=True)}
    for (c, k), found in pairs.items():
        if (c, k) != (0, 0) and c != 2:  # of three parts for two clusters, the larger is divided
            assert len(found) == 1, (c, k)
    assert not pairs[0, 0] & pairs[0, 1]
    assert len(set.union(*(pairs[1, k] for k in range(3)))) == 3
    for c in range(3):
        assert torch.bincount(parts[y == c]).min() >= 20


def test_a_few_rows_apart_are_no_part():
    x, y, _ = planted([(100, 3)])
    assert subclusters(x, y, 2, 20, rng()).unique().tolist() == [0]
    x, y, _ = planted([(15, 15)])
    assert subclusters(x, y, 2, 20, rng()).unique().tolist() == [0], "each would have fewer than 20"
    equal = torch.ones(60, 2)
    assert subclusters(equal, torch.zeros(60, dtype=torch.int64), 3, 20, rng()).unique().tolist() == [0]


def test_batches_draw_classes_and_their_parts_evenly():
    _, y, cluster = planted([(400, 20), (50,), (30, 30, 30)])
    rows = draw_batch(y, 60_000, "class", rng(), cluster)
    shares = torch.bincount(y[rows] * 3 + cluster[rows]) / 60_000
    expected = torch.tensor([1 / 6, 1 / 6, 0, 1 / 3, 0, 0, 1 / 9, 1 / 9, 1 / 9])
    assert (shares - expected).abs().max() < 0.01
    assert len(rows.unique()) == len(y), "every row is drawn"


def test_of_whole_classes_the_draws_are_those_without_parts():
    _, y, _ = planted([(40,), (3,)])
    whole = draw_batch(y, 5000, "class", rng(), torch.zeros_like(y))
    assert torch.bincount(y[whole])[1] / 5000 == pytest.approx(0.5, abs=0.03)


def test_samples_of_unequal_clusters_come_out_even():
    x, y, _ = planted([(380, 20)])
    data, zeros = Examples(x, y, torch.zeros_like(y)), torch.zeros(500, dtype=torch.int64)
    shares = {}
    for count in (1, 2):
        model = build("table_flow", n_classes=1, n_domains=1, shape=(2,), width=24, depth=1, steps=8)
        train_generator(model, data, Training(steps=150, batch=64, lr=1e-2, ema=0.98, subclusters=count), 0)
        shares[count] = float((model.sample(zeros, zeros, rng(1))[:, 0] > 5).double().mean())
    assert shares[1] < 0.2, "as in the rows: a twentieth"
    assert shares[2] == pytest.approx(0.5, abs=0.15)


def test_parts_without_balanced_classes_are_refused():
    with pytest.raises(ConfigError, match="subclusters=2 balances parts of classes: give balance=class"):
        Training(subclusters=2, balance="rows")
