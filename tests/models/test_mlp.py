import torch

from fedimb.models.mlp import MLP


def test_the_default_is_the_yardsticks_64_48_10():
    model = MLP(n_classes=10, input_shape=(8, 8))
    assert sum(p.numel() for p in model.parameters()) == 64 * 48 + 48 + 48 * 10 + 10


def test_without_hidden_layers_it_is_logistic_regression():
    model = MLP(n_classes=3, input_shape=(2, 2), hidden=[])
    x = torch.randn(5, 2, 2)
    assert torch.equal(model.features(x), x.flatten(1))
    assert torch.allclose(model(x), x.flatten(1) @ model.head.weight.T + model.head.bias, atol=1e-6)


def test_features_are_what_the_head_reads():
    model = MLP(n_classes=3, input_shape=(4,), hidden=[7, 5])
    x = torch.randn(6, 4)
    assert model.features(x).shape == (6, 5)
    assert (model.features(x) >= 0).all()
    assert torch.equal(model.head(model.features(x)), model(x))
