import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedimb.evaluation.verdict import verdict


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.012, 0.03, "beats"),
        (0.001, 0.03, "beats"),  # certainly better, perhaps by little
        (0.001, 0.009, "level"),  # certainly better, certainly by too little to matter
        (-0.009, 0.009, "level"),
        (-0.009, -0.001, "level"),
        (0.0, 0.0, "level"),  # every seed equal
        (-0.03, -0.012, "below"),
        (-0.03, -0.001, "below"),
        (-0.03, 0.03, "undecided"),
        (-0.001, 0.03, "undecided"),
        (0.0, 0.03, "undecided"),  # 0 is not excluded
        (-0.01, 0.005, "undecided"),  # the margin itself is not inside
        (-0.005, 0.01, "undecided"),
        (math.nan, math.nan, "undecided"),  # one seed
        (0.01, 0.01, "beats"),
    ],
)
def test_the_table(low, high, said):
    assert verdict(low, high, 0.01) == said


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 0.5))
def test_seen_from_the_other_side_it_is_the_opposite(low, width, margin):
    high = low + width
    opposite = {"beats": "below", "below": "beats"}
    said = verdict(low, high, margin)
    assert verdict(-high, -low, margin) == opposite.get(said, said)


@pytest.mark.parametrize(("low", "high", "margin"), [(0.1, 0.0, 0.01), (0.0, 0.1, 0.0), (0.0, 0.1, math.inf)])
def test_nonsense_is_refused(low, high, margin):
    with pytest.raises(ValueError, match=r"margin must be|interval goes"):
        verdict(low, high, margin)
