"""What virtual clients (``partition=virtual``), drawn when they are asked, cannot do: refused before data are read."""

from collections.abc import Iterator

from fedimb import registry
from fedimb.data.groups import SplitConfig
from fedimb.errors import ConfigError
from fedimb.schema import RunConfig, calibration_part

MOST_AT_ONCE = 2**20
"""Virtual clients that may be asked in a round: the server keeps a reply for each."""

_ASKS_ALL = ("clear_sum", "secure_sum", "dp_sum")


def check_virtual(config: RunConfig) -> None:
    """Refuse what needs a figure of every client, where there may be a hundred million that nobody stores.

    Raises:
        ConfigError: the setting, why, and what to set instead.
    """
    if not registry.flags("partition", config.partition["name"]).get("virtual"):
        return
    if reason := next(_reasons(config), None):
        raise ConfigError(f"partition={config.partition['name']}: {reason}")


def _reasons(config: RunConfig) -> Iterator[str]:
    clients, data = config.clients, config.data
    asked = int(clients.participation * clients.count + 0.5)
    if asked > MOST_AT_ONCE:
        yield (
            f"clients.participation={clients.participation:g} asks {asked:,} of {clients.count:,} clients in a round; "
            f"give a fraction of at most {MOST_AT_ONCE / clients.count:.2g}, such as {50 / clients.count:.2g} for 50"
        )
    for name in config.strategy:
        if not registry.flags("strategy", name).get("cohorts_only"):
            fitting = [
                other for other in registry.names("strategy") if registry.flags("strategy", other).get("cohorts_only")
            ]
            yield f"strategy '{name}' may ask every client; use strategy={' or '.join(fitting)}"
    if clients.models is not None or clients.private:
        key = "clients.private" if clients.models is None else "clients.models"
        yield f"{key} keeps a model of each client, and virtual clients keep nothing; leave it out"
    if registry.flags("pace", config.pace["name"]).get("paced") or config.pace.get("clock"):
        yield f"pace={config.pace['name']} plans the times of all clients; use pace=sync without its clock"
    yield from _asked_of_all(config)
    if data.get("validation"):
        yield f"data.validation={data['validation']}: virtual clients hold no validation rows; set data.validation=0"
    if data.get("labels"):
        yield "data.labels: virtual clients annotate every class; leave it out"
    if data.get("normalize") == "pooled":
        yield "data.normalize=pooled is a mean over all clients; give {mean: [...], deviation: [...]}, or null"
    if SplitConfig.parse(data.get("split")).clients:
        yield "data.split.clients=true: virtual clients have rows in common; set data.split.clients=false"
    if config.partition.get("minority_placement"):
        yield "minority_placement moves rows between clients, and virtual clients share them; set it to null"
    if config.engine["name"] == "flower":
        yield "engine=flower starts a node for each client; use engine=ray or engine=inline"


def _asked_of_all(config: RunConfig) -> Iterator[str]:
    prior = config.prior.provenance
    kinds = [("loss", config.loss["name"]), *(("strategy", name) for name in config.strategy)]
    kinds += [("calibration", calibration_part(name)) for name in config.calibration]
    users = [(kind, name) for kind, name in kinds if registry.flags(kind, name).get("needs_prior")]
    if users and prior in _ASKS_ALL:
        kind, name = users[0]
        yield (
            f"{kind} '{name}' needs class counts, and prior.provenance={prior} asks every client; set "
            "prior.provenance=oracle (the counts of 1,000 drawn clients), estimated or local"
        )
    if config.prior.weighting == "arrived":
        yield "prior.weighting=arrived adds up the class counts of clients one by one; use data, uniform or effective"
    for key, args in config.calibration.items():
        if rule := registry.get("calibration", calibration_part(key)).set_to(args or {}).flags.get("tau_rule"):
            yield f"calibration.{key}.tau={rule} trains on parts of every client's rows; give tau as a number"
    if config.evaluation.temperature:
        yield "evaluation.temperature=true sums a figure of every client; set it to false"
    if explanations := [name for name in config.explanation if name != "none"]:
        yield f"explanation '{explanations[0]}' asks every client; use explanation=none"
    if config.attack["name"] != "none":
        yield f"attack={config.attack['name']} draws attackers from a list of all clients; use attack=none"
    if config.privacy.noise:
        yield "privacy.noise: the ledger of what was spent has an entry for each client; set privacy.noise=0"
