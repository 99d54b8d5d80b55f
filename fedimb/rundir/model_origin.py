"""What a model's predictions need beside its weights: the rows it was trained on, its calibrations, its classes."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb import registry
from fedimb.data.federation import Federation
from fedimb.data.inputs import Inputs, TableColumns, has_colour, value_range
from fedimb.data.row_settings import row_settings
from fedimb.data.store import ATTRIBUTES
from fedimb.errors import DataError, FedimbError
from fedimb.plain import JsonObject, Settings
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.new_data import PATHS
from fedimb.rundir.stored import read_config, read_federation
from fedimb.schema import RunConfig, calibration_part


@dataclass(frozen=True)
class Origin:
    """The run behind a model.

    Attributes:
        inputs: what its rows looked like.
        source: settings of their source, without its paths if the run folder is not there.
        calibrations: name -> settings, in the run's order.
        prior_counts: class counts [C] for calibrations; None if none reads them, or an older folder kept none.
        minority: class ids.
        task: ``multiclass`` or ``multilabel``.
        seed: of the run, from which a calibration draws.
    """

    inputs: Inputs
    source: Settings = field(default_factory=dict)
    calibrations: dict[str, Settings] = field(default_factory=lambda: {"none": {}})
    prior_counts: NDArray[np.float64] | None = None
    minority: tuple[int, ...] = ()
    task: str = "multiclass"
    seed: int = 0

    def facts(self) -> JsonObject:
        """As plain values, for JSON."""
        return {
            "inputs": self.inputs.facts(),
            "source": {key: value for key, value in self.source.items() if key not in (*PATHS, "labels", "events")},
            "calibration": self.calibrations,
            "prior_counts": None if self.prior_counts is None else self.prior_counts.tolist(),
            "minority": list(self.minority),
            "seed": self.seed,
        }

    @staticmethod
    def from_facts(facts: JsonObject) -> "Origin":
        """Inverse of `facts`, from all of model.json. An older file gives the shape alone."""
        task = facts.get("task", "multiclass")
        if "inputs" not in facts:
            return Origin(Inputs(tuple(facts["input_shape"]), ""), task=task)
        counts = facts["prior_counts"]
        inputs = Inputs.from_facts(facts["inputs"])
        if not inputs.row_settings and inputs.dtype:  # an older file says them among the settings of the source
            inputs = replace(inputs, row_settings=row_settings(facts["source"]))
        return Origin(
            inputs,
            facts["source"],
            facts["calibration"],
            None if counts is None else np.array(counts, dtype=np.float64),
            tuple(facts["minority"]),
            task,
            facts.get("seed", 0),
        )


def origin_of(config: RunConfig, federation: Federation, counts: NDArray[Any] | None) -> Origin:
    """The origin of a run's model, where it was trained.

    Args:
        counts: the class counts that calibrations had in the last round.
    """
    needed = any(
        registry.flags("calibration", calibration_part(name)).get("needs_prior", False) for name in config.calibration
    )
    return Origin(
        inputs_of(federation),
        dict(config.data["source"]),
        {name: dict(args or {}) for name, args in config.calibration.items()},
        None if counts is None or not needed else np.asarray(counts, dtype=np.float64),
        tuple(federation.minority),
        federation.task,
        config.seed,
    )


def inputs_of(federation: Federation) -> Inputs:
    """What the rows of a federation look like. Of a deployment, whose rows are elsewhere, the shape is known, and
    what its sites tell: names, rate, and how they read them."""
    try:
        store = federation.store
    except DataError:
        return _told(federation)
    columns = store.columns
    if (
        columns is None and store.scaled is not None and store.signal is None
    ):  # prepared by an earlier version, which kept no names
        columns = _columns_of(federation)
    low, high = (None, None) if store.scaled is not None else value_range(store.x, [federation.train.rows])
    colour = has_colour(store.x, federation.train.rows)
    about = (store.label_names, store.signal, store.encoder, row_settings(federation.source))
    return Inputs(store.input_shape, str(store.x.dtype), low, high, columns, colour, *about)


def _told(federation: Federation) -> Inputs:
    """What a deployment's sites have told of their rows. Columns without categories and marks are known by name."""
    shape, agreed = tuple(federation.input_shape), federation.agreed
    columns = None if agreed is None else agreed.found([TableColumns(agreed.names)])
    if columns is not None and (len(columns.inputs),) != shape:
        columns = agreed = None  # made up
    return Inputs(
        shape,
        "",
        columns=columns,
        signal=federation.signal,
        encoder=federation.embedded_by,
        row_settings=federation.read_with,
        agreed=agreed if columns is None else None,
    )


def _columns_of(federation: Federation) -> Any:
    args = {key: value for key, value in federation.source.items() if key not in ("name", "on_bad", ATTRIBUTES)}
    given = {"on_bad": federation.source.get("on_bad", "refuse")}
    try:
        source = registry.build("source", str(federation.source["name"]), given=given, **args)
        return source.load().columns if source.fingerprint() == federation.fingerprint else None
    except FedimbError:  # its files are gone: a table cannot be matched by name then, and is refused with the reason
        return None


def completed(origin: Origin, folder: Path) -> Origin:
    """The origin with what the run folder adds: all of it for an older run, else the paths of the source."""
    run = RunFolder.open(folder)
    config = read_config(run)
    source = dict(config.data["source"])
    if origin.inputs.dtype:
        return replace(origin, source=source)
    federation = read_federation(run)
    result = run.read_json("result.json", {})
    counts = (result.get("prior") or {}).get("counts")
    prior = None if counts is None else np.array(counts, dtype=np.float64)
    try:
        inputs = inputs_of(federation)
    except DataError:
        inputs = origin.inputs
    calibrations = {name: dict(args or {}) for name, args in config.calibration.items()}
    return Origin(inputs, source, calibrations, prior, tuple(federation.minority), origin.task, config.seed)
