"""What all losses share beyond the contract suite: extreme input, absent classes, and which may go with la_post."""

import numpy as np
import pytest
import torch

from fedimb import registry
from fedimb.config.combinations import Combination, refusal

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
