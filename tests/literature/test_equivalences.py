"""What the methods become where the papers say that they become something known."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fedimb.training.losses.ala import AdaptiveLogitAdjustment
from fedimb.training.losses.balanced_softmax import BalancedSoftmax
from fedimb.training.losses.fedrs import FedRS
from fedimb.training.losses.fedvls import FedVLS
from fedimb.training.losses.local_balanced_softmax import LocalBalancedSoftmax
from fedimb.training.objectives.decorrelate import Decorrelate
from fedimb.training.objectives.not_true_distil import NotTrueDistillation

COUNTS = np.array([5, 4, 2, 0, 1])


def drawn(seed=0, rows=12, classes=5):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, classes, generator=generator), torch.randint(classes, (rows,), generator=generator)


@pytest.mark.parametrize(
    "loss",
    [
        FedRS(5, 1.0, local_counts=COUNTS),
        FedRS(5, 0.2),
        FedRS(5, 0.2, local_counts=np.full(5, 3)),
        AdaptiveLogitAdjustment(5, 1.0, COUNTS),
        AdaptiveLogitAdjustment(5, 0.1),
        LocalBalancedSoftmax(5, "floor", np.full(5, 3)),
        LocalBalancedSoftmax(5, "one"),
        FedVLS(5, 0.0, np.full(5, 3)),
    ],
)
def test_without_an_imbalance_or_a_strength_it_is_cross_entropy(loss):
    logits, labels = drawn()
    torch.testing.assert_close(loss(logits, labels), cross_entropy(logits, labels), rtol=1e-5, atol=1e-5)


def test_the_local_loss_on_the_counts_of_the_whole_is_balanced_softmax():
    logits, labels = drawn()
    counts = np.array([50, 40, 20, 7, 1])
    ours, whole = LocalBalancedSoftmax(5, "floor", counts), BalancedSoftmax(counts)
    torch.testing.assert_close(ours(logits, labels), whole(logits, labels), rtol=1e-5, atol=1e-5)


def test_fedrs_can_count_a_class_of_few_rows_as_absent():
    assert FedRS(5, 0.5, 2, COUNTS).factor.tolist() == [1.0, 1.0, 0.5, 0.5, 0.5]


def test_one_loss_of_the_batch_is_not_the_mean_of_its_rows():
    logits, labels = drawn()
    loss = FedVLS(5, 1.0, COUNTS)
    rows = torch.stack([loss(logits[i : i + 1], labels[i : i + 1]) for i in range(12)]).mean()
    assert abs(float(loss(logits, labels) - rows)) > 1e-3


def test_an_objective_without_strength_and_a_batch_of_one_row_add_nothing():
    logits, labels = drawn()
    objective = NotTrueDistillation(0.0)
    objective.setup(torch.nn.Linear(2, 2), [])
    assert objective.loss(None, logits, logits, labels) is None
    assert Decorrelate(0.0).loss(None, logits, logits, labels) is None
    assert Decorrelate(1.0).loss(None, logits[:1], logits[:1], labels[:1]) is None


def test_features_that_never_vary_have_no_correlation_and_a_finite_gradient():
    features = drawn()[0]
    features[:, 2:] = 0.0
    features.requires_grad_()
    value = Decorrelate(1.0).loss(None, features, features, None)
    expected = np.corrcoef(features.detach()[:, :2].numpy().T)[0, 1] ** 2 * 2 / 25
    assert float(value.detach()) == pytest.approx(expected, rel=1e-4)
    assert torch.isfinite(torch.autograd.grad(value, features)[0]).all()


def test_two_classes_leave_nothing_to_distil_beside_the_rows_own():
    logits, labels = drawn(classes=2)
    objective = NotTrueDistillation(1.0)
    objective._teacher, objective._target = torch.nn.Identity(), logits.flip(0)
    assert float(objective.loss(None, logits, logits, labels)) == 0.0
