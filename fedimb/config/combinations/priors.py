"""Where class counts are needed and the configured prior does not give them, or gives others."""

from fedimb.config.combinations.base import Combination
from fedimb.config.combinations.site_models import corrects_own_heads


def prior_missing(c: Combination) -> str | None:
    """A part that needs class counts, and none are gathered."""
    if c.provenance != "none" or not (users := c.having("needs_prior")):
        return None
    return (
        f"{users[0].kind} '{users[0].name}' needs class counts, but prior.provenance is none; "
        "set prior.provenance=clear_sum (or local, oracle)"
    )


def prior_stays_at_the_clients(c: Combination) -> str | None:
    """A calibration runs at the server, which does not see local counts."""
    if c.provenance != "local" or not (users := c.having("needs_prior", "calibration")) or corrects_own_heads(c):
        return None
    return (
        f"calibration '{users[0].name}' runs at the server, which has no class counts with prior.provenance=local; "
        "set prior.provenance=clear_sum (or oracle)"
    )


def weighting_needs_each_clients_counts(c: Combination) -> str | None:
    """A weighting computed from each client's counts, of which the server sees less: it would change nothing."""
    if c.weighting not in ("effective", "arrived"):
        return None
    hidden = {
        "secure_sum": "only the sum over clients",
        "dp_sum": "only the sum over clients",
        "estimated": "only the merged head",
        "local": "nothing",
    }
    if c.provenance not in hidden or not (users := c.having("needs_prior")):
        return None
    return (
        f"{users[0].kind} '{users[0].name}' uses prior.weighting={c.weighting}, computed from each client's counts, "
        f"but prior.provenance={c.provenance} shows the server {hidden[c.provenance]}; set prior.weighting=data"
    )


def prior_of_arrivals_of_other_rows(c: Combination) -> str | None:
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


def prior_of_one_label_per_row(c: Combination) -> str | None:
    """Class counts that are protected or estimated as of one label per row, of data with several."""
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
