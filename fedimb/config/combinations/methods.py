"""Strategies inside one another, and what a strategy does itself or leaves out."""

from fedimb.config.combinations.base import Combination


def method_brings_its_loss(c: Combination) -> str | None:
    """A strategy that trains with a loss of its own, and another loss."""
    users, others = c.having("own_loss", "strategy"), [p for p in c.parts if p.kind == "loss" and p.name != "ce"]
    if not users or not others:
        return None
    part = users[0]
    return (
        f"strategy '{part.name}' with {part.flags['own_loss']} trains with its own loss and cannot use "
        f"loss '{others[0].name}'; set loss=ce, or leave {part.flags['own_loss'].partition('=')[0]} out"
    )


def method_brings_its_aggregator(c: Combination) -> str | None:
    """A strategy that aggregates itself, and another aggregator."""
    users, others = c.having("own_aggregator", "strategy"), [p for p in c.parts if p.kind == "aggregator"]
    if not users or all(part.name == "fedavg" for part in others):
        return None
    return (
        f"strategy '{users[0].name}' aggregates the clients' weights itself and cannot use aggregator "
        f"'{others[0].name}'; set aggregator=fedavg"
    )


def moves_what_is_not_trained(c: Combination) -> str | None:
    """A strategy that leaves a part of the model untrained in some rounds, and what moves that part nevertheless."""
    users = c.having("freezes", "strategy")
    if not users:
        return None
    moving = [p for p in c.parts if p.kind == "aggregator" and (p.flags.get("server_lr") or p.flags.get("moves_alone"))]
    about = f"strategy '{users[0].name}' {users[0].flags['freezes']}, and "
    if moving:
        return f"{about}aggregator '{moving[0].name}' goes on moving it at the server; use aggregator=fedavg"
    return f"{about}privacy.noise would be added to it; use privacy.noise=0" if c.noise else None


def attack_without_training(c: Combination) -> str | None:
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


def not_linear(c: Combination) -> str | None:
    """A part that works on the merged update, and an aggregator that needs each client's."""
    users = c.having("needs_merged")
    others = [p for p in c.parts if p.kind == "aggregator" and not p.flags.get("linear")]
    if not users or not others:
        return None
    return (
        f"{users[0].kind} '{users[0].name}' works on the merged update, but aggregator '{others[0].name}' "
        "needs each client's update; use a linear aggregator such as fedavg"
    )


def two_cycles(c: Combination) -> str | None:
    """Two strategies that repeat in cycles."""
    cycling = c.having("cycles", "strategy")
    if len(cycling) < 2:
        return None
    return f"strategy '{cycling[0].name}' and strategy '{cycling[1].name}' both repeat in cycles; at most one may"


def labels_not_queried_yet(c: Combination) -> str | None:
    """An outer strategy that reads labels which an inner one has yet to ask for."""
    for outer, inner in c.nested():
        if outer.flags.get("reads_labels") and inner.flags.get("asks_for_labels"):
            return (
                f"strategy '{outer.name}' needs the class of every row, but outside strategy '{inner.name}' it "
                f"would run before any row is labelled; use strategy=[{inner.name},{outer.name}]"
            )
    return None


def runs_its_rounds_alone(c: Combination) -> str | None:
    """A strategy that runs its rounds itself, with another inside."""
    for outer, inner in c.nested():
        if outer.flags.get("innermost"):
            swapped = f"use strategy=[{inner.name},{outer.name}]"
            remedy = "remove one of them" if inner.flags.get("innermost") else swapped
            return (
                f"strategy '{outer.name}' runs its rounds itself and cannot have strategy '{inner.name}' inside; "
                f"{remedy}"
            )
    return None


def choice_without_effect(c: Combination) -> str | None:
    """An outer choice of rows that undoes an inner one."""
    for outer, inner in c.nested():
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
