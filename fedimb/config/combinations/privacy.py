"""What ``privacy.clip`` and ``privacy.noise`` do not cover."""

from fedimb.config.combinations.base import Combination


def clip_without_updates(c: Combination) -> str | None:
    """A bound on updates where there are none: an epsilon would be stated of what never left."""
    idle = c.having("trains_no_client", "strategy")
    if (c.clip is None and not c.noise) or not idle:
        return None
    setting = "privacy.noise" if c.clip is None else "privacy.clip"
    return (
        f"{setting} is of clients' updates, and strategy '{idle[0].name}' with {idle[0].flags['trains_no_client']} "
        "trains no client, so it protects nothing; set privacy.clip=null privacy.noise=0"
    )


def noise_without_clip(c: Combination) -> str | None:
    """Noise in units of a norm that is not set."""
    if not c.noise or c.clip is not None:
        return None
    return "privacy.noise is in units of privacy.clip, which is null: set privacy.clip to a norm"


def noise_needs_equal_weights(c: Combination) -> str | None:
    """Noise calibrated for equal weights, and weights by rows."""
    if not c.noise or c.weight in (None, "uniform"):
        return None
    return (
        f"privacy.noise is calibrated for equal client weights, but aggregation_weight={c.weight} gives a client with "
        "more rows more weight; set aggregation_weight=uniform"
    )


def noise_needs_equal_clients(c: Combination) -> str | None:
    """Noise calibrated for equal weights, and a strategy that weighs clients."""
    if not c.noise or not (users := c.having("weighs_clients", "strategy")):
        return None
    return (
        f"privacy.noise is calibrated for equal client weights, but strategy '{users[0].name}' weighs clients by what "
        "they report; use another strategy, or privacy.noise=0"
    )


def noise_needs_the_mean(c: Combination) -> str | None:
    """Noise that hides the update of each client, and a part that works on it."""
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


def clip_and_what_a_term_sends(c: Combination) -> str | None:
    """An objective that keeps or sends what clipping then changes."""
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
