import pytest
import torch
from torch import nn

from fedimb.errors import ConfigError
from fedimb.models.cnn1d import CNN1d


def test_signals_of_any_length_become_the_mean_over_time():
    for length in (1, 2, 50):
        model = CNN1d(n_classes=3, input_shape=(2, length), width=8)
        x = torch.randn(4, 2, length)
        assert model.features(x).shape == (4, 8)
        assert torch.allclose(model.features(x), model.body(x).mean(2))


def test_parameter_count():
    model = CNN1d(n_classes=5, input_shape=(12, 100))
    convolutions = 64 * (12 * 7 + 1) + 128 * (64 * 5 + 1) + 64 * (128 * 3 + 1)
    assert sum(p.numel() for p in model.parameters()) == convolutions + 2 * 256 + 64 * 5 + 5 == 72_005


def test_norm_is_the_chosen_one_everywhere():
    for norm, kind in (("group", nn.GroupNorm), ("batch", nn.BatchNorm1d)):
        found = [m for m in CNN1d(2, (1, 8), 8, norm).modules() if isinstance(m, nn.GroupNorm | nn.BatchNorm1d)]
        assert [type(m) for m in found] == [kind] * 3


@pytest.mark.parametrize("shape", [(12,), (3, 8, 8)])
def test_what_is_no_signal_is_refused(shape):
    with pytest.raises(ConfigError, match=r"model 'cnn1d' reads signals: expected an input shape \(channels, length\)"):
        CNN1d(2, shape)


def test_no_width_is_refused():
    with pytest.raises(ConfigError, match="width=0: give at least 1"):
        CNN1d(2, (1, 8), width=0)
