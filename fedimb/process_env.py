"""What the libraries under fedimb find in the environment: no telemetry, no downloads, nobody else's cluster.

Importing fedimb sets none of it. Whoever starts work does: the command line and worker processes for good, a run from
Python for as long as it takes. What a user has set stays as it is.
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
"""What every Flower process must find; flwr reads the first when it is imported."""

HUGGING_FACE = {"HF_HUB_OFFLINE": "1"}
"""Read when huggingface_hub is imported, which datasets, diffusers, transformers and open_clip do."""

QUIET = {
    **FLOWER,
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_ADDRESS": "local",
    **HUGGING_FACE,
}
"""What keeps Flower, Ray, MLflow and Hugging Face from phoning home, fetching files or joining another's cluster."""

MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
"""MLflow quiet, and done with a dead server in seconds."""

MLFLOW_DOWNLOADS = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
"""One bar a run says nothing."""

MLFLOW_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"

RAY = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Workers without a GPU of their own see the machine's GPUs as the driver does, and Ray says nothing about it."""

_RAY_SETS = ("PYTHONBREAKPOINT", "RAY_CLIENT_MODE")
"""By itself, as it starts; the first sends `breakpoint()` to Ray's debugger."""

_timeout: str | None = None  # as set here last: any other is a user's

_SET_HERE = (*QUIET, *MLFLOW, *MLFLOW_DOWNLOADS, MLFLOW_TIMEOUT, *RAY, *_RAY_SETS)


def set_defaults(variables: Mapping[str, str] = QUIET) -> None:
    """Set those that are not set; for a process that is fedimb's own, before it imports what reads them."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def set_mlflow_timeout(seconds: int) -> None:
    """How long MLflow waits for a server from here on, unless the user has said so."""
    global _timeout
    if os.environ.get(MLFLOW_TIMEOUT) in (None, _timeout):
        os.environ[MLFLOW_TIMEOUT] = _timeout = str(seconds)


@contextlib.contextmanager
def defaults(variables: Mapping[str, str] = QUIET) -> Iterator[None]:
    """`set_defaults` for a while; afterwards every variable that fedimb or Ray may have set is as it was before."""
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
    """A package that may import huggingface_hub, which from then on fetches nothing unless the user has said so.

    Raises:
        ImportError: it is not installed, or does not import.
    """
    with defaults(HUGGING_FACE):
        return importlib.import_module(name)
