"""What does not go with models that clients do not share: ``clients.models``, ``clients.private``."""

from fedimb import registry
from fedimb.config.combinations.base import Combination


def own_models(c: Combination) -> frozenset[str]:
    """What clients do not share, as configured or as a method needs it."""
    return c.own_models | ({"private"} if c.having("needs_private", "strategy") else set())


def whose(c: Combination) -> str:
    """The setting by which clients do not share a whole model."""
    return "clients.models" if "kinds" in c.own_models else "clients.private"


def own_head(c: Combination) -> bool:
    """Whether the layer whose logits a class prior shifts stays at each client."""
    kept = [name for part in c.having("needs_private", "strategy") for name in part.flags["needs_private"]]
    return "head" in c.own_models or any(name in ("head", "*") for name in kept)


def method_of_one_model(c: Combination) -> str | None:
    """A method must say that it works without one global model: flag ``own_models``, of ``kinds`` and ``private``."""
    wanted = own_models(c) & {"kinds", "private"}
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


def method_of_private_parts(c: Combination) -> str | None:
    """A strategy that keeps parts of each model at its client, which the configuration does not."""
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


def aggregator_of_whole_updates(c: Combination) -> str | None:
    """Arrays that are averaged over different clients, or some not at all, need an aggregator that takes each alone."""
    if not own_models(c) & {"alike", "private"}:
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


def one_model_needed(c: Combination) -> str | None:
    """What reads the weights or predictions of one global model."""
    if not own_models(c):
        return None
    key = whose(c)
    if c.temperature and not c.having("fuses_models", "strategy"):
        return f"evaluation.temperature measures the temperature of one model; set it to false, or leave {key} out"
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


def corrects_own_heads(c: Combination) -> bool:
    """Whether calibrations correct each site's own head by the class counts that this site trained it on."""
    return own_head(c) and c.provenance == "local" and not c.having("fuses_models", "strategy")


def _calibration_of_own_models(c: Combination, calibration: str) -> str | None:
    """Why a calibration that reads class counts has none that are right for the sites' own models."""
    start = f"calibration '{calibration}' corrects every model by the class counts of all clients together, and"
    if fusing := c.having("fuses_models", "strategy"):
        return f"{start} strategy '{fusing[0].name}' teaches its one model on rows of its own; use calibration=none"
    if own_head(c):
        if not corrects_own_heads(c):
            return (
                f"{start} with {whose(c)} a head is trained on those of its own site; set prior.provenance=local (each "
                "head is corrected by its site's counts), or use calibration=none"
            )
        if c.unknown is not None:
            return (
                f"calibration '{calibration}' with prior.provenance=local corrects each site's head by the site's "
                "counts, which do not cover the classes that it does not annotate; use calibration=none"
            )
        return None
    return (
        f"{start} with {whose(c)} a model is trained on those of its own clients; use calibration=none, or keep heads "
        "at their sites too (clients.private=[head], prior.provenance=local)"
    )


def pooled_prior_of_own_models(c: Combination) -> str | None:
    """The class counts of all clients are not those that a site's own head, or a kind's network, was trained on."""
    if "kinds" not in c.own_models and not own_head(c):
        return None
    if users := c.having("needs_prior", "calibration"):
        return _calibration_of_own_models(c, users[0].name)
    users = c.having("needs_prior", "loss", "objective")
    if c.provenance in (None, "none", "local") or not users:
        return None
    return (
        f"{users[0].kind} '{users[0].name}' would get the class counts of all clients together "
        f"(prior.provenance={c.provenance}), and with {whose(c)} a model is trained on those of its own clients; set "
        "prior.provenance=local"
    )


def bounds_over_different_networks(c: Combination) -> str | None:
    """Bounds and noise over a cohort whose updates are of different networks."""
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
