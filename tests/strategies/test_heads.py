"""Methods that make a new head get a model whose head is a weight and a bias, and nothing that would stay behind."""

import pytest

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.strategies.base import refuse_without_linear_head


def model(head):
    return registry.build("model", "mlp", n_classes=3, input_shape=(4,), head=head)


@pytest.mark.parametrize("head", ["npe", "simplex", "quadratic", "diagonal", "etf"])
def test_a_head_of_more_than_weight_and_bias_is_not_made_anew(head):
    with pytest.raises(ConfigError, match=r"use model\.head=linear"):
        refuse_without_linear_head("creff", model(head))


def test_a_linear_head_is():
    refuse_without_linear_head("creff", model("linear"))
