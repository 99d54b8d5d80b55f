"""What every registered trainable generator stops at or refuses."""

import pytest
import torch

from fedimb import registry
from fedimb.errors import ConfigError, RunDiverged
from fedimb.generation.training import train_generator
from tests.generation.generator_cases import SHORT, TRAINABLE, build, examples, ids, rng, shape_of, trained

WRONG = (
    {"steps": 0},
    {"guidance": -1.0},
    {"guidance": float("nan")},
    {"df": 2.0},
    {"df": float("inf")},
    {"latent": 0},
    {"depth": 0},
)
"""Settings that a generator refuses if it has them, by their names."""

generators = pytest.mark.parametrize("name", TRAINABLE)


@generators
def test_a_loss_that_is_not_finite_stops_training_and_names_step_and_rate(name):
    generator = build(name)
    with torch.no_grad():
        next(p for p in generator.parameters() if p.ndim > 1).fill_(torch.nan)
    with pytest.raises(RunDiverged, match=r"the loss is nan at step 1 of 4 with lr=0\.002: lower lr"):
        train_generator(generator, examples(shape_of(name)), SHORT, 0)


@generators
def test_weights_that_are_not_finite_give_no_samples(name):
    generator = trained(name)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(RunDiverged, match="not finite"):
        generator.sample(ids(0), ids(0), rng())


@generators
def test_an_untrained_generator_says_so(name):
    with pytest.raises(ConfigError, match="never trained"):
        build(name).sample(ids(0), ids(0), rng())


@generators
def test_settings_out_of_range_are_refused(name):
    for wrong in WRONG:
        if not wrong.keys() <= registry.parameters("generator", name).keys():
            continue
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            build(name, **wrong)
    with pytest.raises(ConfigError, match="at least 1"):
        build(name, n_classes=0)
    with pytest.raises(ConfigError, match=rf"generator '{name}' makes"):
        build(name, shape=(2, 3, 4, 5))
