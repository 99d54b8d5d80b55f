import torch

from fedimb.models.logistic import Logistic


def test_features_are_the_flattened_inputs():
    model, x = Logistic(n_classes=3, input_shape=(2, 4)), torch.randn(5, 2, 4)
    assert torch.equal(model.features(x), x.flatten(1))
    assert torch.allclose(model(x), x.flatten(1) @ model.head.weight.T + model.head.bias, atol=1e-6)
    assert sum(p.numel() for p in model.parameters()) == 3 * 8 + 3
