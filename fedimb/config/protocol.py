"""Settings of a training protocol that would have no effect, or another than they say: refused before anything runs."""

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.schema import RunConfig


def check_protocol(config: RunConfig) -> None:
    """Refuse optimiser settings and schedules that contradict each other, the aggregator or the number of rounds.

    Raises:
        ConfigError: the setting, why, and what to set instead.
    """
    local, aggregator = config.local, config.aggregator["name"]
    flags = registry.flags("aggregator", aggregator)
    if local.nesterov and (local.optimizer != "sgd" or not local.momentum):
        raise ConfigError(
            "local.nesterov=true is a kind of momentum of sgd: set local.optimizer=sgd and local.momentum above 0, or "
            "local.nesterov=false"
        )
    if local.nesterov and flags.get("heavy_ball"):
        raise ConfigError(
            f"aggregator '{aggregator}' computes with heavy-ball momentum, and local.nesterov=true is another; set "
            "local.nesterov=false"
        )
    if local.decay_exempt and not local.weight_decay:
        raise ConfigError(
            f"local.decay_exempt={local.decay_exempt} exempts from local.weight_decay, which is 0; set one of the two"
        )
    if not local.schedule.constant and flags.get("reads_local_lr"):
        raise ConfigError(
            f"aggregator '{aggregator}' computes with one local learning rate, but local.schedule changes it; set "
            "local.schedule=constant, or another aggregator"
        )
    if not config.server_schedule.constant and "server_lr" not in flags:
        having = [name for name in registry.names("aggregator") if "server_lr" in registry.flags("aggregator", name)]
        raise ConfigError(
            f"server_schedule is of the server's learning rate, and aggregator '{aggregator}' has none; use "
            f"aggregator={' or '.join(having)} (fedavgm with server_momentum=0 is FedAvg with one)"
        )
    _check_mirrors(config)
    _check_what_noise_covers(config)
    _check_pace(config)
    _check_rounds(config)
    _check_mixing(config)
    _check_views(config)


def _check_what_noise_covers(config: RunConfig) -> None:
    """Refuse noise on updates beside figures of patients without it, from which a method makes weights or picks rows.

    The epsilon that the run states is against someone who has every round's model, and such a model would hold more.
    """
    if not config.privacy.noise:
        return
    for name, args in config.strategy.items():
        contract = registry.build("contract", name).of(args or {})
        records = [*contract.train, *(record for query in contract.queries.values() for record in query)]
        if beside := [one.key for one in records if one.sensitivity in ("aggregate", "individual")]:
            raise ConfigError(
                f"privacy.noise is added to clients' updates, and strategy '{name}' uses {beside[0]} beside them, "
                "which the epsilon of the run would not cover; use a strategy that sends updates alone, or "
                "privacy.noise=0"
            )


def _check_mirrors(config: RunConfig) -> None:
    """Refuse an aggregator that computes with other local settings than the clients train by: a wrong number.

    Its YAML takes them over; ``aggregator.name=fednova`` or a value of one's own does not.
    """
    name = config.aggregator["name"]
    for argument, setting in registry.flags("aggregator", name).get("mirrors", {}).items():
        default = registry.parameters("aggregator", name)[argument].default
        given, local = config.aggregator.get(argument, default), getattr(config.local, setting)
        if given != local:
            raise ConfigError(
                f"aggregator '{name}' computes with {argument}={given}, and clients train with local.{setting}={local}"
                f"; choose it by aggregator={name}, which takes that over, or set aggregator.{argument}={local}"
            )


def _check_pace(config: RunConfig) -> None:
    """Refuse settings of clients and engines that a pace would not count, or that need rounds of the whole cohort."""
    name, clients = config.pace["name"], config.clients
    flags = registry.flags("pace", name)
    timed = config.pace.get("clock", name != "sync")
    if timed and clients.models is not None:
        raise ConfigError(
            f"pace '{name}' plans how long clients take for the run's one network, and clients.models gives some "
            "another; use pace=sync without its clock"
        )
    bounds = [key for key in ("max_weight_share", "max_update_ratio") if getattr(clients, key) is not None]
    if timed and clients.deadline_s is not None:
        raise ConfigError(
            f"clients.deadline_s={clients.deadline_s:g} is not on the clock of pace '{name}'; set it to null, and for "
            "a deadline use pace=deadline pace.after_s=..."
        )
    if flags.get("asynchronous") and bounds:
        raise ConfigError(
            f"clients.{bounds[0]}={getattr(clients, bounds[0]):g} compares the clients of a round, and pace '{name}' "
            "has none; set it to null, or use pace=sync"
        )
    if flags.get("asynchronous") and config.engine["name"] == "flower":
        raise ConfigError(f"pace '{name}' is simulated by fedimb's own engines; use engine=ray or inline, or pace=sync")
    if config.pace.get("probabilities") is not None:
        aggregator = config.aggregator["name"]
        if not registry.flags("aggregator", aggregator).get("any_pace"):
            raise ConfigError(
                f"pace.probabilities scales the mean update of a tier, and aggregator '{aggregator}' has none that can "
                "be scaled; set pace.probabilities=null, or use an aggregator such as fedavg"
            )
    if config.prior.weighting == "arrived" and clients.max_weight_share is not None:
        raise ConfigError(
            f"prior.weighting=arrived counts each update with its weight, which "
            f"clients.max_weight_share={clients.max_weight_share:g} may change; set one of the two to its default"
        )


def _check_mixing(config: RunConfig) -> None:
    """Refuse two augmentations that mix rows, or one before others: the labels would no longer be known."""
    names = [part["name"] for part in config.local.augmentation]
    mixing = [i for i, name in enumerate(names) if registry.flags("augmentation", name).get("mixes")]
    if mixing and mixing != [len(names) - 1]:
        raise ConfigError(
            f"local.augmentation={names}: '{names[mixing[0]]}' mixes rows and their labels, so it goes last, and alone "
            "of its kind"
        )


def _check_views(config: RunConfig) -> None:
    """Refuse what a method that compares two views of each row (flag ``two_views``) cannot use."""
    names = [part["name"] for part in config.local.augmentation]
    for name in config.strategy:
        if not (views := registry.flags("strategy", name).get("two_views")):
            continue
        if mixing := [one for one in names if registry.flags("augmentation", one).get("mixes")]:
            raise ConfigError(
                f"strategy '{name}' compares two views of each row, and augmentation '{mixing[0]}' mixes rows; leave "
                "it out of local.augmentation"
            )
        if views == "both" and not names:
            raise ConfigError(
                f"strategy '{name}' compares two draws of local.augmentation, which is empty, so that both would be "
                "the row itself; set e.g. local.augmentation=[{name: noise}] for tables, [{name: rand_augment}] for "
                "images"
            )
        if config.local.label_smoothing:
            raise ConfigError(
                f"strategy '{name}' adjusts the loss of its views itself, without local.label_smoothing="
                f"{config.local.label_smoothing:g}; set it to 0"
            )


def _check_rounds(config: RunConfig) -> None:
    """Refuse what would lie after the last round: it would never happen."""
    rounds, of = config.rounds, f"rounds={config.rounds}"
    for name, args in config.strategy.items():
        if registry.flags("strategy", name).get("cycles") and args.get("restart") and args.get("cycles"):
            rounds = max(1, config.rounds // int(args["cycles"]))
            of = f"the {rounds} rounds of a cycle of strategy '{name}', which begins with fresh weights"
    for key, schedule in (("local.schedule", config.local.schedule), ("server_schedule", config.server_schedule)):
        late = [milestone for milestone in schedule.milestones or () if milestone >= rounds]
        if late:
            raise ConfigError(f"{key}.milestones={schedule.milestones}: {late[0]} is not before the end of {of}")
        if schedule.warmup >= rounds:
            raise ConfigError(f"{key}.warmup={schedule.warmup}: the warm-up would not end before {of} do")
