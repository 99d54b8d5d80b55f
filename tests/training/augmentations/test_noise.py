import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.training.augmentations.noise import Noise


@pytest.mark.parametrize("shape", [(7,), (2, 30), (3, 4, 5)])
def test_noise_has_the_standard_deviation_asked_for(shape):
    x, y = torch.rand(400, *shape), torch.zeros(400, dtype=torch.int64)
    difference = Noise(0.3)(x, y, x, y, torch.Generator().manual_seed(0)) - x
    assert difference.shape == x.shape
    assert abs(float(difference.mean())) < 0.03
    assert abs(float(difference.std()) - 0.3) < 0.03


def test_the_type_stays_and_none_changes_nothing():
    x, y = torch.rand(5, 3, dtype=torch.float64), torch.zeros(5, dtype=torch.int64)
    assert Noise()(x, y, x, y, torch.Generator()).dtype == torch.float64
    assert torch.equal(Noise(0.0)(x, y, x, y, torch.Generator()), x)
    for std in (-1, float("inf")):
        with pytest.raises(ConfigError, match=f"augmentation 'noise': std={std}: give a finite"):
            Noise(std)
