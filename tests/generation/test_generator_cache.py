"""The config's device: asked for beside the generator's own arguments, and refused where there is none."""

import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.generation.generator_cache import GeneratorConfig
from fedimb.generation.training import Training


def config(**generator) -> GeneratorConfig:
    return GeneratorConfig(
        {"name": "table_flow", "width": 8, **generator}, Training(steps=1), 2, 1, (3,), ("a", "b"), 5
    )


def test_the_device_is_no_argument_of_the_generator_and_changes_no_weight():
    plain, asked = config().build(), config(device="cpu").build()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), asked.parameters(), strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="no GPU"):
        config(device="cuda").build()


def test_an_unknown_device_is_named_with_its_nearest():
    with pytest.raises(ConfigError, match="cuda"):
        config(device="cudaa").build()
