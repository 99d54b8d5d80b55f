"""A run's model in MLflow's model registry: loaded with ``mlflow.pyfunc.load_model``, it predicts as `fedimb predict`.

The registered folder holds MLflow's own files and ``data/``: the model's two files (`fedimb.rundir.model_file`),
``calibration.json`` with the calibration's name, and ``card.md``. It needs fedimb installed where it is loaded, and
neither the run folder nor the data.
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

from fedimb import process_env
from fedimb.config.load import row_label
from fedimb.errors import ConfigError, FedimbError
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.model_file import TrainedModel, load_model
from fedimb.rundir.model_origin import Origin
from fedimb.rundir.result import RunResult
from fedimb.rundir.stored import read_config
from fedimb.tracking.mlflow import sync
from fedimb.tracking.naming import run_name
from fedimb.tracking.projection import ROW_TAG, read_rows
from fedimb.tracking.store import connect, shown

if TYPE_CHECKING:
    import pandas as pd

_PLACE = "registered_model"  # below the MLflow run's artifacts
_MODEL_TAG = "fedimb.model_sha256"
_DESCRIPTION = 5000  # characters that a model registry keeps


class CalibratedModel:
    """The model as MLflow calls it.

    Args:
        model: the trained model.
        calibration: one of its run's calibrations.
    """

    def __init__(self, model: TrainedModel, calibration: str) -> None:
        self.model, self._calibration = model, calibration

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Rows [n, *input_shape] as the source has them (an array, or a table's columns in order) -> one line per row.

        Columns are those of ``fedimb predict``: ``predicted`` (or ``labels``, joined by ``|``), ``score:<class>``.

        Raises:
            DataError: the rows are not like the run's: another shape, type or range of values.
        """
        import pandas as pd

        rows = model_input.to_numpy() if isinstance(model_input, pd.DataFrame) else np.asarray(model_input)
        said = self.model.predict(rows, calibration=self._calibration)
        columns = {f"score:{name}": said.scores[:, c] for c, name in enumerate(said.class_names)}
        return pd.DataFrame({"labels" if said.several else "predicted": said.classes} | columns)


def _load_pyfunc(path: str) -> CalibratedModel:
    """MLflow's entry: the model of the ``data/`` folder that `register` wrote."""
    facts = json.loads((Path(path) / "calibration.json").read_text())
    return CalibratedModel(load_model(path), facts["name"])


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
    model = result.model
    chosen = model.calibration_name(calibration)
    next(model.predict_batches(iter(()), calibration=chosen), None)  # refuses a calibration that lacks its class counts
    label = row_label(read_config(folder), chosen)
    sent = sync(result.folder, uri)
    try:
        with tempfile.TemporaryDirectory() as place:
            return _put(result, name, card, model.origin, chosen, label, sent.runs[label], sent.uri, Path(place))
    except FedimbError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FedimbError(f"MLflow at {shown(sent.uri)} did not register '{name}': {reason}") from error


def _put(
    result: RunResult,
    name: str,
    card: str,
    origin: Origin,
    calibration: str,
    label: str,
    run_id: str,
    uri: str,
    folder: Path,
) -> tuple[str, str, str]:
    client = connect(uri, patient=True)
    data = folder / "data"
    shutil.copytree(result.folder / "artifacts" / "model", data)
    facts = json.loads((data / "model.json").read_text()) | origin.facts()  # all of it for a run of 0.1, too
    (data / "model.json").write_text(json.dumps(facts, indent=1) + "\n")
    (data / "calibration.json").write_text(json.dumps({"name": calibration}) + "\n")
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
        Schema([TensorSpec(np.dtype(model.origin.inputs.dtype or "float32"), (-1, *model.input_shape))]),
        Schema([ColSpec(DataType.string, said), *scores]),
    )
    needed = [f"{package}=={version(package)}" for package in ("fedimb", "torch", "mlflow")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example was not provided")  # the signature says it all
        mlflow.pyfunc.save_model(
            path, loader_module=__name__, data_path=str(data), signature=signature, pip_requirements=needed
        )
