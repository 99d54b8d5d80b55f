"""The gap between starved and other classes, and Cohen's d: by hand, at their edges, and what they refuse."""

import math

import numpy as np
import pytest

from fedimb.evaluation.bias_gap import bias_gap, cohens_d


def test_the_gap_is_what_the_starved_classes_lack():
    assert bias_gap([0.9, 0.8, 0.2, 0.4], {2, 3}) == pytest.approx(0.85 - 0.3)
    assert bias_gap([0.5, 0.5], [1]) == 0
    assert bias_gap([0.1, 0.9], [1]) == pytest.approx(-0.8)


@pytest.mark.parametrize(
    ("recall", "starved"),
    [([0.5, math.nan], [1]), ([0.5, 0.5], []), ([0.5, 0.5], [0, 1]), ([0.5, 0.5], [-1])],
)
def test_a_gap_without_two_sides_is_refused(recall, starved):
    with pytest.raises(ValueError, match="needs a recall of each class, starved ones and others"):
        bias_gap(recall, starved)


def test_cohens_d_by_hand_and_of_samples_with_a_known_effect():
    # means 4 and 2; sums of squares 8 and 2 over 2 + 1 degrees of freedom
    assert cohens_d([2, 4, 6], [1, 3]) == pytest.approx(2 / math.sqrt(10 / 3))
    assert cohens_d([1, 3], [2, 4, 6]) == -cohens_d([2, 4, 6], [1, 3])
    draw = np.random.default_rng(0).standard_normal((2, 20_000))
    assert cohens_d(5 + 3 * draw[0], 3.5 + 3 * draw[1]) == pytest.approx(0.5, abs=0.04)


def test_cohens_d_without_spread_or_values():
    assert cohens_d([2, 2], [2, 2]) == 0
    assert cohens_d([1, 1], [2, 2]) == -math.inf
    for wrong in ([1], [1, math.nan]):
        with pytest.raises(ValueError, match="two finite values or more"):
            cohens_d(wrong, [1, 2])
