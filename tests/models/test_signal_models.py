"""Recurrent and attention models of signals: their equations by hand, and the data that they refuse."""

import pytest
import torch

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.models.cnn_lstm import CNNLSTM
from fedimb.models.cnn_transformer import AttentionLayer, CNNTransformer, positions
from fedimb.models.images import image_shape
from fedimb.models.lstm import LSTM
from fedimb.shapes import SignalShape
from fedimb.training.augmentations.images import require_images

SIGNAL_MODELS = ("cnn1d", "lstm", "cnn_lstm", "cnn_transformer")


def test_the_state_after_the_last_sample_by_hand():
    torch.manual_seed(0)
    model = LSTM(2, (3, 7), width=4)
    x = torch.randn(5, 3, 7)
    weights = dict(model.body.named_parameters())
    state = cell = torch.zeros(5, 4)
    for t in range(7):
        gates = x[:, :, t] @ weights["weight_ih_l0"].T + weights["bias_ih_l0"]
        gates = gates + state @ weights["weight_hh_l0"].T + weights["bias_hh_l0"]
        into, forget, new, out = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
        state = out.sigmoid() * cell.tanh()
    torch.testing.assert_close(model.features(x), state, rtol=1e-5, atol=1e-6)


def test_forget_gates_start_at_1():
    for body in (LSTM(2, (3, 7), width=4, layers=2).body, CNNLSTM(2, (3, 16), width=4).body):
        for layer in range(body.num_layers):
            total = getattr(body, f"bias_ih_l{layer}") + getattr(body, f"bias_hh_l{layer}")
            assert total.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


def test_attention_by_hand():
    torch.manual_seed(0)
    layer, x = AttentionLayer(4, 2), torch.randn(3, 5, 4)
    query, key, value = layer.projections(layer.before(x)).view(3, 5, 3, 2, 2).unbind(2)
    parts = []
    for h in range(2):
        shares = (query[:, :, h] @ key[:, :, h].transpose(1, 2) / 2**0.5).softmax(dim=2)
        parts.append(shares @ value[:, :, h])
    between = x + layer.out(torch.cat(parts, dim=2))
    expected = between + layer.perceptron(layer.between(between))
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_positions_tell_the_order_of_the_samples():
    made = positions(3, 4, torch.zeros(1))
    expected = [[0, 1, 0, 1], [0.8415, 0.5403, 0.01, 1], [0.9093, -0.4161, 0.02, 0.9998]]
    torch.testing.assert_close(made, torch.tensor(expected), rtol=0, atol=1e-4)
    torch.manual_seed(0)
    model, x = CNNTransformer(2, (1, 32), width=8).eval(), torch.randn(1, 1, 32)
    assert not torch.allclose(model(x), model(x.flip(2)), atol=1e-4)


@pytest.mark.parametrize("name", SIGNAL_MODELS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 128)])
def test_windows_of_any_length(name, shape):
    model = registry.build("model", name, {"n_classes": 3, "input_shape": shape}, width=8)
    assert model(torch.randn(2, *shape)).shape == (2, 3)
    assert model.features(torch.randn(2, *shape)).shape == (2, 8)


@pytest.mark.parametrize("name", SIGNAL_MODELS)
@pytest.mark.parametrize("shape", [(5,), (1, 8, 8)])
def test_what_is_no_signal_is_refused(name, shape):
    with pytest.raises(ConfigError, match=f"model '{name}' reads signals"):
        registry.build("model", name, {"n_classes": 3, "input_shape": shape})


@pytest.mark.parametrize("sizes", [{"width": 10}, {"width": 9, "heads": 3}])
def test_a_width_that_heads_cannot_share_is_refused(sizes):
    with pytest.raises(ConfigError, match="even width that is a multiple of heads"):
        CNNTransformer(2, (1, 16), **sizes)


@pytest.mark.parametrize("shape", [SignalShape((12, 40)), SignalShape((8, 8)), (9, 128)])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("model", "cnn4conv"),
        ("model", "resnet8"),
        ("encoder", "random_conv"),
        ("generator", "ddpm"),
        ("augmentation", "flip"),
    ],
)
def test_what_is_for_images_takes_no_signal_for_one(kind, name, shape):
    passed = {
        "n_classes": 2,
        "input_shape": shape,
        "shape": shape,
        "n_domains": 1,
        "class_names": ("a", "b"),
        "seed": 0,
    }
    passed |= {"n_rows": 4, "labels": None}
    known = registry.parameters(kind, name)
    with pytest.raises(ConfigError, match="images"):
        registry.build(kind, name, {key: value for key, value in passed.items() if key in known})


def test_pictures_are_pictures_still():
    assert image_shape("it", (28, 28)) == (1, 28, 28)
    assert image_shape("it", (1, 9, 128)) == (1, 9, 128)
    require_images("it", (12, 40))
