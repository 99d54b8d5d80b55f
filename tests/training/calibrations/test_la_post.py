import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.training.calibrations.base import Outputs
from fedimb.training.calibrations.la_post import PostHocLogitAdjustment


def outputs(logits, counts):
    classes = logits.shape[1]
    return Outputs(torch.zeros(len(logits), 2), logits, torch.zeros(classes, 2), None, counts)


def test_it_subtracts_tau_times_the_log_prior():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    adjusted = PostHocLogitAdjustment(tau=0.5).adjust(outputs(logits, np.array([70, 20, 10])))
    assert torch.allclose(adjusted, logits - 0.5 * torch.tensor([0.7, 0.2, 0.1]).log())


def test_tau_0_and_equal_counts_change_no_prediction():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(PostHocLogitAdjustment(0.0).adjust(outputs(logits, np.array([9, 1, 5, 0]))), logits)
    even = PostHocLogitAdjustment().adjust(outputs(logits, np.full(4, 3)))
    assert torch.equal(even.argmax(1), logits.argmax(1))
    assert torch.allclose(even.log_softmax(1), logits.log_softmax(1), atol=1e-6)


def test_a_class_nobody_holds_is_not_predicted_always():
    logits = torch.tensor([[5.0, 0.0, -5.0]]).repeat(10, 1)
    predictions = PostHocLogitAdjustment().adjust(outputs(logits, np.array([60, 40, 0]))).argmax(1)
    assert (predictions == 0).all()


def test_rarer_classes_gain_and_the_order_of_gains_is_that_of_rarity():
    gain = PostHocLogitAdjustment().adjust(outputs(torch.zeros(1, 3), np.array([100, 10, 1])))[0]
    assert gain[0] < gain[1] < gain[2]
    assert float(gain[2] - gain[0]) == pytest.approx(np.log(100), abs=1e-5)


def test_without_counts_it_says_what_to_set():
    with pytest.raises(ValueError, match=r"prior\.provenance"):
        PostHocLogitAdjustment().adjust(outputs(torch.zeros(1, 2), None))


def test_a_class_of_too_few_rows_is_never_predicted():
    logits = torch.tensor([[0.0, 9.0, 8.0], [5.0, 9.0, 0.0]])
    adjusted = PostHocLogitAdjustment(min_count=5).adjust(outputs(logits, np.array([60, 4, 5])))
    assert adjusted.argmax(1).tolist() == [2, 0]
    assert torch.isfinite(adjusted).all()
    kept = [0, 2]
    free = PostHocLogitAdjustment().adjust(outputs(logits, np.array([60, 4, 5])))
    assert torch.equal(adjusted[:, kept], free[:, kept])


def test_a_floor_that_leaves_no_class_is_refused():
    with pytest.raises(ConfigError, match="no class has as many rows"):
        PostHocLogitAdjustment(min_count=5).adjust(outputs(torch.zeros(1, 2), np.array([4, 3])))
    with pytest.raises(ConfigError, match="at least 0"):
        PostHocLogitAdjustment(min_count=-1)
