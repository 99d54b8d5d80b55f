import pytest
import torch
from torch.nn import functional as F

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.models.heads import CosineHead, EquiangularHead, build_head
from fedimb.testing import check_model

SHAPES = {"mlp": (6,), "logistic": (6,), **dict.fromkeys(("cnn1d", "lstm", "cnn_lstm", "cnn_transformer"), (2, 9))}


def test_logits_are_the_scaled_cosine_whatever_the_lengths():
    head = CosineHead(3, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 4.0]]))
    x = torch.tensor([[5.0, 0.0, 0.0], [0.0, 0.6, 0.8], [-1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    half = 16 / 2**0.5
    assert torch.allclose(
        head(x), torch.tensor([[16.0, 0.0], [0.0, 16.0], [-16.0, 0.0], [half, 0.6 * half]]), atol=1e-5
    )
    assert torch.allclose(head(7 * x), head(x), atol=1e-5)
    assert head.bias is None
    assert CosineHead(3, 2, scale=4.0)(x).abs().max() <= 4.0001


def test_a_feature_of_zeros_scores_nothing_and_keeps_gradients_bounded():
    x = torch.zeros(2, 3, requires_grad=True)
    logits = CosineHead(3, 4)(x)
    assert torch.equal(logits, torch.zeros(2, 4))
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([0, 1])), x)
    assert torch.isfinite(slope).all()
    assert slope.abs().max() < 1e8


@pytest.mark.parametrize("name", registry.names("model"))
def test_every_model_offers_both_heads(name):
    shape = SHAPES.get(name, (4, 4))
    width = {"width": 4} if "width" in registry.parameters("model", name) else {}
    given = {"n_classes": 3, "input_shape": shape}
    for kind, bias in (("cosine", False), ("linear", True)):
        model = registry.build("model", name, given, head=kind, **width)
        assert isinstance(model.head, CosineHead) == (kind == "cosine")
        assert (model.head.bias is not None) == bias
        assert model(torch.randn(2, *shape)).shape == (2, 3)
    with pytest.raises(ConfigError, match="head='cosin'"):
        registry.build("model", name, given, head="cosin", **width)


def test_an_unknown_head_is_refused():
    with pytest.raises(ConfigError, match="give one of linear, cosine"):
        build_head("round", 3, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["bias_free", "prototype", "etf"])
def test_the_contract_of_a_model_holds_with_every_head(head):
    check_model("logistic", head=head)


def test_rows_of_the_simplex_are_as_far_apart_as_rows_can_be_also_with_more_classes_than_features():
    for width, classes in ((8, 5), (4, 10), (3, 2)):
        head = EquiangularHead(width, classes)
        cosines = head.weight @ head.weight.T
        expected = torch.full((classes, classes), -1 / (classes - 1)).fill_diagonal_(1.0)
        torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-5)
        assert not head.weight.requires_grad


def test_prototypes_have_length_1_also_with_more_classes_than_features():
    for width, classes in ((8, 5), (4, 10)):
        rows = build_head("prototype", width, classes).weight
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(classes), rtol=0, atol=1e-5)
