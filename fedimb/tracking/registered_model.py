"""A run's model in MLflow's model registry: loaded with ``mlflow.pyfunc.load_model``, it predicts as `fedimb predict`.

The registered folder holds MLflow's own files and ``data/``: the model's two files (`fedimb.rundir.model_file`),
``calibration.json`` and ``card.md``. It needs fedimb installed where it is loaded, and neither the run folder nor the
data.
"""

import hashlib
import json
import shutil
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedimb import process_env, registry
from fedimb.config.load import row_label
from fedimb.errors import ConfigError, DataError, FedimbError, nearest
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.model_file import TrainedModel, load_model
from fedimb.rundir.result import RunResult
from fedimb.rundir.stored import read_config
from fedimb.schema import calibration_part
from fedimb.tracking.mlflow import sync
from fedimb.tracking.naming import run_name
from fedimb.tracking.projection import ROW_TAG, read_rows
from fedimb.tracking.store import connect, shown
from fedimb.training.calibrations.base import Calibration, Outputs
from fedimb.training.forward import forward_batched

if TYPE_CHECKING:
    import pandas as pd

_PLACE = "registered_model"  # below the MLflow run's artifacts
_MODEL_TAG = "fedimb.model_sha256"
_DESCRIPTION = 5000  # characters that a model registry keeps


class CalibratedModel:
    """The model as MLflow calls it.

    Args:
        model: the trained model.
        calibration: built for it.
        prior: class counts [C] that the calibration reads; None if it reads none.
        several: whether rows have several labels.
    """

    def __init__(
        self, model: TrainedModel, calibration: Calibration, prior: NDArray[np.float64] | None, several: bool
    ) -> None:
        self.model, self._calibration, self._prior, self._several = model, calibration, prior, several

    @torch.no_grad()
    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Rows [n, *input_shape] as the source has them (an array, or a table's columns in order) -> one line per row.

        Columns are those of ``fedimb predict``: ``predicted`` (or ``labels``, joined by ``|``), ``score:<class>``.
        """
        import pandas as pd

        rows = model_input.to_numpy() if isinstance(model_input, pd.DataFrame) else np.asarray(model_input)
        classifier, names = self.model.classifier, self.model.class_names
        features, logits = forward_batched(classifier, self.model.prepare(rows))
        bias = None if classifier.head.bias is None else classifier.head.bias.detach()
        outputs = Outputs(features, logits, classifier.head.weight.detach(), bias, self._prior)
        adjusted = self._calibration.adjust(outputs)
        scores = (adjusted.sigmoid() if self._several else adjusted.softmax(1)).numpy()
        if self._several:
            said = ["|".join(names[c] for c in np.flatnonzero(row)) for row in (adjusted > 0).numpy()]
        else:
            said = [names[c] for c in adjusted.argmax(1).tolist()]
        columns = {f"score:{name}": scores[:, c] for c, name in enumerate(names)}
        return pd.DataFrame({"labels" if self._several else "predicted": said} | columns)


def _load_pyfunc(path: str) -> CalibratedModel:
    """MLflow's entry: the model of the ``data/`` folder that `register` wrote."""
    facts = json.loads((Path(path) / "calibration.json").read_text())
    prior = None if facts["prior_counts"] is None else np.array(facts["prior_counts"], dtype=np.float64)
    given = {"prior": prior, "minority": tuple(facts["minority"])}
    calibration = registry.build("calibration", calibration_part(facts["name"]), given, **facts["arguments"])
    return CalibratedModel(load_model(path), calibration, prior, facts["task"] == "multilabel")


def register(
    result: RunResult, name: str, card: str, calibration: str | None = None, uri: str | None = None
) -> tuple[str, str, str]:
    """Put a finished run's model into MLflow's model registry, as a model of the run's MLflow run (sent if missing).

    The same model registered again under the same name is the version it was.

    Args:
        result: the finished run.
        name: of the registered model.
        card: the model card, Markdown.
        calibration: one of the run's; None: its first.
        uri: address of the store; None: where the run is tracked.

    Returns:
        (version, address ``models:/NAME/VERSION``, address of the store: may hold a password, see `store.shown`).

    Raises:
        ConfigError: the run has no such calibration, or a name that MLflow does not take.
        DataError: the run folder lacks what the calibration needs.
        FedimbError: the store cannot be used.
    """
    if not name.strip() or set(name) & set("/:"):
        raise ConfigError(f"'{name}' is not a name of a registered model: give one without / and :")
    folder = RunFolder.open(result.folder)
    folder.check_sealed("artifacts/model/")
    config = read_config(folder)
    chosen = next(iter(config.calibration)) if calibration is None else calibration
    if chosen not in config.calibration:
        raise ConfigError(f"this run has no calibration '{chosen}'.{nearest(chosen, config.calibration)}")
    label = row_label(config, chosen)
    if (
        registry.flags("calibration", calibration_part(chosen)).get("needs_prior", False)
        and result.prior_counts is None
    ):
        raise DataError(
            f"{result.folder} keeps no class counts, which calibration '{chosen}' needs (it is older): run its "
            "configuration again"
        )
    facts = {
        "name": chosen,
        "arguments": config.calibration[chosen],
        "prior_counts": None if result.prior_counts is None else result.prior_counts.tolist(),
        "minority": list(result.minority),
        "task": result.task,
    }
    sent = sync(result.folder, uri)
    try:
        with tempfile.TemporaryDirectory() as place:
            return _put(result, name, card, facts, label, sent.runs[label], sent.uri, Path(place))
    except FedimbError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FedimbError(f"MLflow at {shown(sent.uri)} did not register '{name}': {reason}") from error


def _put(
    result: RunResult, name: str, card: str, facts: dict[str, Any], label: str, run_id: str, uri: str, folder: Path
) -> tuple[str, str, str]:
    client = connect(uri, patient=True)
    data = folder / "data"
    shutil.copytree(result.folder / "artifacts" / "model", data)
    (data / "calibration.json").write_text(json.dumps(facts, indent=1) + "\n")
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(data.iterdir()))).hexdigest()
    (data / "card.md").write_text(card, encoding="utf-8")
    if not any(known.name == name for known in client.search_registered_models(f"name = '{_quoted(name)}'")):
        client.create_registered_model(name)
    for known in client.search_model_versions(f"name = '{_quoted(name)}'"):
        if known.tags.get(_MODEL_TAG) == digest and known.run_id == run_id:
            return str(known.version), f"models:/{name}/{known.version}", uri
    place = f"{_PLACE}/{digest[:12]}"  # rows of a run share its model, and each version keeps its files
    _save(folder / "model", data, result)
    client.log_artifacts(run_id, str(folder / "model"), place)
    made = client.create_model_version(
        name,
        f"{client.get_run(run_id).info.artifact_uri}/{place}",
        run_id,
        tags={
            _MODEL_TAG: digest,
            ROW_TAG: label,
            "fedimb.run": run_name(label, read_rows(result.folder)[label]),
            "fedimb.run_folder": str(result.folder.absolute()),
        },
        description=card[:_DESCRIPTION],
    )
    return str(made.version), f"models:/{name}/{made.version}", uri


def _quoted(name: str) -> str:
    return name.replace("'", "\\'")


def _save(path: Path, data: Path, result: RunResult) -> None:
    """Write MLflow's model folder, with the signature: rows in, a line of scores per row out."""
    process_env.set_defaults(process_env.MLFLOW)
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    model = load_model(data)
    said = "labels" if result.task == "multilabel" else "predicted"
    scores = [ColSpec(DataType.float, f"score:{name}") for name in model.class_names]
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, *model.input_shape))]),
        Schema([ColSpec(DataType.string, said), *scores]),
    )
    needed = [f"{package}=={version(package)}" for package in ("fedimb", "torch", "mlflow")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example was not provided")  # the signature says it all
        mlflow.pyfunc.save_model(
            path, loader_module=__name__, data_path=str(data), signature=signature, pip_requirements=needed
        )
