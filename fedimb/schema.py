"""The schema of a configuration: types and ranges of all settings of the platform (pydantic, strict, frozen).

Arguments of parts (e.g. a loss's gamma) are plain mappings here: their types are in the part's signature, against which
`fedimb.config.validate` checks them. Numbers are strict: ``"3"`` and ``true`` are not integers, but ``3`` is accepted
as a float.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from fedimb.plain import Settings
from fedimb.registry.targets import is_path

STUDY = r"^[A-Za-z0-9][A-Za-z0-9 _.\-]*$"
ROW_NAME = r"^[^/\\\n]+$"
KIND = re.compile(r"[A-Za-z0-9_\-]+")
MODEL, SHARED = "model", "shared"
"""The kind of clients that train the run's ``model``, and what weights of all kinds are called: no kind's own name."""
PATTERNS = {
    STUDY: "expected letters, digits, spaces and _ . - only, beginning with a letter or digit",
    ROW_NAME: "expected a name without slashes",
}
"""What a text that does not match a pattern should be."""


class Strict(BaseModel):
    """Base model: unknown keys are refused, only int is coerced (to float), no NaN or infinity, read-only."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _named(value: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        raise PydanticCustomError("named", "a mapping with a name")
    return value


def private_rule(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a parameter or buffer of this name stays at the client (``clients.private``).

    Example:
        >>> private = private_rule(["head", "*.norm*"])
        >>> [private(name) for name in ("head.weight", "header.weight", "body.norm1.bias", "body.0.weight")]
        [True, False, True, False]
    """
    rules = tuple(patterns)

    def private(name: str) -> bool:
        return any(name == one or name.startswith(f"{one}.") or fnmatch.fnmatchcase(name, one) for one in rules)

    return private


def _by_client(value: Any) -> Any:
    """Keys as text: YAML reads client ids as numbers."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value


class SiteModels(Strict):
    """Networks that differ between clients. Clients that are given none of ``kinds`` train the run's ``model``.

    ``kinds``: name -> a model with its settings; ``at``: site or client id -> kind; ``shares``: kind -> fraction of the
    clients, drawn from the run's seed; one of the two. ``average``: ``kind`` averages weights among clients of the same
    kind; ``alike`` also averages, over all clients, the first layers that all kinds have alike.
    """

    kinds: dict[str, Annotated[Settings, BeforeValidator(_named)]] = Field(min_length=1)
    at: Annotated[dict[str, str] | None, BeforeValidator(_by_client)] = None
    shares: dict[str, Annotated[float, Field(gt=0, le=1)]] | None = None
    average: Literal["kind", "alike"] = "kind"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Refuse names that cannot be a folder's or are taken, kinds that are not there, and both or none of the ways
        to give them out."""
        for name in self.kinds:
            if not KIND.fullmatch(name) or name in (MODEL, SHARED):
                raise PydanticCustomError(
                    "kinds",
                    "kinds named by letters, digits, _ and -, and not '{model}' or '{shared}'; not '{name}'",
                    {"name": name, "model": MODEL, "shared": SHARED},
                )
        if (self.at is None) == (self.shares is None):
            raise PydanticCustomError("kinds", "either at (site or client id: kind) or shares (kind: fraction)")
        given = list((self.at or {}).values()) or list(self.shares or {})
        if other := [kind for kind in given if kind not in self.kinds and kind != MODEL]:
            raise PydanticCustomError(
                "kinds",
                "only kinds that clients.models.kinds has, or '{model}'; '{name}' is not one",
                {"name": other[0], "model": MODEL},
            )
        if unused := [kind for kind in self.kinds if kind not in given]:
            raise PydanticCustomError("kinds", "a client for every kind; '{name}' has none", {"name": unused[0]})
        if sum((self.shares or {}).values()) > 1 + 1e-9:
            raise PydanticCustomError("kinds", "shares that add up to at most 1")
        return self


class ClientsConfig(Strict):
    """The clients, their simulated failures, and bounds on what one of them can do to a round.

    Fractions and probabilities in [0, 1], times in seconds. ``max_weight_share``: largest share of one client in a
    mean, a sum or a score; ``max_update_ratio``: largest norm of an update, in medians of the round's norms. Both from
    three replies on; null: no bound. ``max_value_ratio``: largest value in a reply that is summed, in units of the
    array's largest one sent, or of 1 (`fedimb.sums`); a reply above it is not used. ``models``: networks of their own
    (null: all train ``model``); ``private``: parameters and buffers that stay at each client, by name, beginning
    (``head``) or pattern (``*.norm*``). ``regions``: number of sites of each region, which answers with their sum, in
    client-id order (null: clients answer themselves); ``min_members``: sites that a region's sum is over at least. The
    defaults serve older configurations without them.
    """

    count: int = Field(ge=1)
    participation: float = Field(gt=0, le=1)
    availability: float = Field(gt=0, le=1)
    dropout: float = Field(ge=0, lt=1)
    slow: float = Field(ge=0, le=1)
    slow_delay_s: float = Field(ge=0)
    deadline_s: Annotated[float, Field(gt=0)] | None
    min_reply_fraction: float = Field(ge=0, le=1)
    max_weight_share: Annotated[float, Field(gt=0, le=1)] | None = None
    max_update_ratio: Annotated[float, Field(ge=1)] | None = None
    max_value_ratio: float = Field(default=64.0, ge=1, le=2.0**20)
    models: SiteModels | None = None
    private: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    regions: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)] | None = None
    min_members: int = Field(default=3, ge=2)


class ScheduleConfig(Strict):
    """How a learning rate changes over the rounds; its factors are `fedimb.training.schedules.schedule_factor`.

    ``milestones`` (rounds) and ``gamma`` belong to ``step``, ``gamma`` to ``exponential`` and ``final`` to ``cosine``;
    ``warmup`` (rounds) and ``start`` to all. ``gamma``, ``final`` and ``start`` are factors on the learning rate.
    """

    name: Literal["constant", "step", "exponential", "cosine"] = "constant"
    milestones: list[Annotated[int, Field(ge=1)]] | None = None
    gamma: Annotated[float, Field(gt=0, le=1)] | None = None
    final: Annotated[float, Field(ge=0, le=1)] | None = None
    warmup: int = Field(default=0, ge=0)
    start: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Refuse what the named schedule does not read, or lacks."""
        reads = {"constant": (), "step": ("milestones", "gamma"), "exponential": ("gamma",), "cosine": ("final",)}
        needs = {"step": ("milestones", "gamma"), "exponential": ("gamma",)}
        for key in ("milestones", "gamma", "final"):
            given = getattr(self, key) is not None
            if given and key not in reads[self.name]:
                raise _schedule_error(f"no {key} with name={self.name}, which does not read it; set it to null")
            if not given and key in needs.get(self.name, ()):
                raise _schedule_error(f"{key} with name={self.name}")
        if self.milestones is not None and self.milestones != sorted(set(self.milestones)):
            raise _schedule_error("milestones in rising order, each once")
        if self.milestones == []:
            raise _schedule_error("a milestone with name=step, or name=constant")
        if (self.start is None) != (self.warmup == 0):
            raise _schedule_error("warmup and start together: rounds of warm-up, and the factor of the first of them")
        return self

    @property
    def constant(self) -> bool:
        """Whether it never changes the learning rate."""
        return self.name == "constant" and self.warmup == 0


def _schedule_error(expected: str) -> PydanticCustomError:
    return PydanticCustomError("schedule", "{expected}", {"expected": expected})


def _scheduled(value: Any) -> Any:
    """A schedule by its name alone, as in ``local.schedule=cosine``."""
    return {"name": value} if isinstance(value, str) else value


Schedule = Annotated[ScheduleConfig, BeforeValidator(_scheduled)]


Precision = Literal["float32", "bf16"]
"""Arithmetic of local training (`fedimb.training.precision`)."""


class LocalConfig(Strict):
    """Local training. ``epochs`` are passes over the client's original view.

    The defaults of ``nesterov`` and of what follows serve older configurations without them.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    optimizer: Literal["sgd", "adam"]
    lr: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    augmentation: list[Any]
    nesterov: bool = False
    decay_exempt: list[Literal["norm", "bias"]] = Field(default_factory=list)
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    precision: Precision = "float32"
    schedule: Schedule = ScheduleConfig()


class PriorConfig(Strict):
    """Which class counts losses and calibrations use, how they are weighted, and how the server gets them.

    ``epsilon``, ``delta`` and ``clip`` (rows per patient; null: each row is protected) are settings of ``dp_sum``.
    """

    view: Literal["train", "real"]
    weighting: Literal["data", "effective", "arrived"]
    provenance: Literal["none", "local", "clear_sum", "secure_sum", "dp_sum", "estimated", "oracle"]
    epsilon: float = Field(gt=0, le=100)
    delta: float = Field(gt=0, lt=1)
    clip: Annotated[int, Field(ge=1)] | None


class PrivacyConfig(Strict):
    """Clipping and noise of each client's update. The defaults serve older configurations without this section.

    ``clip`` is the largest L2 norm of an update, ``noise`` x ``clip`` the standard deviation of the noise on the sum
    over the cohort, ``delta`` the delta at which epsilon is reported.
    """

    clip: Annotated[float, Field(gt=0)] | None = None
    noise: float = Field(default=0.0, ge=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)


class EvaluationConfig(Strict):
    """When and how models are scored. ``every`` and ``last_k`` in rounds, ``bootstrap`` in resamples (0: no intervals).

    ``secure``: clients send no confusion matrices in the clear; if the server has no test rows, they are summed masked.
    ``subgroup_floor``: fewest people of a shown cell of ``data.subgroups``; null: all are shown (not in a deployment).
    ``temperature``: clients send the final model's log loss on validation rows at 37 temperatures, summed masked.
    """

    every: int = Field(ge=1)
    last_k: int = Field(ge=1)
    bootstrap: int = Field(ge=0)
    secure: bool = False
    subgroup_floor: Annotated[int, Field(ge=3)] | None = None
    temperature: bool = False


class CheckpointConfig(Strict):
    """``every``: rounds between checkpoints."""

    every: int = Field(ge=1)


class RunPolicy(Strict):
    """``on_suspect``: what a run does that ends without having learned: ``warn``, or ``fail`` (exit code 3).

    The default serves older configurations without this section.
    """

    on_suspect: Literal["warn", "fail"] = "warn"


def _modelled(value: Any) -> Any:
    if not isinstance(value, dict) or "_target_" not in value:
        return _named(value)
    path = value["_target_"]
    if "name" in value or not isinstance(path, str) or not is_path(path):
        raise PydanticCustomError("modelled", "either a name or a class, as in {_target_: my_module.MyNet}")
    return {"name": path, **{key: item for key, item in value.items() if key != "_target_"}}


def _sourced(value: Any) -> Any:
    if not isinstance(value, dict):
        raise PydanticCustomError("sourced", "a mapping with source.name")
    try:
        _named(value.get("source"))
    except PydanticCustomError:
        raise PydanticCustomError("sourced", "a mapping with source.name") from None
    return value


def _chosen(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        raise PydanticCustomError("chosen", "at least one name")
    for name, args in value.items():
        if not isinstance(args, dict | None):
            raise PydanticCustomError(
                "chosen",
                "arguments for '{name}', a mapping (its YAML starts with '# @package <group>.<name>')",
                {"name": str(name)},
            )
    return {name: args or {} for name, args in value.items()}


def _aggregator(value: Any) -> Any:
    """``objectives`` was called ``terms`` in fedimb 0.1: old run folders, study plans and YAML files still say so."""
    value = _named(value)
    if "terms" not in value:
        return value
    if "objectives" in value:
        raise PydanticCustomError("renamed", "objectives alone ('terms' is its old name)")
    return {"objectives" if key == "terms" else key: item for key, item in value.items()}


Part = Annotated[Settings, BeforeValidator(_named)]
Aggregator = Annotated[Settings, BeforeValidator(_aggregator)]
Model = Annotated[Settings, BeforeValidator(_modelled)]
Parts = Annotated[dict[str, Settings], BeforeValidator(_chosen)]  # in order: outermost first
Data = Annotated[Settings, BeforeValidator(_sourced)]


class RunConfig(Strict):
    """The configuration of one run. Every setting is present; defaults are in ``configs/config.yaml`` only."""

    data: Data
    partition: Part
    model: Model
    strategy: Parts
    aggregator: Aggregator
    loss: Part
    sampler: Part
    calibration: Parts
    explanation: Parts = {"none": {}}
    engine: Part
    tracking: Part
    seed: int = Field(ge=0, lt=2**63)
    rounds: int = Field(ge=1)
    name: Annotated[str, Field(pattern=ROW_NAME)] | None
    study: str = Field(pattern=STUDY)
    output_dir: str = Field(min_length=1)
    clients: ClientsConfig
    local: LocalConfig
    prior: PriorConfig
    aggregation_weight: Literal["auto", "view", "real", "original", "uniform"]
    evaluation: EvaluationConfig
    privacy: PrivacyConfig = PrivacyConfig()
    attack: Part = Field(default_factory=lambda: {"name": "none"})
    resampler: Part = Field(default_factory=lambda: {"name": "none"})
    pace: Part = Field(default_factory=lambda: {"name": "sync"})
    checkpoint: CheckpointConfig
    run: RunPolicy = RunPolicy()
    server_schedule: Schedule = ScheduleConfig()


def calibration_part(key: str) -> str:
    """The part behind a key of ``calibration``: ``la_post:2`` is a second ``la_post`` with other arguments."""
    return key.partition(":")[0]
