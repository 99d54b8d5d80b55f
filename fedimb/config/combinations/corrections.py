"""A class prior is corrected for once: not in training and again after it, nor on logits of another prior."""

from fedimb.config.combinations.base import Combination


def double_correction(c: Combination) -> str | None:
    """A loss or strategy that corrects in training, and a calibration that does so again."""
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


def double_correction_in_training(c: Combination) -> str | None:
    """An objective whose correction is in the predictions, and a loss that leaves it out of the logits already."""
    objectives, losses = c.having("adjusts_logits", "objective"), c.having("adjusts_logits", "loss")
    if not objectives or not losses:
        return None
    return (
        f"double correction: objective '{objectives[0].name}' and loss '{losses[0].name}' both correct the logits for "
        "the class prior; use one of them, such as loss=ce"
    )


def corrected_teacher(c: Combination) -> str | None:
    """A head that corrects its logits in evaluation only: a teacher's are corrected, those it teaches are not yet."""
    heads = [part for part in c.having("head_kind", "model") if part.flags["head_kind"] == "npe"]
    teaching = c.having("distils", "objective")
    if not heads or not teaching:
        return None
    return (
        f"double correction: objective '{teaching[0].name}' teaches the received model's logits, which model.head=npe "
        "has corrected for the class prior, to logits that it will correct again; use model.head=linear"
    )


def temperature_of_no_posterior(c: Combination) -> str | None:
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


def temperature_of_a_hard_decision(c: Combination) -> str | None:
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


def temperature_with_noise(c: Combination) -> str | None:
    """Losses of held-out rows are summed without noise."""
    if not c.noise or not (users := c.having("tau_rule", "calibration")):
        return None
    return (
        f"calibration.{users[0].name}.tau={users[0].flags['tau_rule']} trains on most rows again for every fold and "
        "sums their losses without noise, which the epsilon of privacy.noise does not cover; give tau as a number"
    )
