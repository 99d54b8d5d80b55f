"""Calibrated scores of a finished run's model on a source's rows, as the run itself scored its test set."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fedimb import registry
from fedimb.config.load import row_label
from fedimb.data.federation import Federation
from fedimb.data.labels import none_class
from fedimb.data.store import Store, open_source
from fedimb.data.views import to_tensors
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.records import write_atomic
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.rundir.stored import read_config, read_federation
from fedimb.schema import RunConfig, calibration_part
from fedimb.training.calibrations.base import Outputs
from fedimb.training.forward import forward_batched

_CHUNK = 4096  # rows in memory at a time beside their features and logits


@dataclass(frozen=True)
class Scored:
    """What a model says of n rows.

    Attributes:
        rows: [n] int64 row numbers in the source.
        predicted: [n] int64 class ids: argmax of the calibrated logits. Where rows have several labels [n, C] bool:
            probability above .5.
        scores: [n, C] float32, softmax of the calibrated logits; rows sum to 1. Of several labels their sigmoids.
        labels: [n] int64 true class ids; -1 where the source knows none. Of several [n, C] uint8.
        calibration, label: its name, and the label of the run's row it belongs to.
        config: the run's configuration.
        source: what was scored, in words.
        class_names: one per class id.
        warnings: what a reader of the scores must know.
    """

    rows: np.ndarray
    predicted: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    calibration: str
    label: str
    config: RunConfig
    source: str
    class_names: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Whether rows have several labels."""
        return self.predicted.ndim == 2


def score(result: RunResult, source: dict[str, object] | None, calibration: str | None = None) -> Scored:
    """Score ``source`` (None: the run's own test rows) with a finished run's model.

    Args:
        calibration: one of the run's calibrations; None takes its first.

    Raises:
        ConfigError: the run has no such calibration.
        DataError: the data's classes, task or input shape are not the run's, or its folder lacks what the calibration
            needs.
    """
    folder = RunFolder.open(result.folder)
    config = read_config(folder)
    name = next(iter(config.calibration)) if calibration is None else calibration
    if name not in config.calibration:
        raise ConfigError(f"this run has no calibration '{name}'.{nearest(name, config.calibration)}")
    federation = read_federation(folder)
    store = federation.store if source is None else open_source(source)
    if store.task != result.task:
        raise DataError(
            f"the data are {store.task}, the run's are {result.task}: rows of one label, or of several, in both"
        )
    if store.targets is None:
        check_classes(store.class_names, result.class_names)
    if store.input_shape != federation.input_shape:
        raise DataError(
            f"a row of the data is {list(store.input_shape)}, the run's are {list(federation.input_shape)}: "
            "prepare the data as the run's were (columns, image size, grey or colour)"
        )
    rows, several = federation.test if source is None else np.arange(len(store)), store.targets is not None
    labels = fitted_targets(store, rows, result.class_names) if several else np.array(store.y[rows], dtype=np.int64)
    logits = _calibrated(result, store, rows, federation, config, name)
    return Scored(
        rows,
        (logits > 0 if several else logits.argmax(1)).numpy(),
        (logits.sigmoid() if several else logits.softmax(1)).numpy(),
        labels,
        name,
        row_label(config, name),
        config,
        "the run's own test set" if source is None else ", ".join(f"{k}={v}" for k, v in source.items()),
        tuple(result.class_names),
        tuple(_warnings(store, rows, federation)),
    )


def check_classes(given: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    """Refuse data whose class list is not the run's, name by name and in order: a score column means a class."""
    if tuple(given) == tuple(wanted):
        return
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    facts = [f"missing: {', '.join(missing)}"] if missing else []
    facts += [f"unknown to the run: {', '.join(unknown)}"] if unknown else []
    if not facts:
        at = next(i for i, (a, b) in enumerate(zip(given, wanted, strict=True)) if a != b)
        facts = [f"same names in another order: class {at} is '{given[at]}', in the run '{wanted[at]}'"]
    raise DataError(
        f"the data's classes are not the run's ({'; '.join(facts)}); give the run's class list, in its order"
    )


def fitted_targets(store: Store, rows: np.ndarray, wanted: tuple[str, ...]) -> np.ndarray:
    """Targets [n, C] uint8 of ``rows`` in the run's classes, of data with several labels per row.

    The last class may be missing on either side where it means "none of them": whether a file has it depends on
    whether it has a row without a label.

    Raises:
        DataError: other classes (see `check_classes`).
    """
    given, targets = store.class_names, np.asarray(store.targets)[rows]
    if wanted[:-1] == given and none_class(wanted) == len(given):
        return np.column_stack([targets, np.zeros(len(targets), np.uint8)])
    if given[:-1] == wanted and none_class(given) == len(wanted):
        return np.ascontiguousarray(targets[:, :-1])
    check_classes(given, wanted)
    return targets


def _warnings(store: Store, rows: np.ndarray, federation: Federation) -> list[str]:
    found = []
    if store.scale != federation.store.scale:
        found.append(
            f"the data's values are multiplied by {store.scale:g}, the training data's by "
            f"{federation.store.scale:g}: make sure that both have the same range"
        )
    if store.fingerprint == federation.fingerprint:
        used = np.isin(rows, np.concatenate([*federation.train, *federation.validation]))
        if used.any():
            found.append(
                f"{int(used.sum())} of these {len(rows)} rows are ones the model was trained or validated on: "
                "their scores say nothing of new patients"
            )
    return found


@torch.no_grad()
def _calibrated(
    result: RunResult, store: Store, rows: np.ndarray, federation: Federation, config: RunConfig, name: str
) -> torch.Tensor:
    """Calibrated logits [n, C]. All rows are calibrated together, as a run's test set is."""
    model = result.model.classifier
    parts = [
        forward_batched(model, to_tensors(store, rows[start : start + _CHUNK], federation.scaling)[0])
        for start in range(0, len(rows), _CHUNK)
    ]
    features, logits = (torch.cat([part[side] for part in parts]) for side in (0, 1))
    counts = _prior(result, name)
    bias = None if model.head.bias is None else model.head.bias.detach()
    given = {"prior": counts, "minority": federation.minority}
    calibration = registry.build("calibration", calibration_part(name), given, **config.calibration[name])
    adjusted: torch.Tensor = calibration.adjust(Outputs(features, logits, model.head.weight.detach(), bias, counts))
    return adjusted


def _prior(result: RunResult, calibration: str) -> np.ndarray | None:
    """Class counts [C] float64 as the run's last evaluation had them; None for a calibration that reads none."""
    if not registry.flags("calibration", calibration_part(calibration)).get("needs_prior", False):
        return None
    if result.prior_counts is None:
        raise DataError(
            f"{result.folder} keeps no class counts, which calibration '{calibration}' needs (it is older): "
            "run its configuration again"
        )
    return result.prior_counts


def write_csv(scored: Scored, path: Path) -> None:
    """``row,predicted,score:<class>...,true``: whole or not at all. Without labels there is no column ``true``.

    Where rows have several labels, ``labels`` stands for ``predicted``: their names joined by ``|``, as in ``true``.

    Raises:
        DataError: the folder does not exist or cannot be written.
    """
    names = scored.class_names
    labelled = scored.several or bool((scored.labels >= 0).any())
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    said = "labels" if scored.several else "predicted"
    writer.writerow(["row", said, *(f"score:{name}" for name in names), *(["true"] if labelled else [])])
    for row, predicted, values, true in zip(scored.rows, scored.predicted, scored.scores, scored.labels, strict=True):
        known = [_words(true, names)] if labelled else []
        writer.writerow([int(row), _words(predicted, names), *(f"{value:.6g}" for value in values), *known])
    if not path.parent.is_dir():
        raise DataError(f"cannot write {path}: no folder {path.parent}; create it")
    write_atomic(path, text.getvalue().encode())


def _words(label: np.ndarray, names: tuple[str, ...]) -> str:
    """A class id, or flags [C], in class names; empty where there is none."""
    if np.ndim(label):
        return "|".join(names[c] for c in np.flatnonzero(label))
    return names[int(label)] if label >= 0 else ""
