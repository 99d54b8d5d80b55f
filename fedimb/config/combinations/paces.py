"""What does not go with a clock, or without rounds."""

from fedimb import registry
from fedimb.config.combinations.base import Combination
from fedimb.config.combinations.site_models import own_models, whose


def training_without_rounds(c: Combination) -> str | None:
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


def objective_without_rounds(c: Combination) -> str | None:
    """An objective whose client keeps its update, or sends what is computed from it, as of the newest version."""
    paces = c.having("asynchronous", "pace")
    others = c.having("keeps_update", "objective") + c.having("sends", "objective")
    if not paces or not others:
        return None
    return (
        f"pace '{paces[0].name}' has no rounds, and objective '{others[0].name}' needs what the server makes of a "
        "client's update before the client trains again; leave it out, or use pace=sync"
    )


def attack_without_rounds(c: Combination) -> str | None:
    """Attacks begin in a round, and attackers meet in it."""
    paces = c.having("asynchronous", "pace")
    others = [part for part in c.parts if part.kind == "attack" and part.name != "none"]
    if not paces or not others:
        return None
    return (
        f"pace '{paces[0].name}' has no rounds, in which attack '{others[0].name}' would begin and attackers meet; use "
        "pace=sync, or attack=none"
    )


def noise_and_pace(c: Combination) -> str | None:
    """The accounting assumes that all who are asked answer."""
    paces = c.having("paced", "pace")
    if not c.noise or not paces:
        return None
    return (
        f"privacy.noise is accounted for rounds in which every client asked counts, and with pace '{paces[0].name}' "
        "not all do; use pace=sync, or privacy.noise=0"
    )


def pace_of_other_models(c: Combination) -> str | None:
    """The clock has no times for a model beside the classifier."""
    paces, others = c.having("paced", "pace"), c.having("other_models", "strategy")
    if not paces or not others:
        return None
    return (
        f"pace '{paces[0].name}' counts the time of rounds of the classifier, and strategy '{others[0].name}' trains "
        "another model too, which would take none; use pace=sync"
    )


def pace_of_own_models(c: Combination) -> str | None:
    """The clock knows one network, and updates without rounds are differences to weights that all clients share."""
    own = own_models(c)
    paces = c.having("asynchronous", "pace") if own else []
    if paces:
        return (
            f"pace '{paces[0].name}' has no rounds: what arrives is added to weights that all clients share, and "
            f"{whose(c)} leaves some that they do not; use pace=sync"
        )
    paces = c.having("paced", "pace") if "kinds" in own else []
    if not paces:
        return None
    return (
        f"pace '{paces[0].name}' plans how long clients take for the run's one network, and clients.models gives some "
        "another; use pace=sync"
    )
