"""What fedimb's own losses share beyond `fedimb.testing.check_loss`: all stack, and which may go with la_post."""

import pytest
import torch

from fedimb import registry
from fedimb.config.combinations import Combination, refusal
from fedimb.training.losses.ce import CrossEntropy

SHIFTING = {"balanced_softmax", "logit_adjusted", "vs", "ldam", "fedlc", "prcbl"}
PLAIN = {"bce", "weighted_bce", "ce", "focal", "weighted_ce", "class_balanced", "asymmetric_focal", "poly", "vcb"}
PLAIN |= {"partial_ce", "cfpl"}


@pytest.mark.parametrize("name", sorted(SHIFTING | PLAIN))
def test_losses_that_shift_logits_refuse_a_second_shift_and_the_others_take_it(name):
    parts = (registry.get("loss", name), registry.get("calibration", "la_post"))
    reason = refusal(Combination(parts, "clear_sum"))
    assert ("double correction" in (reason or "")) is (name in SHIFTING)


@pytest.mark.parametrize("name", sorted(SHIFTING | PLAIN))
def test_all_of_them_are_stackable(name):
    assert registry.flags("loss", name)["stackable"] is True


def test_a_loss_that_changes_the_rows_of_another_does_not_keep_its_slope():
    class Doubled(CrossEntropy):
        def rows(self, logits, labels):
            return 2 * super().rows(logits, labels)

    logits, labels, weights = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([0]), torch.ones(1)
    losses, slope = CrossEntropy().loss_and_grad(logits, labels, weights)
    doubled = Doubled().loss_and_grad(logits, labels, weights)
    torch.testing.assert_close(doubled, (2 * losses, 2 * slope))
