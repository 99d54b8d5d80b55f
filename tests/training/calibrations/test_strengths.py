"""Strengths of calibrations: a negative one turns the correction round, and its scores look like any others."""

import pytest

from fedimb.errors import ConfigError
from fedimb.training.calibrations.la_post import PostHocLogitAdjustment
from fedimb.training.calibrations.tau import TauNormalisation


@pytest.mark.parametrize(("name", "made"), [("la_post", PostHocLogitAdjustment), ("tau", TauNormalisation)])
def test_a_negative_strength_is_refused(name, made):
    made(tau=0.0)
    with pytest.raises(ConfigError, match=rf"calibration\.{name}\.tau=-1\.0: give at least 0"):
        made(tau=-1.0)
