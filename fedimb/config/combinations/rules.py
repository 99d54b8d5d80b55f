"""The table of rules, and what is asked of it: why a combination is refused, and the matrix of all pairs."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, permutations

from fedimb import registry
from fedimb.config.combinations import (
    corrections,
    heads,
    labels,
    methods,
    paces,
    phases,
    priors,
    privacy,
    resampling,
    site_models,
)
from fedimb.config.combinations.base import Combination, Rule

METHOD_KINDS = ("strategy", "aggregator", "loss", "sampler", "calibration", "pace")

RULES: tuple[Rule, ...] = (
    site_models.method_of_one_model,
    site_models.method_of_private_parts,
    site_models.aggregator_of_whole_updates,
    site_models.one_model_needed,
    site_models.pooled_prior_of_own_models,
    site_models.bounds_over_different_networks,
    corrections.double_correction,
    corrections.double_correction_in_training,
    corrections.temperature_of_no_posterior,
    corrections.temperature_of_a_hard_decision,
    corrections.temperature_with_noise,
    resampling.resampler_with_a_method,
    resampling.resampler_and_counts,
    methods.method_brings_its_loss,
    methods.method_brings_its_aggregator,
    methods.moves_what_is_not_trained,
    priors.prior_missing,
    priors.prior_stays_at_the_clients,
    priors.weighting_needs_each_clients_counts,
    priors.prior_of_arrivals_of_other_rows,
    paces.training_without_rounds,
    paces.objective_without_rounds,
    paces.attack_without_rounds,
    methods.attack_without_training,
    paces.noise_and_pace,
    paces.pace_of_other_models,
    paces.pace_of_own_models,
    methods.not_linear,
    methods.two_cycles,
    phases.phases_of_the_data,
    phases.phases_and_other_methods,
    phases.phases_and_pace,
    phases.phases_and_temperature,
    phases.phases_and_oracle,
    phases.phases_and_weight,
    phases.objective_of_phases,
    methods.labels_not_queried_yet,
    methods.runs_its_rounds_alone,
    methods.choice_without_effect,
    heads.two_heads,
    heads.term_of_another_loss,
    heads.head_of_another_kind,
    heads.head_without_its_objective,
    corrections.corrected_teacher,
    heads.head_that_is_not_its_weight,
    heads.term_of_another_aggregator,
    labels.another_task,
    labels.unknown_labels,
    labels.labels_that_nobody_can_give,
    labels.held_out_losses_of_unknown_labels,
    labels.weighting_of_unknown_labels,
    priors.prior_of_one_label_per_row,
    privacy.clip_without_updates,
    privacy.noise_without_clip,
    privacy.noise_needs_equal_weights,
    privacy.noise_needs_equal_clients,
    privacy.noise_needs_the_mean,
    privacy.clip_and_what_a_term_sends,
)
"""Their order is behaviour: of several reasons a run prints the first."""


def refusal(combination: Combination) -> str | None:
    """The one-line reason why these parts cannot run together, or None."""
    return next((reason for rule in RULES if (reason := rule(combination))), None)


@dataclass(frozen=True)
class Cell:
    """One pair of the matrix: kind and name of both parts, and the reason if it is refused.

    Of two strategies the first is the outer one, as in ``strategy=[first,second]``.
    """

    first: tuple[str, str]
    second: tuple[str, str]
    reason: str | None


def matrix(kinds: Iterable[str] = METHOD_KINDS) -> list[Cell]:
    """Every pair of registered parts of two different kinds, and of two strategies in both orders, allowed or not."""
    entries = {kind: [registry.get(kind, name) for name in registry.names(kind)] for kind in kinds}
    pairs = [(a, b) for x, y in combinations(entries, 2) for a in entries[x] for b in entries[y]]
    pairs += list(permutations(entries.get("strategy", []), 2))
    return [Cell((a.kind, a.name), (b.kind, b.name), refusal(Combination((a, b)))) for a, b in pairs]
