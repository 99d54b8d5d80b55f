"""Heads, losses and objectives that are made for one another."""

from fedimb.config.combinations.base import Combination


def two_heads(c: Combination) -> str | None:
    """A strategy that keeps a head of one kind, and a strategy that builds another."""
    for pair in c.nested():
        keeping = [part for part in pair if part.flags.get("needs_head", "linear") != "linear"]
        building = [part for part in pair if part.flags.get("builds_head") and part not in keeping]
        if keeping and building:
            return (
                f"strategy '{keeping[0].name}' keeps a head of kind {keeping[0].flags['needs_head']}, and strategy "
                f"'{building[0].name}' builds another; remove one of them"
            )
    return None


def term_of_another_loss(c: Combination) -> str | None:
    """A part that works with some losses only."""
    for part in c.having("needs_loss", "objective", "strategy", "model"):
        wanted = part.flags["needs_loss"]
        if any(p.kind == "loss" and p.name not in wanted for p in c.parts):
            return f"{part.kind} '{part.name}' works with loss {' or '.join(wanted)} only; use loss={wanted[0]}"
    return None


def head_of_another_kind(c: Combination) -> str | None:
    """A part made for one kind of head, and a model with another."""
    for part in c.having("needs_head", "strategy", "objective", "loss"):
        wanted = part.flags["needs_head"]
        if any(p.kind == "model" and p.flags.get("head_kind") != wanted for p in c.parts):
            return f"{part.kind} '{part.name}' needs a model with model.head={wanted}; set it"
    return None


def head_without_its_objective(c: Combination) -> str | None:
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


def head_that_is_not_its_weight(c: Combination) -> str | None:
    """A calibration that computes with the rows of a linear classifier, and another head."""
    owners, changing = c.having("own_head", "model", "strategy"), c.having("changes_head", "calibration")
    if not owners or not changing:
        return None
    part = owners[0]
    return (
        f"calibration '{changing[0].name}' computes with the rows of a linear classifier, but {part.kind} "
        f"'{part.name}' has {part.flags['own_head']}; use model.head=linear, or another calibration"
    )


def term_of_another_aggregator(c: Combination) -> str | None:
    """An objective that needs what one aggregator sends."""
    for objective in c.having("needs_aggregator", "objective"):
        wanted = objective.flags["needs_aggregator"]
        if any(p.kind == "aggregator" and p.name != wanted for p in c.parts):
            return f"objective '{objective.name}' needs what only aggregator '{wanted}' sends; use aggregator={wanted}"
    return None
