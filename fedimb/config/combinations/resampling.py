"""What counts or chooses rows itself, beside a resampler that changes them."""

from fedimb.config.combinations.base import Combination


def resampler_with_a_method(c: Combination) -> str | None:
    """Methods have rows, labels and counts of their own, of which a resampler knows nothing."""
    users = c.having("resamples", "resampler")
    others = [part for part in c.parts if part.kind == "strategy" and part.name != "plain"]
    if not users or not others:
        return None
    return (
        f"resampler '{users[0].name}' changes the rows that clients train on, which strategy '{others[0].name}' "
        "chooses or counts itself; use strategy=plain, or resampler=none"
    )


def resampler_and_counts(c: Combination) -> str | None:
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
