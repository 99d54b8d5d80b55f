"""What does not go with classes that arrive in phases."""

from fedimb import registry
from fedimb.config.combinations.base import Combination


def phases_of_the_data(c: Combination) -> str | None:
    """A strategy that trains phases needs a partition which says what they are; pairs of the matrix have none."""
    users, dealt = c.having("phased", "strategy"), [p for p in c.parts if p.kind == "partition"]
    if not users or not dealt or c.having("phased", "partition"):
        return None
    return (
        f"strategy '{users[0].name}' trains phases, and partition '{dealt[0].name}' has none; set "
        f"partition=class_incremental 'partition.rows={{name: {dealt[0].name}, ...}}'"
    )


def phases_and_other_methods(c: Combination) -> str | None:
    """Around phases nobody may train or choose, and within one only who keeps to its rows: flag ``any_phase``."""
    for outer, inner in c.nested():
        phased = outer if outer.flags.get("phased") else inner
        other = inner if phased is outer else outer
        if not phased.flags.get("phased") or (phased is outer and other.flags.get("any_phase")):
            continue
        if other.flags.get("any_phase"):
            return (
                f"strategy '{phased.name}' trains its phases one after the other and must be the outer one; use "
                f"strategy=[{phased.name},{other.name}]"
            )
        entries = [registry.get("strategy", name) for name in registry.names("strategy")]
        fitting = ", ".join(one.name for one in entries if one.flags.get("any_phase"))
        return (
            f"strategy '{phased.name}' shows clients the rows of one phase at a time, and strategy '{other.name}' may "
            f"read or count rows of others; remove one of them (inside it: {fitting})"
        )
    return None


def phases_and_pace(c: Combination) -> str | None:
    """The clock plans a client's time by all of its rows."""
    users, paces = c.having("phased", "strategy"), c.having("paced", "pace")
    if not users or not paces:
        return None
    return (
        f"pace '{paces[0].name}' plans how long clients take by all of their rows, and strategy '{users[0].name}' "
        "trains on those of one phase; use pace=sync"
    )


def phases_and_temperature(c: Combination) -> str | None:
    """A temperature is found once, on held-out rows of all classes; a phased model is of the last phase's prior."""
    users, rules = c.having("phased", "strategy"), c.having("tau_rule", "calibration")
    if not users or not rules:
        return None
    return (
        f"calibration.{rules[0].name}.tau={rules[0].flags['tau_rule']} scales logits to the posterior of all rows, and "
        f"strategy '{users[0].name}' trains them on the last phase's; give tau as a number"
    )


def phases_and_oracle(c: Combination) -> str | None:
    """The oracle's counts are of all rows, whatever the phase; an estimate by the head is of the phase before."""
    users, reading = c.having("phased", "strategy"), c.having("needs_prior")
    if c.provenance not in ("oracle", "estimated") or not users or not reading:
        return None
    got = "the class counts of all rows" if c.provenance == "oracle" else "counts estimated by the phase before"
    return (
        f"{reading[0].kind} '{reading[0].name}' would get {got} (prior.provenance={c.provenance}), and strategy "
        f"'{users[0].name}' trains on the rows of one phase at a time; set prior.provenance=clear_sum"
    )


def phases_and_weight(c: Combination) -> str | None:
    """A client without rows of the phase does not train, and must not count."""
    users = c.having("phased", "strategy")
    if c.weight != "original" or not users:
        return None
    return (
        f"aggregation_weight=original weighs a client by all of its rows, and strategy '{users[0].name}' trains on "
        "those of one phase, of which it may have none; set aggregation_weight=view"
    )


def objective_of_phases(c: Combination) -> str | None:
    """An objective that tells old classes from new ones."""
    users = c.having("needs_phases", "objective")
    if not users or c.having("phased", "strategy") or not any(p.kind == "strategy" for p in c.parts):
        return None
    return (
        f"objective '{users[0].name}' tells classes of earlier phases from new ones, and without phases all are new; "
        f"use strategy=class_incremental, or the objective '{users[0].flags['needs_phases']}'"
    )
