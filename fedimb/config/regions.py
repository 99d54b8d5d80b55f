"""What regions (``clients.regions``), which answer with sums over sites, cannot carry: refused before any work."""

from collections.abc import Iterator

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.schema import RunConfig, calibration_part


def check_regions(config: RunConfig) -> None:
    """Refuse what needs a figure of a single site, where the server hears of sums over a region's sites alone.

    Raises:
        ConfigError: the setting, why, and what to set instead.
    """
    if config.clients.regions is None:
        return
    if reason := next(_reasons(config), None):
        raise ConfigError(f"clients.regions={config.clients.regions}: {reason}")


def at_sites(config: RunConfig) -> RunConfig:
    """The same run as a region's sites have it: their coordinator is the region, and they know of no other."""
    clients = config.clients.model_copy(update={"regions": None})
    return config.model_copy(update={"clients": clients})


def first_site(regions: list[int], region: int) -> int:
    """Client id of a region's first site: ids are those of one federation of all sites.

    Example:
        >>> [first_site([2, 3, 2], region) for region in range(3)]
        [0, 2, 5]
    """
    return sum(regions[:region])


def _reasons(config: RunConfig) -> Iterator[str]:
    clients, regions = config.clients, config.clients.regions or []
    if sum(regions) != clients.count:
        yield (
            f"these are {sum(regions)} sites, but clients.count={clients.count} is the number of all sites; set "
            f"clients.count={sum(regions)}"
        )
    if (least := min(regions)) < clients.min_members:
        yield (
            f"a region of {least} sites never has the {clients.min_members} that its sum must be over "
            f"(clients.min_members); set clients.min_members={least}, or make larger regions"
        )
    for kind, name in [("aggregator", config.aggregator["name"]), *(("strategy", name) for name in config.strategy)]:
        if not registry.flags(kind, name).get("from_sum"):
            fitting = [other for other in registry.names(kind) if registry.flags(kind, other).get("from_sum")]
            yield (
                f"{kind} '{name}' needs updates, figures or states of single sites, and a region sends sums alone; use "
                f"{kind}={' or '.join(fitting)}"
            )
    for one in config.aggregator.get("objectives") or []:
        flags = registry.flags("objective", one["name"])
        if flags.get("keeps_state") or flags.get("sends"):
            yield (
                f"objective '{one['name']}' keeps a state at each site, whose version the server would have to know, "
                "or sends more than weights; leave it out, or use aggregator=fedavg"
            )
    yield from _figures_of_sites(config)
    yield from _masked(config)
    if clients.models is not None or clients.private:
        key = "clients.private" if clients.models is None else "clients.models"
        yield f"{key} makes models differ by site, and a region adds up one model; leave it out"
    if config.attack["name"] != "none":
        yield f"attack={config.attack['name']} changes replies of single clients at the server; use attack=none"
    if registry.flags("pace", config.pace["name"]).get("paced") or config.pace.get("clock"):
        yield f"pace={config.pace['name']} plans the times of all sites; use pace=sync without its clock"
    if registry.flags("partition", config.partition["name"]).get("virtual"):
        yield f"partition={config.partition['name']} draws clients that nobody lists; use another partition"
    if registry.flags("partition", config.partition["name"]).get("phased"):
        yield (
            f"partition={config.partition['name']} shows each site the rows of one phase at a time, and a region does "
            "not follow the phases of its sites; use another partition"
        )


def _figures_of_sites(config: RunConfig) -> Iterator[str]:
    clients, data = config.clients, config.data
    for key in ("max_weight_share", "max_update_ratio"):
        if getattr(clients, key) is not None:
            yield (
                f"clients.{key}={getattr(clients, key):g} bounds single clients, whose updates the server does not "
                f"see; set clients.{key}=null"
            )
    if config.prior.weighting in ("effective", "arrived"):
        yield (
            f"prior.weighting={config.prior.weighting} is made of each site's counts, and a region sends their sum; "
            "set prior.weighting=data"
        )
    if data.get("labels") or registry.flags("partition", config.partition["name"]).get("annotates"):
        yield "sites that annotate different classes have counts of their own; leave data.labels out"
    if data.get("subgroups") and data["test"]["name"] == "none":
        yield (
            "data.subgroups with data.test={name: none} hides small groups by what each site reports; leave "
            "data.subgroups out, or use another data.test"
        )
    if explanations := [name for name in config.explanation if name != "none"]:
        yield f"explanation '{explanations[0]}' asks every site; use explanation=none"
    for key, args in config.calibration.items():
        if rule := registry.get("calibration", calibration_part(key)).set_to(args or {}).flags.get("tau_rule"):
            yield f"calibration.{key}.tau={rule} trains on parts of every site's rows; give tau as a number"


def _masked(config: RunConfig) -> Iterator[str]:
    """Masks cancel in a sum over the clients that the server lists; a region's sites are not listed there."""
    if config.prior.provenance in ("secure_sum", "dp_sum"):
        yield (
            f"prior.provenance={config.prior.provenance} masks figures between the sites that the server lists, and it "
            "lists regions; set prior.provenance=clear_sum, whose counts leave a region as a sum"
        )
    if config.evaluation.secure:
        yield (
            "evaluation.secure=true masks figures between the sites that the server lists, and it lists regions; set "
            "it to false: matrices leave a region as a sum"
        )
    if config.evaluation.temperature:
        yield "evaluation.temperature=true masks figures between the sites that the server lists; set it to false"
    if config.privacy.noise:
        yield "privacy.noise is split among the clients that the server lists, and it lists regions; set it to 0"
