"""Every registered loss, sampler, resampler, calibration and model keeps to its contract.

A part added later is tested unasked.
"""

import pytest

from fedimb import registry
from fedimb.testing import check_calibration, check_loss, check_model, check_resampler, check_sampler


def every(kind):
    return pytest.mark.parametrize("name", registry.names(kind))


@every("loss")
def test_losses(name):
    check_loss(name)


@every("sampler")
def test_samplers(name):
    check_sampler(name)


@every("resampler")
def test_resamplers(name):
    check_resampler(name)


@every("calibration")
def test_calibrations(name):
    check_calibration(name)


NARROW = {"resnet18": {"width": 16}, "resnet34": {"width": 16}}
"""As deep as they are, a quarter as wide: sixteen times less to compute."""


@every("model")
def test_models(name):
    check_model(name, **NARROW.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_models_at_their_own_width(name):
    check_model(name)
