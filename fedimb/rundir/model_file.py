"""The global model as a file: ``model.safetensors`` and ``model.json``, written at the end, loaded with one call."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save
from torch import Tensor, nn

from fedimb import registry
from fedimb.data.federation import Federation
from fedimb.data.scaling import Scaling, prepared
from fedimb.errors import DataError, FedimbError
from fedimb.models.base import Classifier, buffers_of, load_into, parameters_of
from fedimb.plain import JsonObject
from fedimb.records import write_atomic
from fedimb.schema import RunConfig

log = logging.getLogger("fedimb")

Rows = NDArray[np.generic] | Tensor


class TrainedModel(nn.Module):
    """A run's global model, together with the preprocessing of its input rows.

    Attributes:
        classifier: the network; its inputs are prepared by `prepare`.
        input_shape: shape of one row.
        class_names: one name per logit.
        input_scale: factor applied to every value, e.g. 1/255 for grey levels.
        scaling: scaling of a table's columns, from all clients' training rows; None if the run had none.
    """

    def __init__(
        self,
        classifier: Classifier,
        input_shape: tuple[int, ...],
        class_names: tuple[str, ...],
        input_scale: float,
        scaling: Scaling | None,
    ) -> None:
        super().__init__()
        self.classifier, self.input_shape, self.class_names = classifier, input_shape, class_names
        self.input_scale, self.scaling = input_scale, scaling

    if TYPE_CHECKING:  # torch types a module's call as returning Any

        def __call__(self, rows: Rows) -> Tensor: ...

    def prepare(self, rows: Rows) -> Tensor:
        """Rows [n, *input_shape] as the source has them (grey levels, a table's own units, NaN for missing values) ->
        inputs of the classifier, float32 of the same shape, a copy.

        Raises:
            DataError: rows of another shape.
        """
        values = rows.numpy() if isinstance(rows, Tensor) else np.asarray(rows)
        if values.shape[1:] != self.input_shape:
            raise DataError(
                f"a row of the data is {list(values.shape[1:])}, this model reads {list(self.input_shape)}: prepare "
                "the data as for the run (columns, image size, grey or colour)"
            )
        return torch.tensor(prepared(values, self.input_scale, self.scaling))

    def forward(self, rows: Rows) -> Tensor:
        """Rows as for `prepare` -> logits [n, n_classes] float32, uncalibrated."""
        logits: Tensor = self.classifier(self.prepare(rows))
        return logits


def save_model(model: Classifier, config: RunConfig, federation: Federation, path: Path) -> None:
    """Write both files: enough for `load_model` on a machine without the run folder.

    From the data they contain the class names and, for a table, mean and deviation of each column over all clients.
    """
    write_atomic(path / "model.safetensors", save(parameters_of(model) | buffers_of(model)))
    description = {
        "model": config.model,
        "n_classes": federation.n_classes,
        "input_shape": list(federation.input_shape),
        "class_names": list(federation.class_names),
        "task": federation.task,
        "input_scale": federation.input_scale,
        "scaling": federation.scaling.facts() if federation.scaling else None,
    }
    write_atomic(path / "model.json", (json.dumps(description, indent=1) + "\n").encode())


def load_model(path: str | Path) -> TrainedModel:
    """A trained global model, in eval mode: from a run folder or from its ``artifacts/model``.

    Example:
        >>> result = fedimb.run("rounds=1 clients.count=4 engine=inline tracking=none")
        >>> model = fedimb.load_model(result.folder)
        >>> model(np.zeros((3, *model.input_shape))).shape
        torch.Size([3, 10])

    Raises:
        FedimbError: there is no model at that path.
    """
    folder = Path(path)
    if (folder / "artifacts" / "model").is_dir():
        folder = folder / "artifacts" / "model"
    if not (folder / "model.json").is_file():
        raise FedimbError(f"{path} holds no model: expected model.json and model.safetensors (is the run finished?)")
    facts: JsonObject = json.loads((folder / "model.json").read_text())
    shape = tuple(facts["input_shape"])
    if "scaling" not in facts and len(shape) == 1:
        log.warning("%s is from an older fedimb, which kept no scaling of tables: scale the rows yourself", folder)
    args = {k: v for k, v in facts["model"].items() if k != "name"}
    given = {"n_classes": facts["n_classes"], "input_shape": shape}
    classifier: Classifier = registry.build("model", facts["model"]["name"], given, **args)
    load_into(classifier, {k: torch.from_numpy(v) for k, v in load_file(folder / "model.safetensors").items()})
    scaling = Scaling.from_facts(facts["scaling"]) if facts.get("scaling") else None
    return TrainedModel(classifier, shape, tuple(facts["class_names"]), float(facts["input_scale"]), scaling).eval()
