"""Labels that a part cannot take: of another task, or unknown at some clients."""

from fedimb import registry
from fedimb.config.combinations.base import Combination
from fedimb.registry import Entry

TASKS = ("multiclass", "multilabel")
_SEES_LABELS = ("loss", "calibration", "strategy", "objective", "augmentation", "resampler")
_GETS_LABELS = ("loss", "sampler", "strategy", "objective", "augmentation", "attack", "resampler")
_OF_TRAINING = ("loss", "sampler", "objective", "augmentation")
_UNKNOWN_MEANS = {
    "cells": "cells of labels that are unknown",
    "coarse": "labels that are sets of classes",
}
_TASK_MEANS = {"multiclass": "one class per row", "multilabel": "several labels per row"}


def tasks_of(part: Entry) -> tuple[str, ...]:
    """The tasks of a part: its flag ``tasks``, or by default ``multiclass`` if it sees labels or logits, else all."""
    served: tuple[str, ...] = part.flags.get("tasks", ("multiclass",) if part.kind in _SEES_LABELS else TASKS)
    return served


def _used(c: Combination) -> list[Entry]:
    """The parts that get rows: where a strategy trains nothing (``trains_nothing``), those of training get none.

    Nor could a user choose others: a word for them would be refused (`fedimb.config.effects`).
    """
    idle = c.having("trains_nothing", "strategy")
    return [part for part in c.parts if not (idle and part.kind in _OF_TRAINING)]


def another_task(c: Combination) -> str | None:
    """Parts and data that have no task in common."""
    for task in (c.task,) if c.task else TASKS:
        lacking = [part for part in _used(c) if task not in tasks_of(part)]
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


def unknown_labels(c: Combination) -> str | None:
    """Whatever gets labels must say that it can tell an unknown one from a class: flag ``unknown_labels``."""
    if c.unknown not in _UNKNOWN_MEANS:
        return None
    lacking = [p for p in _used(c) if p.kind in _GETS_LABELS and c.unknown not in p.flags.get("unknown_labels", ())]
    if not lacking:
        return None
    part = lacking[0]
    entries = [registry.get(part.kind, name) for name in registry.names(part.kind)]
    fitting = [one.name for one in entries if c.unknown in one.flags.get("unknown_labels", ())]
    remedy = f"use {' or '.join(fitting)}" if fitting else f"use no {part.kind}"
    if c.unknown == "coarse":
        remedy += ", or data.labels.unknown=masked"
    return f"{part.kind} '{part.name}' cannot take {_UNKNOWN_MEANS[c.unknown]}; {remedy}"


def labels_that_nobody_can_give(c: Combination) -> str | None:
    """A query of labels that some clients could not answer."""
    users = c.having("asks_for_labels", "strategy")
    if c.unknown is None or not users:
        return None
    return (
        f"strategy '{users[0].name}' asks clients for the class of their rows, but some clients do not annotate every "
        "class and could not answer; leave data.labels and partition=annotated_subsets out"
    )


def held_out_losses_of_unknown_labels(c: Combination) -> str | None:
    """Losses summed by class, of rows whose class is unknown."""
    users = c.having("tau_rule", "calibration")
    if c.unknown not in _UNKNOWN_MEANS or not users:
        return None
    return (
        f"calibration.{users[0].name}.tau={users[0].flags['tau_rule']} sums losses of held-out rows by their class, "
        "and some of these labels are unknown; give tau as a number"
    )


def weighting_of_unknown_labels(c: Combination) -> str | None:
    """A weighting computed from each client's counts, which do not cover every class."""
    users = c.having("needs_prior")
    if c.unknown not in _UNKNOWN_MEANS or c.weighting not in ("effective", "arrived") or not users:
        return None
    return (
        f"{users[0].kind} '{users[0].name}' uses prior.weighting={c.weighting}, computed from each client's counts, "
        "which do not cover the classes that it does not annotate; set prior.weighting=data"
    )
