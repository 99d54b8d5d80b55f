"""A configuration as text, hash, parameters and row label. Needs neither Hydra nor OmegaConf."""

import hashlib
import json
import re
from typing import Any

from fedimb.data.groups import SplitConfig
from fedimb.data.label_spaces import LabelsConfig
from fedimb.errors import ConfigError
from fedimb.plain import Settings
from fedimb.schema import RunConfig, ScheduleConfig, calibration_part
from fedimb.sums import VALUE_RATIO

ORDERED = (
    "strategy",
    "calibration",
    "explanation",
)  # their order matters: outermost method first, rows as configured
NO_INFLUENCE = ("engine", "tracking", "output_dir", "name", "study", "checkpoint", "run")  # on a run's numbers

_LATER: dict[str, Settings] = {
    "tabular_csv": {"missing": [], "decimal": ".", "thousands": None},
    "npz": {"divide_by": None},
}
"""Settings that a source got after configurations of it were hashed, with the defaults under which nothing changes."""

_LATER_MODEL: dict[str, Settings] = {
    name: {"attention": "none", "fusion": False, "anchor": None}
    for name in ("resnet8", "resnet18", "resnet20", "resnet34")
}
"""The same of models."""
_LATER_LOCAL: Settings = {
    "nesterov": False,
    "decay_exempt": [],
    "max_grad_norm": None,
    "label_smoothing": 0.0,
    "precision": "float32",
}
"""The same of local training."""


def to_json(config: RunConfig) -> str:
    """Canonical text: keys sorted, except that methods and calibrations keep their order."""
    return json.dumps(_canonical(config.model_dump()), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _canonical(tree: Settings) -> Settings:
    return {
        key: {name: _sorted(args) for name, args in value.items()} if key in ORDERED else _sorted(value)
        for key, value in sorted(tree.items())
    }


def _sorted(node: object) -> object:
    if isinstance(node, dict):
        return {str(key): _sorted(node[key]) for key in sorted(node, key=str)}
    return [_sorted(item) for item in node] if isinstance(node, list | tuple) else node


def from_json(text: str) -> RunConfig:
    """Read what `to_json` wrote, validated again against the parts installed here.

    Raises:
        ConfigError: not JSON, or not a valid configuration for this installation.
    """
    from fedimb.config.validate import validate

    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"the configuration is not JSON: {error}; send what to_json wrote") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"the configuration is JSON but holds a {type(tree).__name__}: send what to_json wrote")
    return validate(tree)


def config_sha(config: RunConfig) -> str:
    """sha256 (hex) of what determines the numbers: equal for runs that must agree (bit for bit if the trainer is the
    same).

    Where clients run (including ``engine.trainer``, which changes rounding), tracking, names and folders are left out.
    2 and 2.0 count as the same value.
    """
    tree = {key: value for key, value in config.model_dump().items() if key not in NO_INFLUENCE}
    _as_first_hashed(tree)
    text = json.dumps(_integral(_canonical(tree)), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _as_first_hashed(tree: Settings) -> None:
    """Remove later settings that this configuration does not use and restore first names: old hashes stay valid."""
    if tree["privacy"]["clip"] is None and not tree["privacy"]["noise"]:
        del tree["privacy"]
    for kind in ("attack", "resampler"):
        if tree[kind]["name"] == "none":
            del tree[kind]
    if tree["pace"]["name"] == "sync" and not tree["pace"].get("clock"):
        del tree["pace"]
    if not set(tree["explanation"]) - {"none"}:
        del tree["explanation"]
    for later, unset in _LATER_MODEL.get(tree["model"]["name"], {}).items():
        if tree["model"].get(later) == unset:
            tree["model"] = {key: value for key, value in tree["model"].items() if key != later}
    tree["data"].pop("accept", None)  # what the user knows of the data changes no number
    normalize = tree["data"].pop("normalize", None)
    if normalize is not None:  # pooled numbers follow from the data
        pooled = isinstance(normalize, dict) and "from" in normalize
        tree["data"] = tree["data"] | {"normalize": normalize["from"] if pooled else normalize}
    if LabelsConfig.parse(tree["data"].get("labels")) == LabelsConfig():
        tree["data"].pop("labels", None)
    if not tree["data"].get("subgroups"):
        tree["data"].pop("subgroups", None)
    if tree["evaluation"]["subgroup_floor"] is None:
        del tree["evaluation"]["subgroup_floor"]
    source = tree["data"].get("source")
    if isinstance(source, dict) and source.get("name") in _LATER:
        for key, default in _LATER[source["name"]].items():
            if source.get(key, default) == default:
                source.pop(key, None)
    if not tree["evaluation"]["temperature"]:
        del tree["evaluation"]["temperature"]
    if not tree["evaluation"]["secure"]:
        del tree["evaluation"]["secure"]
    for later in ("max_weight_share", "max_update_ratio"):
        if tree["clients"][later] is None:
            del tree["clients"][later]
    if tree["clients"]["max_value_ratio"] == VALUE_RATIO:
        del tree["clients"]["max_value_ratio"]
    for later in ("models", "private"):
        if not tree["clients"][later]:
            del tree["clients"][later]
    if tree["clients"]["regions"] is None:
        del tree["clients"]["regions"], tree["clients"]["min_members"]
    if "split" in tree["data"] and SplitConfig.parse(tree["data"]["split"]) == SplitConfig():
        tree["data"] = {key: value for key, value in tree["data"].items() if key != "split"}
    tree["data"] = {key: value for key, value in tree["data"].items() if key != "about"}  # words about the data
    source = tree["data"]["source"]
    if source["name"] == "dicom" and source.get("frames", "") is None:
        tree["data"]["source"] = {key: value for key, value in source.items() if key != "frames"}
    for later, unset in _LATER_LOCAL.items():
        if tree["local"][later] == unset:
            del tree["local"][later]
    for owner, key in ((tree["local"], "schedule"), (tree, "server_schedule")):
        if ScheduleConfig.model_validate(owner[key]).constant:
            del owner[key]
    for name, args in tree["calibration"].items():
        if calibration_part(name) == "la_post" and (args or {}).get("min_count") == 0:
            tree["calibration"] = tree["calibration"] | {name: {k: v for k, v in args.items() if k != "min_count"}}
    if "objectives" in tree["aggregator"]:  # hashed under its first name
        tree["aggregator"]["terms"] = tree["aggregator"].pop("objectives")


def _integral(node: object) -> object:
    if isinstance(node, dict):
        return {key: _integral(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_integral(item) for item in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node


def flatten(config: RunConfig) -> dict[str, str | int | float | bool]:
    """Dotted parameters for MLflow: scalars; lists as JSON, null and parts without arguments as text."""
    flat: dict[str, str | int | float | bool] = {}

    def walk(node: Any, key: str) -> None:
        if isinstance(node, dict) and node:
            for inner, value in node.items():
                walk(value, f"{key}.{inner}" if key else inner)
        elif isinstance(node, dict | list | tuple):
            flat[key] = json.dumps(_sorted(node), ensure_ascii=False)
        else:
            flat[key] = "null" if node is None else node

    tree = _canonical(config.model_dump())
    tree["data"].pop("about", None)  # paragraphs, which no run is compared by
    walk(tree, "")
    return flat


def row_label(config: RunConfig, calibration: str) -> str:
    """What distinguishes this row in a table: its non-default parts joined by ``+``, or the given name.

    Args:
        calibration: the one of ``config.calibration`` whose scores the row holds.
    """
    weights = config.aggregation_weight
    parts = [_method_label(name, args) for name, args in config.strategy.items() if name != "plain"]
    parts += [config.aggregator["name"]] if config.aggregator["name"] != "fedavg" else []
    parts += [weights if weights == "uniform" else f"weights_{weights}"] if weights != "auto" else []
    parts += [config.loss["name"]] if config.loss["name"] != "ce" else []
    parts += [config.sampler["name"]] if config.sampler["name"] != "shuffle" else []
    parts += [config.resampler["name"]] if config.resampler["name"] != "none" else []
    parts += [config.pace["name"]] if config.pace["name"] != "sync" else []
    parts += ["exposure"] if config.pace.get("correction") == "exposure" else []
    parts += ["arrived_prior"] if config.prior.weighting == "arrived" else []
    parts += [f"clip_{config.privacy.clip:g}"] if config.privacy.clip is not None else []
    parts += [f"noise_{config.privacy.noise:g}"] if config.privacy.noise else []
    if (models := config.clients.models) is not None:
        parts += [f"{len(models.kinds)}_more_networks{'_alike' if models.average == 'alike' else ''}"]
    parts += _private_label(config)
    if config.attack["name"] != "none":
        parts += [f"{config.attack['name']}_{config.attack['fraction']:g}"]
    if config.name is not None:
        parts = [config.name]
    part, tau = calibration_part(calibration), (config.calibration.get(calibration) or {}).get("tau")
    parts += [f"{part}@{tau}" if isinstance(tau, str) else part] if part != "none" else []
    return " ".join(["+".join(parts) or "fedavg", *_distinct_arguments(config, calibration)])


def run_label(config: RunConfig) -> str:
    """The label of a run's first row, without arguments that tell it from the run's other rows: for a folder's name."""
    key = next(iter(config.calibration))
    return row_label(config.model_copy(update={"calibration": {key: config.calibration[key]}}), key)


def _distinct_arguments(config: RunConfig, calibration: str) -> list[str]:
    """The arguments that tell a calibration from others of the same part in one run."""
    part, own = calibration_part(calibration), config.calibration.get(calibration) or {}
    if isinstance(own.get("tau"), str):
        return []  # the rule tells it apart
    others = [args for key, args in config.calibration.items() if calibration_part(key) == part and key != calibration]
    others = [args for args in others if not isinstance((args or {}).get("tau"), str)]
    return [
        f"calibration.{part}.{name}={value}"
        for name, value in sorted(own.items())
        if any(args.get(name) != value for args in others)
    ]


def _private_label(config: RunConfig) -> list[str]:
    """What stays at each client, unless a method of the run implies it; without characters that shells read."""
    from fedimb import registry

    if not config.clients.private or any(registry.flags("strategy", n).get("needs_private") for n in config.strategy):
        return []
    named = [re.sub(r"[^\w.\-]", "", one) or "all" for one in config.clients.private]
    return [f"private_{'_'.join(named)}"]


def _method_label(name: str, args: dict[str, object]) -> str:
    """A method's name, with the name of the rule it runs if the rule is what matters (flag ``labelled_by``)."""
    from fedimb import registry

    rules = [value for value in args.values() if isinstance(value, dict) and "name" in value]
    if not rules:
        return name
    rule = args.get(str(registry.flags("strategy", name).get("labelled_by")))
    return f"{name}_{rule['name']}" if rule in rules else name
