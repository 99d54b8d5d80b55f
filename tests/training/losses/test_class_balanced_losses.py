"""PRCBL and VCB: effective numbers beside a prior, and of each output."""

import math

import numpy as np
import pytest
import torch

from fedimb import registry
from fedimb.config.combinations import Combination, refusal
from fedimb.errors import ConfigError
from fedimb.training.losses.balanced_softmax import BalancedSoftmax
from fedimb.training.losses.bce import BinaryCrossEntropy
from fedimb.training.losses.prcbl import PriorRegularizedClassBalanced
from fedimb.training.losses.vcb import VertexClassBalanced

COUNTS = np.array([40, 6, 0])


def draw(seed=0, rows=20, classes=3):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, classes, generator=generator), torch.randint(classes, (rows,), generator=generator)


def test_prcbl_with_equal_weights_is_balanced_softmax():
    logits, labels = draw()
    torch.testing.assert_close(
        PriorRegularizedClassBalanced(COUNTS, beta=0.0)(logits, labels), BalancedSoftmax(COUNTS)(logits, labels)
    )


def test_prcbl_by_hand():
    # beta 1/2: effective numbers (1 - 1/2^3) / (1/2) = 7/4 and 1, so weights 4/7 and 1 over their mean 11/14
    loss = PriorRegularizedClassBalanced(np.array([3, 1]), beta=0.5)
    assert loss.weights.tolist() == pytest.approx([8 / 11, 14 / 11])
    logits = torch.zeros(2, 2)
    expected = (8 / 11 * -math.log(0.75) + 14 / 11 * -math.log(0.25)) / 2
    assert float(loss(logits, torch.tensor([0, 1]))) == pytest.approx(expected, rel=1e-5)


def test_vcb_with_beta_0_is_binary_cross_entropy_in_every_round():
    logits, labels = draw()
    for round in (1, 2, 3):
        loss = VertexClassBalanced(COUNTS, beta=0.0, round=round, rounds=3)
        torch.testing.assert_close(loss(logits, labels), BinaryCrossEntropy()(logits, labels))
    nearly = VertexClassBalanced(COUNTS, beta=1e-9)
    torch.testing.assert_close(nearly(logits, labels), BinaryCrossEntropy()(logits, labels))


def effective(n, beta):
    return (1 - beta) / (1 - beta**n)


def test_vcb_by_hand():
    # 10 rows, label 0 on 8 of them and label 1 on 4
    counts, given = np.array([8, 4]), {"beta": 0.9, "rows": 10, "mean_one": False, "rounds": 3}
    last = VertexClassBalanced(counts, round=3, **given)
    assert last.positive.tolist() == pytest.approx([effective(8, 0.9), effective(4, 0.9)])
    assert last.negative.tolist() == pytest.approx([effective(2, 0.9), effective(6, 0.9)])
    first = VertexClassBalanced(counts, round=1, **given)
    assert first.positive.tolist() == pytest.approx([effective(12, 0.9)] * 2)
    assert first.negative.tolist() == pytest.approx([effective(8, 0.9)] * 2)
    middle = VertexClassBalanced(counts, round=2, **given)
    torch.testing.assert_close(middle.positive, (first.positive + last.positive) / 2)
    value = last(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    assert float(value) == pytest.approx((effective(8, 0.9) + effective(6, 0.9)) * math.log(2), rel=1e-5)


@pytest.mark.parametrize("round", [1, 2, 3])
def test_vcb_weights_have_mean_1_over_rows_and_outputs(round):
    loss = VertexClassBalanced(np.array([8, 4]), beta=0.999, rows=10, round=round, rounds=3)
    total = torch.tensor([8.0, 4.0]) @ loss.positive + torch.tensor([2.0, 6.0]) @ loss.negative
    assert float(total) == pytest.approx(20, rel=1e-5)
    if round == 3:
        assert (loss.positive > loss.negative).tolist() == [False, True]  # the rarer side of an output weighs more


@pytest.mark.parametrize("rows", [7, 13])
def test_a_number_of_rows_that_does_not_fit_the_counts_is_refused(rows):
    with pytest.raises(ConfigError, match=f"loss 'vcb': rows={rows}, but the most frequent class has 8"):
        VertexClassBalanced(np.array([8, 4]), rows=rows)


def test_several_labels_need_the_number_of_rows():
    vcb = registry.get("loss", "vcb")
    assert "give it as loss.rows=N" in refusal(Combination((vcb.set_to({"rows": None}),), task="multilabel"))
    assert refusal(Combination((vcb.set_to({"rows": 12}),), task="multilabel")) is None
    assert refusal(Combination((vcb.set_to({"rows": None}),), task="multiclass")) is None


def test_betas_outside_their_range_are_refused():
    for kind, name in ((PriorRegularizedClassBalanced, "prcbl"), (VertexClassBalanced, "vcb")):
        with pytest.raises(ConfigError, match=f"loss '{name}': beta=1"):
            kind(COUNTS, beta=1.0)
