"""Sampling by the distance of a row's labels from the average row's."""

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.models.mlp import MLP
from fedimb.training.local import train_locally
from fedimb.training.losses.bce import BinaryCrossEntropy
from fedimb.training.samplers.label_score_bins import LabelScoreBins, bins_of, scores
from fedimb.training.spec import TrainSpec
from fedimb.training.stacked import Work, train_stacked


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def targets(rows=200, labels=5, seed=0):
    shares = torch.tensor([0.9, 0.4, 0.2, 0.1, 0.03])[:labels]
    return (torch.rand(rows, labels, generator=generator(seed)) < shares).float()


def test_scores_are_those_of_the_paper():
    made = targets().numpy().astype(np.float64)
    mean = made.mean(axis=0)
    expected = [(row @ (1 - mean) - row @ mean) / made.shape[1] for row in made]
    assert scores(torch.from_numpy(made)).tolist() == pytest.approx(expected)


def test_bins_are_narrow_at_low_values():
    # base 5, two bins: the first ends at (sqrt(5) - 1) / 4 = .309 of the range
    values = torch.tensor([0.0, 0.30, 0.31, 1.0])
    assert bins_of(2 + 3 * values, bins=2, base=5.0).tolist() == [0, 0, 1, 1]
    assert bins_of(torch.ones(3), bins=4, base=5.0).tolist() == [0, 0, 0]
    edges = (5 ** (np.arange(11) / 10) - 1) / 4
    inside = torch.from_numpy((edges[:-1] + edges[1:]) / 2)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert bins_of(torch.cat([inside, ends]), bins=10, base=5.0).tolist() == [*range(10), 0, 9]


def test_each_bin_that_has_rows_is_drawn_equally_often():
    made = targets()
    bins = bins_of(scores(made), 10, 5.0)
    drawn = torch.cat([LabelScoreBins().epoch(made, g) for g in [generator()] for _ in range(300)])
    held = bins.unique()
    assert len(held) > 3
    shares = bins[drawn].bincount(minlength=10)[held] / len(drawn)
    torch.testing.assert_close(shares, torch.full((len(held),), 1 / len(held)), atol=0.01, rtol=0)
    assert made[drawn, 4].mean() > 2 * made[:, 4].mean()  # the rare label is seen more often


def test_one_bin_is_uniform_and_labels_are_one_hot_targets():
    labels = torch.tensor([0] * 90 + [1] * 10)
    one = LabelScoreBins(bins=1).epoch(labels, generator())
    assert 0.02 < (labels[one] == 1).float().mean() < 0.2
    one_hot = torch.nn.functional.one_hot(labels).float()
    sampler = LabelScoreBins()
    assert torch.equal(sampler.epoch(labels, generator()), sampler.epoch(one_hot, generator()))


class Recording(LabelScoreBins):
    def epoch(self, labels, generator):
        self.seen = labels
        return super().epoch(labels, generator)


def test_local_training_gives_it_the_targets_alone_and_stacked():
    torch.manual_seed(0)
    model, x, y, primary = MLP(5, (3,), hidden=[4]), torch.randn(40, 3), targets(40), torch.zeros(40, dtype=torch.int64)
    made = [Recording(), Recording()]
    specs = [TrainSpec("train", 3, 8, "sgd", 0.1, 0.0, 0.0, BinaryCrossEntropy(), one) for one in made]
    train_stacked(model, [Work(x, y, specs[0], generator(), primary)])
    train_locally(model, x, y, specs[1], generator(), primary)
    for one in made:
        assert torch.equal(one.seen, y)


@pytest.mark.parametrize("wrong", [{"bins": 0}, {"base": 1.0}])
def test_arguments_outside_their_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"sampler 'label_score_bins': {next(iter(wrong))}="):
        LabelScoreBins(**wrong)
