"""fedimb: federated learning where the class that matters is the rare one.

``import fedimb`` loads nothing heavy. ``fedimb.run("aggregator=fedavg loss=ce seed=3")`` composes a
configuration, runs it and returns metrics, confusion matrix and model (`fedimb.api.run`).
"""

import os

from fedimb import _moved

__version__ = "0.1.0"
_moved.install()

# Nothing fedimb uses may phone home or join somebody else's cluster. These must be set before flwr, ray or
# mlflow are imported; a user who sets one keeps what they set.
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_ADDRESS": "local",
    "HF_HUB_OFFLINE": "1",
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> object:
    """Lazy public names: ``fedimb.run`` and its friends cost their imports on first use only."""
    import importlib

    if name in ("RunResult", "load_model", "resume", "run"):
        return getattr(importlib.import_module("fedimb.api"), name)
    raise AttributeError(f"module 'fedimb' has no attribute {name!r}")
