"""One head from heads that know different classes: whom each class is taken from, on cases made by hand."""

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from fedimb.training.fusion import NEVER, Targets, confirmed, distil_head, fused_head, fused_logits, targets_of

ALL = torch.ones(3, 4, dtype=torch.bool)


def teachers(k: int = 3, n: int = 5, c: int = 4) -> torch.Tensor:
    return torch.randn(k, n, c, generator=torch.Generator().manual_seed(1))


def test_equal_labels_without_sharpening_and_entropy_are_the_mean_of_the_logits():
    logits = teachers()
    found = targets_of(logits, ALL, agreement=False, sharpening=1.0, entropy=0.0, min_score=0.0)
    torch.testing.assert_close(found.probabilities, logits.mean(dim=0).softmax(dim=1))
    assert found.weights.tolist() == [1.0] * 5


def test_each_class_is_of_those_who_annotate_it():
    """None, one, two and three annotators of the four classes."""
    annotated = torch.tensor([[False, True, True, True], [False, False, True, True], [False, False, False, True]])
    logits = teachers()
    mean = fused_logits(logits, annotated, None)
    assert (mean[:, 0] == NEVER).all()
    torch.testing.assert_close(mean[:, 1], logits[0, :, 1])
    torch.testing.assert_close(mean[:, 2], logits[:2, :, 2].mean(dim=0))
    torch.testing.assert_close(mean[:, 3], logits[:, :, 3].mean(dim=0))
    pivot = fused_logits(logits, annotated, 1)
    torch.testing.assert_close(pivot[:, 1:], torch.stack([logits[0, :, 1], logits[1, :, 2], logits[1, :, 3]], dim=1))
    found = targets_of(logits, annotated)
    assert (found.probabilities[:, 0] == 0).all()
    torch.testing.assert_close(found.probabilities.sum(dim=1), torch.ones(5))


def test_disjoint_classes_are_their_holders():
    annotated = torch.tensor([[True, True, False, False], [False, False, True, True]])
    logits = teachers(2)
    fused = fused_logits(logits, annotated, None)
    torch.testing.assert_close(fused[:, :2], logits[0, :, :2])
    torch.testing.assert_close(fused[:, 2:], logits[1, :, 2:])
    weight, bias = torch.randn(2, 4, 3), torch.randn(2, 4)
    head = fused_head(weight, bias, annotated, None)
    assert torch.equal(head[0], torch.cat([weight[0, :2], weight[1, 2:]]))
    assert torch.equal(head[1], torch.cat([bias[0, :2], bias[1, 2:]]))


@pytest.mark.parametrize("pivot", [None, 1])
def test_the_fused_head_gives_the_fused_logits(pivot):
    annotated = torch.tensor([[True, True, False, False], [True, False, True, False], [False, True, True, False]])
    weight, bias, features = torch.randn(3, 4, 6), torch.randn(3, 4), torch.randn(7, 6)
    logits = torch.einsum("nd,kcd->knc", features, weight) + bias[:, None]
    head = fused_head(weight, bias, annotated, pivot)
    torch.testing.assert_close(linear(features, *head), fused_logits(logits, annotated, pivot))


def test_a_class_of_several_is_kept_only_where_all_of_them_say_it():
    """Row 0: both say 0. Row 1: only the first says 0. Row 2: class 1 has one annotator, who is not asked again."""
    annotated = torch.tensor([[True, True, True], [True, False, True]])
    logits = torch.tensor([[[5.0, 0, 0], [5.0, 0, 0], [0, 5.0, 0]], [[3.0, 9.0, 0], [0, 9.0, 3.0], [2.0, 9.0, 1.0]]])
    fused = fused_logits(logits, annotated, 0)
    assert fused.argmax(dim=1).tolist() == [0, 0, 1]
    assert confirmed(logits, annotated, fused).tolist() == [True, False, True]
    assert (targets_of(logits, annotated, 0, entropy=0.0).weights > 0).tolist() == [True, False, True]


def test_uncertain_rows_weigh_less_and_unsure_ones_nothing():
    logits = torch.tensor([[[9.0, 0, 0, 0], [1.0, 0.5, 0, 0], [0.0, 0, 0, 0]]])
    one = torch.ones(1, 4, dtype=torch.bool)
    weights = targets_of(logits, one, sharpening=1.0, entropy=0.5, min_score=0.0, agreement=False).weights
    assert weights[0] > weights[1] > weights[2]
    assert weights[2] == pytest.approx(0, abs=1e-3)  # even: as uncertain as can be
    sharp = targets_of(logits, one, sharpening=0.25, entropy=0.5, min_score=0.0, agreement=False).weights
    assert sharp[1] > weights[1]
    assert targets_of(logits, one, min_score=0.3).weights.tolist()[2] == 0


def test_distillation_lowers_the_loss_and_leaves_unknown_classes_alone():
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(2))
    taught = linear(features, torch.randn(3, 5, generator=torch.Generator().manual_seed(3))).softmax(dim=1)
    targets = Targets(torch.cat([taught, torch.zeros(40, 1)], dim=1), torch.ones(40))
    start = torch.zeros(4, 5), torch.tensor([0.0, 0, 0, NEVER])

    def loss(weight, bias):
        return float(cross_entropy(linear(features, weight, bias), targets.probabilities))

    head = distil_head(*start, features, targets, torch.Generator().manual_seed(0), 30, 0.5, 8)
    assert loss(*head) < 0.8 * loss(*start)
    assert torch.equal(head[0][3], start[0][3])
    assert head[1][3] == NEVER
    assert distil_head(*start, features, targets, torch.Generator(), 0, 0.5, 8)[0].equal(start[0])
    nothing = Targets(targets.probabilities, torch.zeros(40))
    assert distil_head(*start, features, nothing, torch.Generator(), 3, 0.5, 8)[0].equal(start[0])
