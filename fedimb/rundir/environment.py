"""The environment of a run, with enough detail to rebuild it."""

import os
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from fedimb.plain import JsonObject

_PACKAGES = ("fedimb", "torch", "numpy", "flwr", "ray", "mlflow", "hydra-core", "scikit-learn", "scipy", "safetensors")


@cache
def installed_version(package: str) -> str:
    """`importlib.metadata.version`, read once per process: what it has imported stays as it was.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    return version(package)


def environment() -> JsonObject:
    """Versions, platform, cores and threads, as JSON values. Packages that are not installed are left out."""
    import torch

    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = installed_version(package)
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
