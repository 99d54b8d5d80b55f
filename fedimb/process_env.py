"""Environment variables for the libraries that fedimb uses: no telemetry, no downloads, no joining of other clusters.

Importing fedimb sets none of them. They are set when work starts: by the command line and worker processes for the
whole process, by a run from Python while it lasts. Variables that the user has set stay as they are.
"""

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping
from types import ModuleType

FLOWER = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Required by every Flower process; flwr reads the first one when it is imported."""

HUGGING_FACE = {"HF_HUB_OFFLINE": "1"}
"""Read when huggingface_hub is imported, which datasets, diffusers, transformers and open_clip do."""

QUIET = {
    **FLOWER,
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_ADDRESS": "local",
    **HUGGING_FACE,
}
"""Keep Flower, Ray, MLflow and Hugging Face from sending telemetry, downloading files or joining another cluster."""

MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
"""Make MLflow quiet, and give up on an unreachable server within seconds."""

MLFLOW_DOWNLOADS = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
"""A progress bar per run is only noise."""

MLFLOW_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"

RAY = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Workers without a GPU still see the machine's GPUs, as the driver does, and Ray does not warn about it."""

_RAY_SETS = ("PYTHONBREAKPOINT", "RAY_CLIENT_MODE")
"""Set by Ray itself as it starts; the first sends `breakpoint()` to Ray's debugger."""

_timeout: str | None = None  # the value set here last: any other value is the user's

_SET_HERE = (*QUIET, *MLFLOW, *MLFLOW_DOWNLOADS, MLFLOW_TIMEOUT, *RAY, *_RAY_SETS)


def set_defaults(variables: Mapping[str, str] = QUIET) -> None:
    """Set the variables that are not set yet; for fedimb's own processes, before the libraries are imported."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def set_mlflow_timeout(seconds: int) -> None:
    """Set how long MLflow waits for a server from now on, unless the user has set it."""
    global _timeout
    if os.environ.get(MLFLOW_TIMEOUT) in (None, _timeout):
        os.environ[MLFLOW_TIMEOUT] = _timeout = str(seconds)


@contextlib.contextmanager
def defaults(variables: Mapping[str, str] = QUIET) -> Iterator[None]:
    """`set_defaults` inside the block; afterwards restore every variable that fedimb or Ray may have set."""
    before = {name: os.environ.get(name) for name in _SET_HERE}
    set_defaults(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def import_offline(name: str) -> ModuleType:
    """Import a package that may import huggingface_hub, which then downloads nothing unless the user has allowed it.

    Raises:
        ImportError: it is not installed, or its import fails.
    """
    with defaults(HUGGING_FACE):
        return importlib.import_module(name)
