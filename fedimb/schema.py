"""The shape of a configuration: types and ranges of every setting of the platform (pydantic, strict, frozen).

Arguments of parts (a loss's gamma) are plain mappings here: their types live in the part's own signature, and
`fedimb.config.validate` checks them there. Numbers are strict: ``"3"`` and ``true`` are no integers, while
``3`` may stand for a float.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from fedimb.registry.targets import is_path


class Strict(BaseModel):
    """Unknown keys refused, no coercion but int to float, no NaN or infinity, read-only."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ClientsConfig(Strict):
    """The simulated clients and their troubles. Fractions and probabilities in [0, 1], times in seconds."""

    count: int = Field(ge=1)
    participation: float = Field(gt=0, le=1)
    availability: float = Field(gt=0, le=1)
    dropout: float = Field(ge=0, lt=1)
    slow: float = Field(ge=0, le=1)
    slow_delay_s: float = Field(ge=0)
    deadline_s: Annotated[float, Field(gt=0)] | None
    min_reply_fraction: float = Field(ge=0, le=1)


class LocalConfig(Strict):
    """Local training. ``epochs`` are passes over the client's original view."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    optimizer: Literal["sgd", "adam"]
    lr: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    augmentation: list[Any]


class PriorConfig(Strict):
    """Whose class counts losses and calibrations see, how weighted, and how the server came by them.

    ``epsilon``, ``delta`` and ``clip`` (rows per patient; null: each row is protected) are those of ``dp_sum``.
    """

    view: Literal["train", "real"]
    weighting: Literal["data", "effective"]
    provenance: Literal["none", "local", "clear_sum", "secure_sum", "dp_sum", "estimated", "oracle"]
    epsilon: float = Field(gt=0, le=100)
    delta: float = Field(gt=0, lt=1)
    clip: Annotated[int, Field(ge=1)] | None


class PrivacyConfig(Strict):
    """Each client's update: ``clip`` is the most its L2 norm may be, ``noise`` x ``clip`` the deviation of the noise on
    the sum over the cohort, ``delta`` that of the epsilon stated. Defaults: configurations of before it had none.
    """

    clip: Annotated[float, Field(gt=0)] | None = None
    noise: float = Field(default=0.0, ge=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)


class EvaluationConfig(Strict):
    """``every`` and ``last_k`` in rounds, ``bootstrap`` in resamples (0: no intervals); ``secure``: clients send no
    confusion matrix of their own, and where the server has no test rows these are summed under masks.
    """

    every: int = Field(ge=1)
    last_k: int = Field(ge=1)
    bootstrap: int = Field(ge=0)
    secure: bool = False


class CheckpointConfig(Strict):
    """``every``: rounds between checkpoints."""

    every: int = Field(ge=1)


def _named(value: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        raise PydanticCustomError("named", "a mapping with a name")
    return value


def _modelled(value: Any) -> Any:
    if not isinstance(value, dict) or "_target_" not in value:
        return _named(value)
    path = value["_target_"]
    if "name" in value or not isinstance(path, str) or not is_path(path):
        raise PydanticCustomError("modelled", "a name or a class as in {_target_: my_module.MyNet}, one of the two")
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


Part = Annotated[dict[str, Any], BeforeValidator(_named)]
Aggregator = Annotated[dict[str, Any], BeforeValidator(_aggregator)]
Model = Annotated[dict[str, Any], BeforeValidator(_modelled)]
Parts = Annotated[dict[str, dict[str, Any]], BeforeValidator(_chosen)]  # in order: outermost first
Data = Annotated[dict[str, Any], BeforeValidator(_sourced)]


class RunConfig(Strict):
    """One run. Complete: every setting is present; defaults live in ``configs/config.yaml`` alone."""

    data: Data
    partition: Part
    model: Model
    strategy: Parts
    aggregator: Aggregator
    loss: Part
    sampler: Part
    calibration: Parts
    engine: Part
    tracking: Part
    seed: int = Field(ge=0, lt=2**63)
    rounds: int = Field(ge=1)
    name: Annotated[str, Field(pattern=r"^[^/\\\n]+$")] | None
    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.\-]*$")
    output_dir: str = Field(min_length=1)
    clients: ClientsConfig
    local: LocalConfig
    prior: PriorConfig
    aggregation_weight: Literal["auto", "view", "real", "original", "uniform"]
    evaluation: EvaluationConfig
    privacy: PrivacyConfig = PrivacyConfig()
    checkpoint: CheckpointConfig
