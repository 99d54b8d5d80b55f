"""The environment of a run, with enough detail to rebuild it."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from fedimb.plain import JsonObject

_PACKAGES = ("fedimb", "torch", "numpy", "flwr", "ray", "mlflow", "hydra-core", "scikit-learn", "scipy", "safetensors")


def environment() -> JsonObject:
    """Versions, platform, cores and threads, as JSON values. Packages that are not installed are left out."""
    import torch

    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads_per_worker": 1,
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "packages": versions,
    }
