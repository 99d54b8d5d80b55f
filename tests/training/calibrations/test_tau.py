import torch

from fedimb.training.calibrations.base import Outputs
from fedimb.training.calibrations.tau import TauNormalisation


def outputs(weight, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features, bias = torch.randn(6, weight.shape[1], generator=generator), torch.randn(len(weight), generator=generator)
    return Outputs(features, features @ weight.T + bias, weight, bias, None)


def test_tau_0_is_the_head_without_its_bias():
    out = outputs(torch.randn(3, 4, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(TauNormalisation(0.0).adjust(out), out.logits - out.bias, atol=1e-6)


def test_tau_1_uses_unit_rows_so_row_length_does_not_matter():
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    adjusted = TauNormalisation().adjust(outputs(weight))
    longer = TauNormalisation().adjust(outputs(weight * torch.tensor([[10.0], [1.0], [0.1]])))
    assert torch.allclose(adjusted, longer, atol=1e-5)
    angles = torch.nn.functional.cosine_similarity(outputs(weight).features[:, None], weight[None], dim=2)
    norms = outputs(weight).features.norm(dim=1, keepdim=True)
    assert torch.allclose(adjusted, angles * norms, atol=1e-5)


def test_tau_one_half_divides_by_the_root_of_the_norm():
    weight = torch.tensor([[3.0, 4.0], [0.0, 16.0]])
    out = outputs(weight)
    expected = out.features @ (weight / torch.tensor([[5.0**0.5], [4.0]])).T
    assert torch.allclose(TauNormalisation(0.5).adjust(out), expected, atol=1e-5)


def test_a_row_of_zeros_stays_zero():
    adjusted = TauNormalisation().adjust(outputs(torch.tensor([[0.0, 0.0], [1.0, 1.0]])))
    assert (adjusted[:, 0] == 0).all()
    assert torch.isfinite(adjusted).all()
