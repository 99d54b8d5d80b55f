"""Beats, level, below or undecided: what an interval of a difference says, given a margin.

The margin is the smallest difference that matters, in the unit of the score. `level` is equivalence by the inclusion of
the interval in the margin (Westlake 1972; Schuirmann 1987: two one-sided tests, here at 2.5 % each, as the interval is
the 95 % one); `beats` and `below` are superiority and inferiority by the side of 0 on which the interval lies (ICH E9,
section 3.3). An interval that excludes 0 and lies inside the margin is `level`: a difference that is certain and too
small to matter is no win.
"""

import math
from typing import Literal

Verdict = Literal["beats", "level", "below", "undecided"]


def verdict(low: float, high: float, margin: float) -> Verdict:
    """What the 95 % interval of ``row - bar`` says; differences are positive where the row is better.

    | the interval | verdict |
    | --- | --- |
    | inside (-margin, margin) | ``level`` |
    | else above 0 | ``beats`` |
    | else below 0 | ``below`` |
    | else, or there is none (NaN) | ``undecided`` |

    Args:
        low, high: the interval; NaN if there is none, e.g. of one seed.
        margin: smaller differences do not matter, in the unit of the score.

    Raises:
        ValueError: a margin that is not above 0, or low above high.

    Example:
        >>> [verdict(*interval, margin=0.01) for interval in ((0.002, 0.03), (0.002, 0.008), (-0.02, 0.03))]
        ['beats', 'level', 'undecided']
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"margin must be above 0, in the unit of the score, such as .01; got {margin}")
    if low > high:
        raise ValueError(f"an interval goes from low to high; got {low} to {high}")
    if math.isnan(low) or math.isnan(high):
        return "undecided"
    if -margin < low and high < margin:
        return "level"
    if low > 0:
        return "beats"
    return "below" if high < 0 else "undecided"
