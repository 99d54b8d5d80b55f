import math

import pytest

from fedimb.annotation.settings import WorklistSettings
from fedimb.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"readers": 3}, "readers is 3; give 1 or 2"),
        ({"readers": True}, "readers is True"),
        ({"per_patient": 0}, "at least 1"),
        ({"per_patient": math.inf}, "at least 1"),
        ({"partial": "maybe"}, "wait or accept"),
        ({"separator": "|"}, "';'"),
        ({"show_prediction": 1}, "true or false"),
        ({"folder": ""}, "folder's name"),
        ({"reader": 2}, "Did you mean 'readers'"),
    ],
)
def test_settings_are_checked(settings, says):
    with pytest.raises(ConfigError, match=says):
        WorklistSettings.of(settings)
