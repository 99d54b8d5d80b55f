import torch

from fedimb.training.samplers.shuffle import Shuffle


def test_every_row_comes_once_an_epoch_and_each_epoch_differs():
    generator = torch.Generator().manual_seed(0)
    epochs = [Shuffle().epoch(torch.zeros(40, dtype=torch.int64), generator) for _ in range(3)]
    for order in epochs:
        assert torch.equal(order.sort().values, torch.arange(40))
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])
