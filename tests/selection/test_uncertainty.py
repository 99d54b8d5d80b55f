import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedimb.selection.uncertainty import highest, least_confidence, margin, normalised_entropy, probabilities

P = torch.tensor([[0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.98, 0.01, 0.01]], dtype=torch.float64)


def test_scores_by_hand():
    assert least_confidence(P.log()).tolist() == pytest.approx([0.5, 2 / 3, 0.02])
    assert margin(P.log()).tolist() == pytest.approx([0.8, 1.0, 0.03])
    assert normalised_entropy(P.log())[1] == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 99), st.floats(0.1, 50))
def test_entropy_is_scipys_and_lies_in_0_to_1(n_classes, seed, scale):
    logits = scale * torch.randn(7, n_classes, generator=torch.Generator().manual_seed(seed))
    ours = normalised_entropy(logits)
    theirs = stats.entropy(logits.double().softmax(1).numpy(), axis=1) / math.log(n_classes)
    assert np.allclose(ours, theirs, atol=1e-12)
    assert ours.min() >= 0
    assert ours.max() <= 1


def test_very_sure_rows_still_differ_and_huge_logits_stay_finite():
    sure = torch.tensor([[20.0, 0.0], [25.0, 0.0]])
    for score in (normalised_entropy, least_confidence, margin):
        assert score(sure)[0] > score(sure)[1] > 0
        assert torch.isfinite(score(torch.tensor([[3e38, -3e38]]))).all()


def test_highest_first_and_of_equals_the_lower_position():
    assert highest(torch.tensor([1.0, 3.0, 1.0, 3.0]), 3).tolist() == [1, 3, 0]
    assert highest(torch.tensor([1.0, 2.0]), 9).tolist() == [1, 0]
    assert highest(torch.zeros(0), 2).tolist() == []


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="at least 2 classes; got shape \\(4, 1\\)"):
        probabilities(torch.zeros(4, 1))
