import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.training.losses.ce import CrossEntropy


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(2, 6), st.integers(0, 999))
def test_it_is_the_mean_negative_log_probability_of_the_label_and_blind_to_shifts(n, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator)
    labels = torch.randint(classes, (n,), generator=generator)
    z = logits.double()
    expected = -(z[torch.arange(n), labels] - z.exp().sum(1).log()).mean()
    assert torch.allclose(CrossEntropy()(logits, labels).double(), expected, atol=1e-5)
    shifted = logits + torch.randn(n, 1, generator=generator)
    assert torch.allclose(CrossEntropy()(shifted, labels).double(), expected, atol=1e-5)
