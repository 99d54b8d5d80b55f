"""What all losses share beyond the contract suite: extreme input, absent classes, and which may go with la_post."""

import numpy as np
import pytest
import torch

from fedimb import registry
from fedimb.config.combinations import Combination, refusal
from fedimb.training.losses.base import RowLoss
from fedimb.training.losses.ce import CrossEntropy

NAMES = registry.names("loss")
SHIFTING = {"balanced_softmax", "logit_adjusted", "vs", "ldam", "fedlc"}
PLAIN = {"bce", "weighted_bce", "ce", "focal", "weighted_ce", "class_balanced", "asymmetric_focal", "poly"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("counts", [[40, 1, 0], [0, 0, 3], [1, 1, 1]])
def test_one_row_with_extreme_logits_and_any_label_has_a_finite_loss_and_slope(name, counts):
    given = {"n_classes": 3, "prior": np.array(counts), "local_counts": np.array(counts[::-1]), "round": 9, "rounds": 9}
    loss = registry.build("loss", name, given)
    if getattr(loss, "needs_features", False):
        pytest.skip("reads features, not logits alone")
    for z in ([1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 1e4, 1e4], [0.0, 0.0, 0.0]):
        for label in range(3):
            logits = torch.tensor([z], requires_grad=True)
            value = loss(logits, torch.tensor([label]))
            assert torch.isfinite(value)
            assert torch.isfinite(torch.autograd.grad(value, logits)[0]).all()


@pytest.mark.parametrize("name", sorted(SHIFTING | PLAIN))
def test_losses_that_shift_logits_refuse_a_second_shift_and_the_others_take_it(name):
    parts = (registry.get("loss", name), registry.get("calibration", "la_post"))
    reason = refusal(Combination(parts, "clear_sum"))
    assert ("double correction" in (reason or "")) is (name in SHIFTING)


@pytest.mark.parametrize("name", sorted(SHIFTING | PLAIN))
def test_a_loss_that_reads_counts_says_so(name):
    flags, wanted = registry.flags("loss", name), registry.parameters("loss", name)
    assert flags["needs_prior"] is ("prior" in wanted)
    assert flags.get("uses_local_counts", False) is ("local_counts" in wanted)
    assert flags["stackable"] is True


@pytest.mark.parametrize("name", sorted(SHIFTING | PLAIN))
def test_nothing_of_it_is_trained_or_kept(name):
    loss = registry.build("loss", name, {"n_classes": 2, "prior": np.array([3, 1]), "local_counts": np.array([3, 1])})
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(7, 3), (4, 7, 3)])
def test_the_slope_of_a_backward_pass_by_hand_is_autograds(name, shape):
    counts = {"prior": np.array([40, 6, 1]), "local_counts": np.array([9, 0, 2])}
    given = {"n_classes": 3, "round": 9, "rounds": 9, **counts}
    loss = registry.build("loss", name, given)
    if not isinstance(loss, RowLoss):
        pytest.skip("no RowLoss: never trained by hand")
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(shape, generator=draw)
    labels = torch.randint(0, 3, shape[:-1], generator=draw)
    weights = torch.rand(shape[:-1], generator=draw)
    leaf = logits.clone().requires_grad_()
    expected = loss.rows(leaf, labels) * weights
    expected.sum().backward()
    losses, slope = loss.loss_and_grad(logits.clone(), labels, weights)
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope, leaf.grad, rtol=1e-5, atol=1e-6)
    assert [losses.requires_grad, slope.requires_grad] == [False, False]


def test_a_loss_that_changes_the_rows_of_another_does_not_keep_its_slope():
    class Doubled(CrossEntropy):
        def rows(self, logits, labels):
            return 2 * super().rows(logits, labels)

    logits, labels, weights = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([0]), torch.ones(1)
    losses, slope = CrossEntropy().loss_and_grad(logits, labels, weights)
    doubled = Doubled().loss_and_grad(logits, labels, weights)
    torch.testing.assert_close(doubled, (2 * losses, 2 * slope))
