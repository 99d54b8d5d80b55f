"""From a composed dictionary to a `RunConfig`, or to a one-line error: where, what is wrong, and a remedy."""

import math
from typing import Any, get_args

from fedimb import registry
from fedimb.config.combinations import Combination, refusal
from fedimb.config.engine_settings import check_engine
from fedimb.config.protocol import check_protocol
from fedimb.config.regions import check_regions
from fedimb.config.virtual import check_virtual
from fedimb.errors import ConfigError, nearest
from fedimb.plain import Settings
from fedimb.registry.targets import is_path
from fedimb.schema import PATTERNS, ClientsConfig, RunConfig, calibration_part, private_rule

# Arguments that fedimb passes itself when it builds a part: not settable in YAML, and not missing when absent there.
GIVEN: dict[str, tuple[str, ...]] = {
    "source": ("on_bad", "attributes"),
    "partition": ("patients", "sites", "site_names"),
    "model": ("n_classes", "input_shape"),
    "loss": ("n_classes", "prior", "local_counts", "round", "rounds", "label_sets"),
    "sampler": (),
    "resampler": ("categories",),
    "objective": (),
    "augmentation": ("input_shape",),
    "calibration": ("prior", "minority", "seed"),
    "aggregator": ("n_clients", "seed"),
    "attack": ("known",),
    "pace": (),
    "explanation": (),
    "strategy": ("inner",),
    "client": (),
    "encoder": ("input_shape", "n_rows", "labels"),
    "coreset": (),
    "query": (),
    "generator": ("n_classes", "n_domains", "shape", "class_names", "seed"),
}


def validate(raw: Settings) -> RunConfig:
    """Check structure, ranges, every part's arguments and the combination, without building anything.

    Args:
        raw: the result of `fedimb.config.compose.compose`, or the same read from JSON.

    Returns:
        The configuration with part arguments converted to the types in their signatures (2 -> 2.0 for a float).

    Raises:
        ConfigError: one line with the dotted key, the value, what was expected and the nearest valid name.
    """
    from fedimb.data.config import DataConfig

    config = _shaped(raw)
    DataConfig.parse(config.data)
    if is_path(config.model["name"]) and config.engine["name"] not in ("inline", "ray"):
        raise ConfigError(
            f"model '{config.model['name']}' is a class that exists on this machine only: use engine=inline or "
            "engine=ray, or install it everywhere as a package with an entry point fedimb.model"
        )
    check_engine(config.engine)
    parts: list[registry.Entry] = []
    checked: Settings = {"data": config.data | {"source": _part("source", config.data["source"], parts)}}
    checked["partition"] = _partition(config.partition, config.clients.count, parts)
    for kind in ("model", "loss", "sampler", "resampler", "attack", "pace"):
        checked[kind] = _part(kind, getattr(config, kind), parts)
    augmentation = _list("augmentation", "local.augmentation", config.local.augmentation, parts)
    checked["clients"] = _clients(config.clients, parts)
    checked["local"] = config.local.model_copy(update={"augmentation": augmentation})
    checked["aggregator"] = _aggregator(config.aggregator, parts)
    checked["strategy"] = {n: _strategy(n, args, parts) for n, args in config.strategy.items()}
    checked["calibration"] = {
        key: _arguments("calibration", calibration_part(key), args, parts) for key, args in config.calibration.items()
    }
    checked["explanation"] = {n: _arguments("explanation", n, args, parts) for n, args in config.explanation.items()}
    if reason := refusal(_combination(config, tuple(parts))):
        raise ConfigError(f"refused combination: {reason}")
    config = config.model_copy(update=checked)
    check_protocol(config)
    check_virtual(config)
    check_regions(config)
    return config


def parts_of(config: RunConfig) -> tuple[registry.Entry, ...]:
    """Every registered part a validated configuration names."""
    named = [("source", config.data["source"]), ("partition", config.partition)]
    kinds = ("model", "loss", "sampler", "resampler", "aggregator", "attack", "pace")
    named += [(kind, getattr(config, kind)) for kind in kinds]
    named += [("augmentation", part) for part in config.local.augmentation]
    named += [("objective", part) for part in config.aggregator.get("objectives") or []]
    parts = [registry.get(kind, part["name"]).set_to(part) for kind, part in named]
    own = {} if config.clients.models is None else config.clients.models.kinds
    parts += [registry.get("model", model["name"]).set_to(model) for model in own.values()]
    parts += [registry.get("strategy", name).set_to(args or {}) for name, args in config.strategy.items()]
    return (*parts, *calibrations_of(config))


def calibrations_of(config: RunConfig) -> tuple[registry.Entry, ...]:
    """The calibrations of a validated configuration in its order, each with the flags of its settings."""
    return tuple(
        registry.get("calibration", calibration_part(name)).set_to(args or {})
        for name, args in config.calibration.items()
    )


def check_task(config: RunConfig, task: str, unknown: str | None = None) -> None:
    """Refuse parts that do not support the data's task or its unknown labels, known only once the data are read.

    Args:
        config: a validated configuration.
        task: ``multiclass`` or ``multilabel``.
        unknown: what becomes of unknown labels, if there are some (`Federation.unknown_rule`).

    Raises:
        ConfigError: names the part and the ones that would fit.
    """
    if reason := refusal(_combination(config, parts_of(config), task, unknown)):
        raise ConfigError(f"refused combination: {reason}")


def _combination(
    config: RunConfig, parts: tuple[registry.Entry, ...], task: str | None = None, unknown: str | None = None
) -> Combination:
    prior, privacy = config.prior, config.privacy
    weight = config.aggregation_weight
    given = prior.provenance, prior.weighting, task, privacy.clip, privacy.noise, weight, prior.view
    return Combination(parts, *given, unknown, _own_models(config), config.evaluation.temperature)


def _own_models(config: RunConfig) -> frozenset[str]:
    """What a configuration's clients do not share: see `fedimb.config.combinations.Combination.own_models`."""
    clients = config.clients
    found = {"private"} if clients.private else set()
    private = private_rule(clients.private)
    if private("head.weight") or private("head.bias") or any(name.startswith("head.") for name in clients.private):
        found.add("head")
    if clients.models is not None:
        found |= {"kinds"} | ({"alike"} if clients.models.average == "alike" else set())
    bounds = clients.max_weight_share is not None or clients.max_update_ratio is not None
    return frozenset(found | ({"bounds"} if found and bounds else set()))


def _shaped(raw: Settings) -> RunConfig:
    import pydantic

    _finite(raw)
    try:
        return RunConfig.model_validate(raw)
    except pydantic.ValidationError as error:
        raise ConfigError(_explain(error.errors()[0], raw)) from None


def _explain(problem: Any, raw: Settings) -> str:
    """One of pydantic's errors in terms of the configuration: setting, value, what was expected."""
    path = [str(step) for step in problem["loc"]]
    key, value, kind = ".".join(path), problem["input"], problem["type"]
    context = problem.get("ctx", {})
    if kind == "extra_forbidden":
        valid = _fields(path[:-1])
        return f"no setting '{key}'.{nearest(path[-1], valid)}"
    if kind == "missing":
        return f"'{key}' is missing: give it a value with {key}=..."
    if kind == "literal_error":
        valid = [option.strip().strip("'") for option in context["expected"].replace(" or ", ", ").split(",")]
        guess = nearest(str(value), valid)
        shown = guess if guess.startswith(" Valid") else f"{guess} Valid: {', '.join(valid)}."
        return f"{key}={_shown(value)}: not a valid name.{shown}"
    return f"{key}={_shown(value)}: expected {_expected(kind, context, problem['msg'])}"


def _expected(kind: str, context: Settings, message: str) -> str:
    bounds = {
        "greater_than_equal": "at least {ge}",
        "greater_than": "more than {gt}",
        "less_than_equal": "at most {le}",
        "less_than": "less than {lt}",
        "int_type": "an integer",
        "float_type": "a number",
        "finite_number": "a finite number",
        "string_type": "text (quote a number: key=\"'3'\")",
        "string_too_short": "non-empty text",
        "string_pattern_mismatch": PATTERNS.get(context.get("pattern", ""), message).removeprefix("expected "),
        "dict_type": "a mapping",
        "model_type": "a mapping of settings; set them one by one: key.setting=value",
    }
    return bounds[kind].format(**context) if kind in bounds else message


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields(path: list[str]) -> list[str]:
    """Names of the schema's settings at a path."""
    model: Any = RunConfig
    for step in path:
        annotation = model.model_fields[step].annotation
        model = next((a for a in (annotation, *get_args(annotation)) if hasattr(a, "model_fields")), None)
    return list(model.model_fields)


def _finite(node: object, key: str = "") -> None:
    if isinstance(node, float) and not math.isfinite(node):
        raise ConfigError(f"{key}={node}: expected a finite number")
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for inner, value in items:
        _finite(value, f"{key}.{inner}" if key else str(inner))


def _part(kind: str, config: Settings, parts: list[registry.Entry]) -> Settings:
    args = {key: value for key, value in config.items() if key != "name"}
    return {"name": config["name"], **_arguments(kind, config["name"], args, parts)}


def _partition(config: Settings, clients: int, parts: list[registry.Entry]) -> Settings:
    """A partitioner and the settings that then place the minority classes."""
    from fedimb.data.placement import KEYS, Placement

    placement, rest = Placement.split(config)
    placement.holders(clients)
    return _part("partition", rest, parts) | {key: config[key] for key in KEYS if key in config}


def _arguments(kind: str, name: str, args: Settings, parts: list[registry.Entry]) -> Settings:
    from pydantic_core import to_jsonable_python

    entry = registry.get(kind, name)
    plain: Settings = to_jsonable_python(registry.check_args(kind, name, args, given=GIVEN[kind]))
    parts.append(entry.set_to(plain))
    return plain


def _aggregator(config: Settings, parts: list[registry.Entry]) -> Settings:
    """An aggregator and the local objectives its clients need."""
    checked = _part("aggregator", {k: v for k, v in config.items() if k != "objectives"}, parts)
    if "objectives" not in config:
        return checked
    return checked | {"objectives": _list("objective", "aggregator.objectives", config["objectives"], parts)}


def _list(kind: str, key: str, given: object, parts: list[registry.Entry]) -> list[Settings]:
    """Parts that are applied in order: names, or mappings with a name."""
    named = [{"name": one} if isinstance(one, str) else one for one in given] if isinstance(given, list) else [None]
    if not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in named):
        raise ConfigError(f"{key}={_shown(given)}: expected a list of names, or of mappings with a name")
    return [_part(kind, one, parts) for one in named if one is not None]


def _clients(config: ClientsConfig, parts: list[registry.Entry]) -> ClientsConfig:
    """The clients, with the settings of each network of their own checked."""
    if config.models is None:
        return config
    for kind, model in config.models.kinds.items():
        if is_path(model["name"]):
            raise ConfigError(f"clients.models.kinds.{kind}: name a registered model, not a class")
    kinds = {kind: _part("model", model, parts) for kind, model in config.models.kinds.items()}
    return config.model_copy(update={"models": config.models.model_copy(update={"kinds": kinds})})


def _strategy(name: str, args: Settings, parts: list[registry.Entry]) -> Settings:
    """Both sides of a method: the server side names every argument, the client side those it uses."""
    checked = _arguments("strategy", name, args, parts)
    registry.check_args("client", name, registry.accepted("client", name, checked), given=GIVEN["client"])
    return checked
