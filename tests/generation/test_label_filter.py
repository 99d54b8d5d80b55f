"""The filter by pseudo-labels: planted wrong labels are dropped or drawn again; what cannot be filtered is named."""

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError, DataError
from fedimb.generation.base import Generator
from fedimb.generation.examples import Examples
from fedimb.generation.generator_cache import GeneratorCache, GeneratorConfig
from fedimb.generation.label_filter import recogniser
from fedimb.generation.training import Training
from tests.generation.generator_cases import ids, rng

NAMES = ("left", "right")


def clouds(n, seed=0):
    """Two classes around -2 and 2."""
    y = torch.arange(2).repeat_interleave(n)
    x = 4.0 * y[:, None] - 2 + torch.randn(2 * n, 3, generator=rng(seed))
    return Examples(x, y, torch.zeros_like(y))


def cached(generator, real=None, steps=5):
    config = GeneratorConfig(generator, Training(steps=steps), 2, 1, (3,), NAMES, 7)
    return GeneratorCache(config, clouds(60) if real is None else real)


def archive(file, made):
    np.savez(file, x=made.x.numpy(), y=made.y.numpy())
    return {"name": "external_dir", "path": str(file)}


def test_planted_wrong_labels_of_a_file_are_dropped(tmp_path):
    made = clouds(50, seed=3)
    wrong = torch.arange(100) % 5 == 0  # a fifth: rows of the one class that are called the other
    file = archive(tmp_path / "made.npz", Examples(made.x, torch.where(wrong, 1 - made.y, made.y), made.d))
    y = torch.arange(2).repeat_interleave(35)
    x = cached(file | {"confidence": 0.6}).samples(y, torch.zeros_like(y), 0)
    assert not {row.tobytes() for row in x.numpy()} & {row.tobytes() for row in made.x[wrong].numpy()}
    assert ((x.mean(1) > 0) == (y == 1)).float().mean() > 0.97
    unfiltered = cached(file).samples(y, torch.zeros_like(y), 0)
    assert ((unfiltered.mean(1) > 0) == (y == 1)).float().mean() < 0.9
    with pytest.raises(DataError, match=r"too few examples: class 'left': 50 requested, \d\d available"):
        cached(file | {"confidence": 0.6}).samples(ids(*[0] * 50), ids(*[0] * 50), 0)


class Mislabels(Generator):
    """Makes rows of the class asked for, but one in four of the other."""

    def _draw(self, y, d, generator):
        other = torch.rand(len(y), generator=generator) < 0.25
        wanted = torch.where(other, 1 - y, y)
        return 4.0 * wanted[:, None] - 2 + 0.5 * torch.randn(len(y), 3, generator=generator)


class Swaps(Generator):
    def _draw(self, y, d, generator):
        return 4.0 * (1 - y[:, None]) - 2 + 0.0 * torch.randn(len(y), 3, generator=generator)


def fixed(kind, confidence, monkeypatch):
    """A cache whose generator is this one, as if trained."""
    made = kind(2, 1, (3,))
    made.fit_scale(clouds(60))
    made.mark_seen(clouds(60))
    cache = cached({"name": "table_flow", "confidence": confidence})
    monkeypatch.setattr(GeneratorCache, "generator", made)
    return cache


def test_samples_of_another_class_are_drawn_again_and_the_order_stays(monkeypatch):
    y = torch.arange(200) % 2
    x = fixed(Mislabels, 0.6, monkeypatch).samples(y, torch.zeros_like(y), 0)
    assert torch.equal(x.mean(1) > 0, y == 1)
    unfiltered = fixed(Mislabels, 0.0, monkeypatch).samples(y, torch.zeros_like(y), 0)
    assert 20 < int(((unfiltered.mean(1) > 0) != (y == 1)).sum()) < 80
    again = fixed(Mislabels, 0.6, monkeypatch).samples(y, torch.zeros_like(y), 0)
    assert torch.equal(again, x)


def test_a_generator_that_never_makes_the_class_is_named(monkeypatch):
    with pytest.raises(DataError, match=r"after 20 draws each.*0\.6: 'left' \(3 of 3\), 'right' \(1 of 1\): lower"):
        fixed(Swaps, 0.6, monkeypatch).samples(ids(0, 1, 0, 0), ids(0, 0, 0, 0), 0)


def test_the_filter_does_not_train_the_generator_again(monkeypatch):
    assert cached({"name": "table_flow"}).key == cached({"name": "table_flow", "confidence": 0.9}).key


@pytest.mark.parametrize("wrong", [1.0, -0.1, "0.5", True, float("nan")])
def test_a_confidence_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"confidence.*below 1"):
        cached({"name": "table_flow", "confidence": wrong}).config.build()


def test_rows_of_one_class_confirm_it_and_none_are_refused():
    real = clouds(20)
    one = Examples(real.x[:20], real.y[:20], real.d[:20])
    assert recogniser(one, 0)(real.x, real.y).tolist() == [1.0] * 20 + [0.0] * 20
    with pytest.raises(DataError, match="needs real rows"):
        recogniser(Examples(real.x[:0], real.y[:0], real.d[:0]), 0)


@pytest.mark.parametrize("kind", ["file", "table_flow"])
def test_a_class_without_real_rows_is_named_and_not_dropped(tmp_path, monkeypatch, kind):
    real = clouds(20)
    left = Examples(real.x[:20], real.y[:20], real.d[:20])
    file = archive(tmp_path / "made.npz", clouds(5, seed=1)) if kind == "file" else {"name": kind}
    cache = cached(file | {"confidence": 0.6}, left)
    if kind != "file":
        monkeypatch.setattr(GeneratorCache, "generator", None)  # refused before anything is drawn
    with pytest.raises(DataError, match=r"no real rows of 'right', so it would drop every sample.*confidence out"):
        cache.samples(ids(0, 1), ids(0, 0), 0)
    if kind == "file":
        assert len(cache.samples(ids(0, 0), ids(0, 0), 0)) == 2


def test_a_file_that_changes_is_read_again(tmp_path):
    file = archive(tmp_path / "made.npz", clouds(3, seed=1))
    first = cached(file).samples(ids(0), ids(0), 0)
    second = cached(archive(tmp_path / "made.npz", clouds(3, seed=2))).samples(ids(0), ids(0), 0)
    assert not torch.equal(first, second)
