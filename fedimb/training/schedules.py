"""Learning rates over the rounds: a round's factor follows from its number alone, also in a resumed run."""

import math

from fedimb.schema import ScheduleConfig


def schedule_factor(schedule: ScheduleConfig, round: int, rounds: int) -> float:
    """The factor on a learning rate in ``round`` (1-based) of ``rounds``.

    After the ``warmup`` rounds, in which the factor rises evenly from ``start`` towards 1:

    - ``constant``: 1;
    - ``step``: ``gamma`` to the power of the number of milestones before this round;
    - ``exponential``: ``gamma`` to the power of the rounds since the warm-up;
    - ``cosine``: from 1 along half a cosine, which would reach ``final`` in the round after the last (Loshchilov and
      Hutter, "SGDR", ICLR 2017, without restarts; as torch's CosineAnnealingLR with one step a round).

    Example:
        >>> step = ScheduleConfig(name="step", milestones=[75], gamma=0.1)
        >>> [schedule_factor(step, round, 100) for round in (1, 75, 76)]
        [1.0, 1.0, 0.1]
        >>> [round(schedule_factor(ScheduleConfig(name="cosine"), r, 4), 3) for r in (1, 2, 3, 4)]
        [1.0, 0.854, 0.5, 0.146]
    """
    done = round - 1
    if done < schedule.warmup:
        start = 1.0 if schedule.start is None else schedule.start
        return start + (1 - start) * done / schedule.warmup
    match schedule.name:
        case "step":
            assert schedule.milestones is not None
            assert schedule.gamma is not None
            return schedule.gamma ** sum(done >= milestone for milestone in schedule.milestones)
        case "exponential":
            assert schedule.gamma is not None
            return schedule.gamma ** (done - schedule.warmup)
        case "cosine":
            share = (done - schedule.warmup) / max(1, rounds - schedule.warmup)
            final = schedule.final or 0.0
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        case _:
            return 1.0
