"""Small models, rows and settings for tests of local training."""

import torch
from torch import nn

from fedimb.models.base import Classifier
from fedimb.models.mlp import MLP
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec


class Normed(Classifier):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU())
        self.head = nn.Linear(5, 3)

    def features(self, x):
        return self.body(x)


class Recorded:
    """A sampler that visits rows in a fixed number per epoch and remembers what it gave."""

    def __init__(self, length=None):
        self.length, self.orders = length, []

    def epoch(self, labels, generator):
        length = len(labels) if self.length is None else self.length
        self.orders.append(torch.randint(len(labels), (length,), generator=generator))
        return self.orders[-1]


def rows(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def spec(**changes):
    base = TrainSpec("train", 7, 4, "sgd", 0.1, 0.0, 0.0, CrossEntropy(), Shuffle())
    return base.change(**changes)


def fresh(kind=MLP, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MLP(n_classes=3, input_shape=(4,), hidden=[5]) if kind is MLP else kind()


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])
