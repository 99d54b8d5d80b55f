"""How much a study plan lets be asked of a site: runs, rounds, queries, and the epsilon of all of them.

A site's ledger (`fedimb.deploy.site.account`) answers no more than this, whatever the coordinator sends.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedimb.contracts import platform as names
from fedimb.deploy.study_plan.outbound_records import Repetition, message_counts
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.deploy.study_plan.ranges import Range, most_rounds
from fedimb.privacy.gaussian import sigma_of
from fedimb.schema import PriorConfig, PrivacyConfig, RunConfig

__all__ = ["PlanBudget", "counts_precision", "default_runs", "most_round", "plan_budget", "update_precision"]


@dataclass(frozen=True)
class PlanBudget:
    """What a plan allows at most.

    Attributes:
        runs: number of runs.
        rounds: training rounds of one run.
        queries: other messages of one run.
        noiseless: training rounds of one run whose updates leave without noise.
        updates: precision of one run's updates (`update_precision`), summed over its rounds.
        counts: the same for noisy class counts.
    """

    runs: int
    rounds: int
    queries: int
    noiseless: int
    updates: float
    counts: float


def plan_budget(plan: StudyPlan) -> PlanBudget:
    """The budget of a plan, as if every run used its longest settings."""
    config, rounds = plan.run_config(), most_rounds(plan.run_config(), plan.vary)
    asked = message_counts(config, rounds, plan.vary)
    precision = update_precision(config.privacy, config.clients.count)
    noisy = asked.get(f"query.{names.NOISY_COUNTS}", 0)
    return PlanBudget(
        runs=plan.runs,
        rounds=rounds,
        queries=sum(asked.values()) - asked["train"],
        noiseless=0 if precision else rounds,
        updates=rounds * precision,
        counts=noisy * counts_precision(config.prior, config.clients.count) if noisy else 0.0,
    )


def update_precision(privacy: PrivacyConfig, cohort: int) -> float:
    """Precision (1 / variance, for a sensitivity of 1) of one update with the site's own share of the noise.

    It is what the coordinator sees of this site's update; 0: without noise, so that nothing is guaranteed. Precisions
    of consecutive Gaussian mechanisms add up, and epsilon follows from their sum (`epsilon_of_precision`).

    Args:
        cohort: number of clients among whom the noise is divided.
    """
    return cohort / privacy.noise**2 if privacy.clip is not None and privacy.noise > 0 else 0.0


def counts_precision(prior: PriorConfig, sites: int) -> float:
    """The same for one reply with noisy class counts; the unit is a row, or a patient with ``prior.clip``."""
    sensitivity = float(prior.clip or 1)
    return sites * (sensitivity / sigma_of(prior.epsilon, prior.delta, sensitivity)) ** 2


def epsilon_of_precision(precision: float, delta: float) -> float:
    """Epsilon at ``delta`` of mechanisms whose precisions add up to ``precision``, without sampling (q = 1)."""
    from fedimb.privacy.gaussian import epsilon_of  # imports scipy, which a node that answers a message does not need

    return epsilon_of(1 / math.sqrt(precision), delta) if precision > 0 else 0.0


def most_precision(epsilon: float, delta: float) -> float:
    """The largest precision that keeps ``epsilon`` at ``delta``."""
    return 1 / sigma_of(epsilon, delta) ** 2


def most_round(config: RunConfig) -> int:
    """The largest round number in a run's messages: its rounds, and each replacement of the model by a method."""
    return config.rounds + sum(each.times * each.contract.replaces for each in Repetition.of(config))


def default_runs(vary: Mapping[str, Range]) -> int:
    """Number of runs of a plan that names none: all combinations of listed values and of a range of seeds."""
    runs = 1
    for key, given in vary.items():
        if given.among:
            runs *= len(given.among)
        elif key == "seed" and given.low is not None and given.high is not None:
            runs *= int(given.high) - int(given.low) + 1
    return runs
