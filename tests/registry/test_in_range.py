import math

import pytest

from fedimb.errors import ConfigError
from fedimb.registry.arguments import in_range


def test_both_ends_are_allowed_unless_said_otherwise():
    assert in_range("loss 'x'", "a", 0, 0) == 0
    assert in_range("loss 'x'", "a", 1, 0, 1) == 1
    with pytest.raises(ConfigError, match=r"^loss 'x': a=1: give a finite number of at least 0 and less than 1$"):
        in_range("loss 'x'", "a", 1, 0, 1, high_allowed=False)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.inf, -math.inf, math.nan])
def test_what_lies_outside_is_refused(value):
    with pytest.raises(ConfigError, match=rf"p={value}: give a finite number of at least 0 and at most 1$"):
        in_range("augmentation 'flip'", "p", value, 0, 1)
