"""What a row gets in a forward pass does not depend on whose rows it is computed with."""

import pytest
import torch

from fedimb import registry
from fedimb.training.forward import BLOCK, forward_batched, forward_many

SIZES = (5, 0, BLOCK, 2 * BLOCK + 1, 1)


def build(name: str, shape, **args):
    torch.manual_seed(1)
    return registry.build("model", name, {"n_classes": 3, "input_shape": shape}, **args)


@pytest.mark.parametrize(
    ("name", "shape", "args"),
    [
        ("mlp", (2, 3), {"hidden": [7]}),
        ("logistic", (6,), {}),
        ("mlp", (6,), {"hidden": [7], "head": "cosine"}),
        ("cnn4conv", (3, 8, 8), {"width": 4, "norm": "batch"}),
        ("cnn1d", (2, 16), {"width": 4}),
        ("cnn_lstm", (2, 16), {"width": 4}),
        ("cnn_transformer", (2, 16), {"width": 4}),
    ],
)
def test_together_is_alone_bit_by_bit_and_the_model_s_own_within_rounding(name, shape, args):
    model = build(name, shape, **args)
    inputs = [torch.randn(n, *shape) for n in SIZES]
    together = forward_many(model, inputs)
    assert not model.training
    for x, (features, logits) in zip(inputs, together, strict=True):
        mine = forward_batched(model, x)
        assert torch.equal(features, mine[0])
        assert torch.equal(logits, mine[1])
        assert not logits.requires_grad
        assert features.shape == (len(x), model.head.in_features)
        assert logits.shape == (len(x), 3)
        if len(x):
            torch.testing.assert_close(features, model.features(x), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(logits, model(x), atol=1e-5, rtol=1e-5)


def test_no_clients_no_outputs():
    assert forward_many(build("mlp", (6,)), []) == []


def test_a_subclass_that_changes_the_features_is_asked_itself():
    from fedimb.models.mlp import MLP

    class Doubled(MLP):
        def features(self, x):
            return 2 * super().features(x)

    torch.manual_seed(1)
    model = Doubled(3, (6,))
    x = torch.randn(4, 6)
    assert torch.equal(forward_batched(model, x)[0], model.features(x))
