"""Which parts cannot be combined, and why: one table of rules over the flags that parts declare.

A rule looks at a whole combination and returns a reason or None. `matrix` applies the same rules to every pair, so the
printed matrix and what a run refuses cannot disagree.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations, permutations

from fedimb import registry
from fedimb.registry import Entry

TASKS = ("multiclass", "multilabel")
_SEES_LABELS = ("loss", "calibration", "strategy", "objective", "augmentation", "resampler")
_GETS_LABELS = ("loss", "sampler", "strategy", "objective", "augmentation", "attack", "resampler")
_UNKNOWN_MEANS = {
    "cells": "cells of classes that a client does not annotate",
    "coarse": "labels that are sets of classes",
}
_TASK_MEANS = {"multiclass": "one class per row", "multilabel": "several labels per row"}
METHOD_KINDS = ("strategy", "aggregator", "loss", "sampler", "calibration", "pace")


@dataclass(frozen=True)
class Combination:
    """The parts of one run, methods outermost first.

    ``provenance`` and ``weighting`` are those of the class prior, ``task`` that of the data; None: not known yet.
    ``unknown`` says what becomes of labels that clients do not know (`fedimb.data.label_spaces`): ``masked``,
    ``cells``, ``coarse``; None: all are known.
    ``own_models`` says what clients do not share: ``kinds`` (networks of their own), ``alike`` (of these the first
    layers are shared), ``private`` (weights that stay at each), and ``bounds`` if single clients' influence is bounded.
    ``clip`` and ``noise`` are applied to updates, ``weight`` is the ``aggregation_weight``, ``view`` that of the prior.
    ``temperature``: whether the run measures that of its model (``evaluation.temperature``).
    """

    parts: tuple[Entry, ...]
    provenance: str | None = None
    weighting: str | None = None
    task: str | None = None
    clip: float | None = None
    noise: float = 0.0
    weight: str | None = None
    view: str | None = None
    unknown: str | None = None
    own_models: frozenset[str] = frozenset()
    temperature: bool = False

    def having(self, flag: str, *kinds: str) -> list[Entry]:
        """Parts (of these kinds, or of any) that declare the flag."""
        return [p for p in self.parts if p.flags.get(flag) and (not kinds or p.kind in kinds)]


Rule = Callable[[Combination], str | None]


def _double_correction(c: Combination) -> str | None:
    trained, calibrations = (
        c.having("adjusts_logits", "loss", "strategy", "objective"),
        c.having("adjusts_logits", "calibration"),
    )
    if not trained or not calibrations:
        return None
    part = trained[0]
    whose = f"{part.kind} '{part.name}'{' with ' + part.flags['own_loss'] if 'own_loss' in part.flags else ''}"
    return (
        f"double correction: {whose} and calibration '{calibrations[0].name}' both shift "
        "the logits by the class prior; use one of them"
    )


def _double_correction_in_training(c: Combination) -> str | None:
    """An objective whose correction is in the predictions, and a loss that leaves it out of the logits already."""
    objectives, losses = c.having("adjusts_logits", "objective"), c.having("adjusts_logits", "loss")
    if not objectives or not losses:
        return None
    return (
        f"double correction: objective '{objectives[0].name}' and loss '{losses[0].name}' both correct the logits for "
        "the class prior; use one of them, such as loss=ce"
    )


def _temperature_of_no_posterior(c: Combination) -> str | None:
    """A temperature makes a posterior of logits that only need to be scaled: not of those with another prior."""
    users = c.having("tau_rule", "calibration")
    others = c.having("needs_prior", "loss", "strategy") + c.having("resamples", "sampler", "resampler")
    if not users or not others:
        return None
    part, rule = others[0], users[0].flags["tau_rule"]
    return (
        f"calibration.{users[0].name}.tau={rule} scales logits to the clients' posterior, but {part.kind} "
        f"'{part.name}' trains them for another class prior; use loss=ce and sampler=shuffle, or give tau as a number"
    )


def _temperature_of_a_hard_decision(c: Combination) -> str | None:
    """Logits whose size is no evidence: their least log loss is at whichever end of the range is tried."""
    heads, users = c.having("no_posterior", "model"), c.having("tau_rule", "calibration")
    if not heads or not (users or c.temperature):
        return None
    setting = f"calibration.{users[0].name}.tau={users[0].flags['tau_rule']}" if users else "evaluation.temperature"
    remedy = "give tau as a number" if users else "set evaluation.temperature=false"
    return (
        f"{setting} scales logits to probabilities, but model '{heads[0].name}' has {heads[0].flags['own_head']}, "
        f"{heads[0].flags['no_posterior']}, of which no temperature makes probabilities; {remedy}, or use "
        "model.head=linear"
    )


def _temperature_with_noise(c: Combination) -> str | None:
    if not c.noise or not (users := c.having("tau_rule", "calibration")):
        return None
    return (
        f"calibration.{users[0].name}.tau={users[0].flags['tau_rule']} trains on most rows again for every fold and "
        "sums their losses without noise, which the epsilon of privacy.noise does not cover; give tau as a number"
    )


def _resampler_with_a_method(c: Combination) -> str | None:
    """Methods have rows, labels and counts of their own, of which a resampler knows nothing."""
    users = c.having("resamples", "resampler")
    others = [part for part in c.parts if part.kind == "strategy" and part.name != "plain"]
    if not users or not others:
        return None
    return (
        f"resampler '{users[0].name}' changes the rows that clients train on, which strategy '{others[0].name}' "
        "chooses or counts itself; use strategy=plain, or resampler=none"
    )


def _resampler_and_counts(c: Combination) -> str | None:
    """Corrections by class counts need those of the rows that were trained on, or they are made twice."""
    changing = c.having("resamples", "resampler")
    users = c.having("needs_prior", "loss", "calibration") + c.having("uses_local_counts", "loss")
    if not changing or not users:
        return None
    start = (
        f"resampler '{changing[0].name}' changes how often each class is trained on, and {users[0].kind} "
        f"'{users[0].name}'"
    )
    if c.view == "real":
        return (
            f"double correction: {start} would correct by the counts of the real rows (prior.view=real); set "
            "prior.view=train, which counts the rows after resampling"
        )
    if c.provenance == "oracle":
        return (
            f"double correction: {start} would correct by the counts of the real rows (prior.provenance=oracle); set "
            "prior.provenance=clear_sum"
        )
    if c.provenance == "dp_sum":
        return (
            f"{start} would read noisy counts of the rows after it (prior.provenance=dp_sum), of which one real row "
            "changes more than one by 1: the noise is too small; set prior.provenance=secure_sum"
        )
    return None


def _method_brings_its_loss(c: Combination) -> str | None:
    users, others = c.having("own_loss", "strategy"), [p for p in c.parts if p.kind == "loss" and p.name != "ce"]
    if not users or not others:
        return None
    part = users[0]
    return (
        f"strategy '{part.name}' with {part.flags['own_loss']} trains with its own loss and cannot use "
        f"loss '{others[0].name}'; set loss=ce, or leave {part.flags['own_loss'].partition('=')[0]} out"
    )


def _method_brings_its_aggregator(c: Combination) -> str | None:
    users, others = c.having("own_aggregator", "strategy"), [p for p in c.parts if p.kind == "aggregator"]
    if not users or all(part.name == "fedavg" for part in others):
        return None
    return (
        f"strategy '{users[0].name}' aggregates the clients' weights itself and cannot use aggregator "
        f"'{others[0].name}'; set aggregator=fedavg"
    )


def _prior_missing(c: Combination) -> str | None:
    if c.provenance != "none" or not (users := c.having("needs_prior")):
        return None
    return (
        f"{users[0].kind} '{users[0].name}' needs class counts, but prior.provenance is none; "
        "set prior.provenance=clear_sum (or local, oracle)"
    )


def _prior_stays_at_the_clients(c: Combination) -> str | None:
    if c.provenance != "local" or not (users := c.having("needs_prior", "calibration")):
        return None
    return (
        f"calibration '{users[0].name}' runs at the server, which has no class counts with prior.provenance=local; "
        "set prior.provenance=clear_sum (or oracle)"
    )


def _weighting_needs_each_clients_counts(c: Combination) -> str | None:
    if c.weighting not in ("effective", "arrived"):
        return None
    hidden = {
        "secure_sum": "only the sum over clients",
        "dp_sum": "only the sum over clients",
        "estimated": "only the merged head",
        **({"local": "nothing"} if c.weighting == "arrived" else {}),
    }
    if c.provenance not in hidden or not (users := c.having("needs_prior")):
        return None
    return (
        f"{users[0].kind} '{users[0].name}' uses prior.weighting={c.weighting}, computed from each client's counts, "
        f"but prior.provenance={c.provenance} shows the server {hidden[c.provenance]}; set prior.weighting=data"
    )


def _prior_of_arrivals_of_other_rows(c: Combination) -> str | None:
    """The prior of what arrived is made of the clients' counts of all their rows."""
    users = c.having("needs_prior")
    others = [part for part in c.parts if part.kind == "strategy" and not part.flags.get("any_pace")]
    others += c.having("resamples", "resampler")
    if c.weighting != "arrived" or not users or not others:
        return None
    return (
        "prior.weighting=arrived adds up the counts of all rows of clients whose updates arrived, but "
        f"{others[0].kind} '{others[0].name}' may train on other rows or set the prior itself; set prior.weighting=data"
    )


def _training_without_rounds(c: Combination) -> str | None:
    """Updates that arrive one by one, each from another version of the model: who works with them says so."""
    paces = c.having("asynchronous", "pace")
    lacking = [part for part in c.parts if part.kind in ("aggregator", "strategy") and not part.flags.get("any_pace")]
    if not paces or not lacking:
        return None
    part = lacking[0]
    fitting = [name for name in registry.names(part.kind) if registry.get(part.kind, name).flags.get("any_pace")]
    return (
        f"pace '{paces[0].name}' has no rounds: updates arrive singly, from earlier versions of the model, and "
        f"{part.kind} '{part.name}' needs those of a round together, or what clients keep or report of it; use "
        f"{part.kind}={' or '.join(fitting)}, or pace=sync"
    )


def _objective_without_rounds(c: Combination) -> str | None:
    """An objective whose client keeps its update, or sends what is computed from it, as of the newest version."""
    paces = c.having("asynchronous", "pace")
    others = c.having("keeps_update", "objective") + c.having("sends", "objective")
    if not paces or not others:
        return None
    return (
        f"pace '{paces[0].name}' has no rounds, and objective '{others[0].name}' needs what the server makes of a "
        "client's update before the client trains again; leave it out, or use pace=sync"
    )


def _attack_without_rounds(c: Combination) -> str | None:
    paces = c.having("asynchronous", "pace")
    others = [part for part in c.parts if part.kind == "attack" and part.name != "none"]
    if not paces or not others:
        return None
    return (
        f"pace '{paces[0].name}' has no rounds, in which attack '{others[0].name}' would begin and attackers meet; use "
        "pace=sync, or attack=none"
    )


def _attack_without_training(c: Combination) -> str | None:
    """What a method asks for beside training (records ``x.*``) attackers answer honestly."""
    idle = c.having("trains_no_client", "strategy")
    others = [part for part in c.parts if part.kind == "attack" and part.name != "none"]
    if not idle or not others:
        return None
    claims = c.having("forges_counts", "attack") and c.having("needs_prior")
    if claims and not any(part.flags.get("sets_prior") for part in idle):
        return None
    part = idle[0]
    return (
        f"attack '{others[0].name}' lies in rounds of training, and strategy '{part.name}' with "
        f"{part.flags['trains_no_client']} trains no client, so it would change nothing; use attack=none, or a "
        "strategy that trains"
    )


def _noise_and_pace(c: Combination) -> str | None:
    paces = c.having("paced", "pace")
    if not c.noise or not paces:
        return None
    return (
        f"privacy.noise is accounted for rounds in which every client asked counts, and with pace '{paces[0].name}' "
        "not all do; use pace=sync, or privacy.noise=0"
    )


def _pace_of_other_models(c: Combination) -> str | None:
    paces, others = c.having("paced", "pace"), c.having("other_models", "strategy")
    if not paces or not others:
        return None
    return (
        f"pace '{paces[0].name}' counts the time of rounds of the classifier, and strategy '{others[0].name}' trains "
        "another model too, which would take none; use pace=sync"
    )


def _pace_of_own_models(c: Combination) -> str | None:
    """The clock knows one network, and updates without rounds are differences to weights that all clients share."""
    own = _own_models(c)
    paces = c.having("asynchronous", "pace") if own else []
    if paces:
        return (
            f"pace '{paces[0].name}' has no rounds: what arrives is added to weights that all clients share, and "
            f"{_whose(c)} leaves some that they do not; use pace=sync"
        )
    paces = c.having("paced", "pace") if "kinds" in own else []
    if not paces:
        return None
    return (
        f"pace '{paces[0].name}' plans how long clients take for the run's one network, and clients.models gives some "
        "another; use pace=sync"
    )


def _not_linear(c: Combination) -> str | None:
    users = c.having("needs_merged")
    others = [p for p in c.parts if p.kind == "aggregator" and not p.flags.get("linear")]
    if not users or not others:
        return None
    return (
        f"{users[0].kind} '{users[0].name}' works on the merged update, but aggregator '{others[0].name}' "
        "needs each client's update; use a linear aggregator such as fedavg"
    )


def _two_cycles(c: Combination) -> str | None:
    cycling = c.having("cycles", "strategy")
    if len(cycling) < 2:
        return None
    return f"strategy '{cycling[0].name}' and strategy '{cycling[1].name}' both repeat in cycles; at most one may"


def _nested(c: Combination) -> list[tuple[Entry, Entry]]:
    """All pairs (outer method, inner method)."""
    return list(combinations([part for part in c.parts if part.kind == "strategy"], 2))


def _labels_not_queried_yet(c: Combination) -> str | None:
    for outer, inner in _nested(c):
        if outer.flags.get("reads_labels") and inner.flags.get("asks_for_labels"):
            return (
                f"strategy '{outer.name}' needs the class of every row, but outside strategy '{inner.name}' it "
                f"would run before any row is labelled; use strategy=[{inner.name},{outer.name}]"
            )
    return None


def _runs_its_rounds_alone(c: Combination) -> str | None:
    for outer, inner in _nested(c):
        if outer.flags.get("innermost"):
            swapped = f"use strategy=[{inner.name},{outer.name}]"
            remedy = "remove one of them" if inner.flags.get("innermost") else swapped
            return (
                f"strategy '{outer.name}' runs its rounds itself and cannot have strategy '{inner.name}' inside; "
                f"{remedy}"
            )
    return None


def _choice_without_effect(c: Combination) -> str | None:
    for outer, inner in _nested(c):
        if not (outer.flags.get("chooses_rows") and inner.flags.get("chooses_rows")):
            continue
        if inner.name in outer.flags.get("chooses_around", ()):
            continue
        other = outer.name in inner.flags.get("chooses_around", ())
        remedy = f"use strategy=[{inner.name},{outer.name}]" if other else "remove one of them"
        return (
            f"strategy '{outer.name}' and, inside it, strategy '{inner.name}' both choose the rows to train on, and "
            f"the outer choice would undo the inner one; {remedy}"
        )
    return None


def _head_of_another_kind(c: Combination) -> str | None:
    for part in c.having("needs_head", "strategy", "objective", "loss"):
        wanted = part.flags["needs_head"]
        if any(p.kind == "model" and p.flags.get("head_kind") != wanted for p in c.parts):
            return f"{part.kind} '{part.name}' needs a model with model.head={wanted}; set it"
    return None


def _two_heads(c: Combination) -> str | None:
    for pair in _nested(c):
        keeping = [part for part in pair if part.flags.get("needs_head", "linear") != "linear"]
        building = [part for part in pair if part.flags.get("builds_head") and part not in keeping]
        if keeping and building:
            return (
                f"strategy '{keeping[0].name}' keeps a head of kind {keeping[0].flags['needs_head']}, and strategy "
                f"'{building[0].name}' builds another; remove one of them"
            )
    return None


def _term_of_another_loss(c: Combination) -> str | None:
    for part in c.having("needs_loss", "objective", "strategy", "model"):
        wanted = part.flags["needs_loss"]
        if any(p.kind == "loss" and p.name not in wanted for p in c.parts):
            return f"{part.kind} '{part.name}' works with loss {' or '.join(wanted)} only; use loss={wanted[0]}"
    return None


def _head_without_its_objective(c: Combination) -> str | None:
    """A head that an objective trains; only a whole configuration, which has an aggregator, can lack the objective."""
    for part in c.having("needs_objective", "model"):
        wanted = part.flags["needs_objective"]
        given = {p.kind for p in c.parts}, {p.name for p in c.parts if p.kind == "objective"}
        if "aggregator" in given[0] and wanted not in given[1]:
            return (
                f"model '{part.name}' has {part.flags['own_head']}, which only the objective '{wanted}' trains; add "
                f"'aggregator.objectives=[{wanted}]', or use model.head=linear"
            )
    return None


def _corrected_teacher(c: Combination) -> str | None:
    """A head that corrects its logits in evaluation only: a teacher's are corrected, those it teaches are not yet."""
    heads = [part for part in c.having("head_kind", "model") if part.flags["head_kind"] == "npe"]
    teaching = c.having("distils", "objective")
    if not heads or not teaching:
        return None
    return (
        f"double correction: objective '{teaching[0].name}' teaches the received model's logits, which model.head=npe "
        "has corrected for the class prior, to logits that it will correct again; use model.head=linear"
    )


def _head_that_is_not_its_weight(c: Combination) -> str | None:
    owners, changing = c.having("own_head", "model", "strategy"), c.having("changes_head", "calibration")
    if not owners or not changing:
        return None
    part = owners[0]
    return (
        f"calibration '{changing[0].name}' computes with the rows of a linear classifier, but {part.kind} "
        f"'{part.name}' has {part.flags['own_head']}; use model.head=linear, or another calibration"
    )


def _term_of_another_aggregator(c: Combination) -> str | None:
    for objective in c.having("needs_aggregator", "objective"):
        wanted = objective.flags["needs_aggregator"]
        if any(p.kind == "aggregator" and p.name != wanted for p in c.parts):
            return f"objective '{objective.name}' needs what only aggregator '{wanted}' sends; use aggregator={wanted}"
    return None


def tasks_of(part: Entry) -> tuple[str, ...]:
    """The tasks of a part: its flag ``tasks``, or by default ``multiclass`` if it sees labels or logits, else all."""
    served: tuple[str, ...] = part.flags.get("tasks", ("multiclass",) if part.kind in _SEES_LABELS else TASKS)
    return served


def _another_task(c: Combination) -> str | None:
    for task in (c.task,) if c.task else TASKS:
        lacking = [part for part in c.parts if task not in tasks_of(part)]
        if not lacking:
            return None
    if c.task is None:
        return f"{c.parts[0].kind} '{c.parts[0].name}' and the other parts have no task in common"
    part = lacking[0]
    if remedy := part.flags.get("task_remedy"):
        return f"{part.kind} '{part.name}' {remedy}"
    fitting = [name for name in registry.names(part.kind) if c.task in tasks_of(registry.get(part.kind, name))]
    what = f"{part.kind} '{part.name}' is for {' and '.join(tasks_of(part))} data, but these data are {c.task}"
    return f"{what} ({_TASK_MEANS[c.task]}); use {' or '.join(fitting) or f'no {part.kind}'}"


def _unknown_labels(c: Combination) -> str | None:
    """Whatever gets labels must say that it can tell an unknown one from a class: flag ``unknown_labels``."""
    if c.unknown not in _UNKNOWN_MEANS:
        return None
    lacking = [p for p in c.parts if p.kind in _GETS_LABELS and c.unknown not in p.flags.get("unknown_labels", ())]
    if not lacking:
        return None
    part = lacking[0]
    entries = [registry.get(part.kind, name) for name in registry.names(part.kind)]
    fitting = [one.name for one in entries if c.unknown in one.flags.get("unknown_labels", ())]
    remedy = f"use {' or '.join(fitting)}" if fitting else f"use no {part.kind}"
    if c.unknown == "coarse":
        remedy += ", or data.labels.unknown=masked"
    return f"{part.kind} '{part.name}' cannot take {_UNKNOWN_MEANS[c.unknown]}; {remedy}"


def _labels_that_nobody_can_give(c: Combination) -> str | None:
    users = c.having("asks_for_labels", "strategy")
    if c.unknown is None or not users:
        return None
    return (
        f"strategy '{users[0].name}' asks clients for the class of their rows, but some clients do not annotate every "
        "class and could not answer; leave data.labels and partition=annotated_subsets out"
    )


def _held_out_losses_of_unknown_labels(c: Combination) -> str | None:
    users = c.having("tau_rule", "calibration")
    if c.unknown not in _UNKNOWN_MEANS or not users:
        return None
    return (
        f"calibration.{users[0].name}.tau={users[0].flags['tau_rule']} sums losses of held-out rows by their class, "
        "and some of these labels are unknown; give tau as a number"
    )


def _weighting_of_unknown_labels(c: Combination) -> str | None:
    users = c.having("needs_prior")
    if c.unknown not in _UNKNOWN_MEANS or c.weighting not in ("effective", "arrived") or not users:
        return None
    return (
        f"{users[0].kind} '{users[0].name}' uses prior.weighting={c.weighting}, computed from each client's counts, "
        "which do not cover the classes that it does not annotate; set prior.weighting=data"
    )


def _prior_of_one_label_per_row(c: Combination) -> str | None:
    if c.task != "multilabel" or c.provenance not in ("dp_sum", "estimated") or not (users := c.having("needs_prior")):
        return None
    why = {
        "dp_sum": "its noise is calibrated for one label per row: a row with several would change several counts",
        "estimated": "it estimates shares of rows of one class each from the head",
    }
    return (
        f"{users[0].kind} '{users[0].name}' would get class counts from prior.provenance={c.provenance}, but "
        f"{why[c.provenance]}; set prior.provenance=secure_sum (or clear_sum)"
    )


def _noise_without_clip(c: Combination) -> str | None:
    if not c.noise or c.clip is not None:
        return None
    return "privacy.noise is in units of privacy.clip, which is null: set privacy.clip to a norm"


def _noise_needs_equal_weights(c: Combination) -> str | None:
    if not c.noise or c.weight in (None, "uniform"):
        return None
    return (
        f"privacy.noise is calibrated for equal client weights, but aggregation_weight={c.weight} gives a client with "
        "more rows more weight; set aggregation_weight=uniform"
    )


def _noise_needs_equal_clients(c: Combination) -> str | None:
    if not c.noise or not (users := c.having("weighs_clients", "strategy")):
        return None
    return (
        f"privacy.noise is calibrated for equal client weights, but strategy '{users[0].name}' weighs clients by what "
        "they report; use another strategy, or privacy.noise=0"
    )


def _noise_needs_the_mean(c: Combination) -> str | None:
    others = [p for p in c.parts if p.kind == "aggregator" and not p.flags.get("linear")]
    others += c.having("needs_individual_updates", "strategy")
    if c.noise and (reading := c.having("client_scalars", "aggregator")):
        scalars = " and ".join(reading[0].flags["client_scalars"])
        return (
            f"aggregator '{reading[0].name}' reads the {scalars} of each client, but with privacy.noise only the "
            "mean of their updates can be read; use an aggregator such as fedavg, or privacy.noise=0"
        )
    if not c.noise or not others:
        return None
    return (
        f"{others[0].kind} '{others[0].name}' works on the update of each client, but with privacy.noise only their "
        "mean can be read; use a linear aggregator such as fedavg, or privacy.noise=0"
    )


def _clip_and_what_a_term_sends(c: Combination) -> str | None:
    if c.clip is None:
        return None
    if keeping := c.having("keeps_update", "objective"):
        return (
            f"objective '{keeping[0].name}' keeps the client's update as the server received it, but "
            "privacy.clip makes the two differ; use another aggregator, or privacy.clip=null"
        )
    if not (sending := c.having("sends", "objective")):
        return None
    return (
        f"objective '{sending[0].name}' sends {sending[0].flags['sends'][0].key}, computed from the update before "
        "privacy.clip; use another aggregator, or privacy.clip=null"
    )


def _own_models(c: Combination) -> frozenset[str]:
    """What clients do not share, as configured or as a method needs it."""
    return c.own_models | ({"private"} if c.having("needs_private", "strategy") else set())


def _whose(c: Combination) -> str:
    return "clients.models" if "kinds" in c.own_models else "clients.private"


def _method_of_one_model(c: Combination) -> str | None:
    """A method must say that it works without one global model: flag ``own_models``, of ``kinds`` and ``private``."""
    wanted = _own_models(c) & {"kinds", "private"}
    for part in (part for part in c.parts if part.kind == "strategy"):
        if lacking := sorted(wanted - set(part.flags.get("own_models", ()))):
            entries = [registry.get("strategy", name) for name in registry.names("strategy")]
            fitting = [one.name for one in entries if wanted <= set(one.flags.get("own_models", ()))]
            key = {"kinds": "clients.models", "private": "clients.private"}[lacking[0]]
            return (
                f"strategy '{part.name}' works with one model that all clients share, which {key} leaves none of; use "
                f"strategy={' or '.join(fitting)}"
            )
    return None


def _method_of_private_parts(c: Combination) -> str | None:
    users = c.having("needs_private", "strategy")
    if other := [part for part in users if part.flags["needs_private"] != users[0].flags["needs_private"]]:
        return (
            f"strategy '{users[0].name}' and strategy '{other[0].name}' keep different parts of each model at its "
            "client; use one of them"
        )
    if not users or not any(p.kind == "aggregator" for p in c.parts) or "private" in c.own_models:
        return None
    wanted = list(users[0].flags["needs_private"])
    return f"strategy '{users[0].name}' keeps a part of each model, or all, at its client; set clients.private={wanted}"


def _aggregator_of_whole_updates(c: Combination) -> str | None:
    """Arrays that are averaged over different clients, or some not at all, need an aggregator that takes each alone."""
    if not _own_models(c) & {"alike", "private"}:
        return None
    others = [p for p in c.parts if p.kind == "aggregator" and not p.flags.get("by_array")]
    if not others:
        return None
    key = "clients.models.average=alike" if "alike" in c.own_models else "clients.private"
    entries = [registry.get("aggregator", name) for name in registry.names("aggregator")]
    fitting = ", ".join(one.name for one in entries if one.flags.get("by_array"))
    return (
        f"aggregator '{others[0].name}' works on whole updates, or keeps something for every weight, but with {key} "
        f"updates are parts of models; use one that treats every array by itself ({fitting})"
    )


def _one_model_needed(c: Combination) -> str | None:
    """What reads the weights or predictions of one global model."""
    if not _own_models(c):
        return None
    key = _whose(c)
    if attacks := [part for part in c.parts if part.kind == "attack" and part.name != "none"]:
        return f"attack '{attacks[0].name}' is on one model that all clients share; leave {key} out, or use attack=none"
    if users := [part for part in c.parts if part.kind == "explanation" and part.name != "none"]:
        return f"explanation '{users[0].name}' explains one model; leave {key} out, or use explanation=none"
    if users := c.having("tau_rule", "calibration"):
        return (
            f"calibration.{users[0].name}.tau={users[0].flags['tau_rule']} is found for one model; give tau as a "
            f"number, or leave {key} out"
        )
    if c.provenance == "estimated" and (users := c.having("needs_prior")):
        return (
            f"{users[0].kind} '{users[0].name}' would get class counts from prior.provenance=estimated, which reads "
            f"the head of one model; set prior.provenance=secure_sum (or clear_sum), or leave {key} out"
        )
    return None


def _pooled_prior_of_own_models(c: Combination) -> str | None:
    """The class counts of all clients are not those that a site's own head, or a kind's network, was trained on."""
    if "kinds" not in c.own_models and not _own_head(c):
        return None
    if users := c.having("needs_prior", "calibration"):
        return (
            f"calibration '{users[0].name}' corrects every model by the class counts of all clients together, and "
            f"with {_whose(c)} a model is trained on those of its own clients; use calibration=none, or leave "
            f"{_whose(c)} out"
        )
    users = c.having("needs_prior", "loss", "objective")
    if c.provenance in (None, "none", "local") or not users:
        return None
    return (
        f"{users[0].kind} '{users[0].name}' would get the class counts of all clients together "
        f"(prior.provenance={c.provenance}), and with {_whose(c)} a model is trained on those of its own clients; set "
        "prior.provenance=local"
    )


def _own_head(c: Combination) -> bool:
    """Whether the layer whose logits a class prior shifts stays at each client."""
    kept = [name for part in c.having("needs_private", "strategy") for name in part.flags["needs_private"]]
    return "head" in c.own_models or any(name in ("head", "*") for name in kept)


def _bounds_over_different_networks(c: Combination) -> str | None:
    if "kinds" not in c.own_models:
        return None
    if "bounds" in c.own_models:
        return (
            "clients.max_weight_share and clients.max_update_ratio compare the clients of a round, and with "
            "clients.models their updates are of different networks; set both to null"
        )
    if c.noise:
        return (
            "privacy.noise is calibrated for a sum over the whole cohort, and with clients.models each network's sum "
            "is over its own clients, with less noise than stated; set privacy.noise=0"
        )
    return None


RULES: tuple[Rule, ...] = (
    _method_of_one_model,
    _method_of_private_parts,
    _aggregator_of_whole_updates,
    _one_model_needed,
    _pooled_prior_of_own_models,
    _bounds_over_different_networks,
    _double_correction,
    _double_correction_in_training,
    _temperature_of_no_posterior,
    _temperature_of_a_hard_decision,
    _temperature_with_noise,
    _resampler_with_a_method,
    _resampler_and_counts,
    _method_brings_its_loss,
    _method_brings_its_aggregator,
    _prior_missing,
    _prior_stays_at_the_clients,
    _weighting_needs_each_clients_counts,
    _prior_of_arrivals_of_other_rows,
    _training_without_rounds,
    _objective_without_rounds,
    _attack_without_rounds,
    _attack_without_training,
    _noise_and_pace,
    _pace_of_other_models,
    _pace_of_own_models,
    _not_linear,
    _two_cycles,
    _labels_not_queried_yet,
    _runs_its_rounds_alone,
    _choice_without_effect,
    _two_heads,
    _term_of_another_loss,
    _head_of_another_kind,
    _head_without_its_objective,
    _corrected_teacher,
    _head_that_is_not_its_weight,
    _term_of_another_aggregator,
    _another_task,
    _unknown_labels,
    _labels_that_nobody_can_give,
    _held_out_losses_of_unknown_labels,
    _weighting_of_unknown_labels,
    _prior_of_one_label_per_row,
    _noise_without_clip,
    _noise_needs_equal_weights,
    _noise_needs_equal_clients,
    _noise_needs_the_mean,
    _clip_and_what_a_term_sends,
)


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
