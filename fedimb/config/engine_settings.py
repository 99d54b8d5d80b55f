"""Checks of engine settings that run before anything heavy is imported."""

import math
from typing import Any

from fedimb.errors import ConfigError, nearest

TRAINERS = ("loop", "stacked", "auto")
DEVICES = ("cpu", "cuda", "auto")


def check_engine(engine: dict[str, object]) -> None:
    """Refuse early what an engine would refuse only after the data are prepared and a run folder exists.

    Raises:
        ConfigError: the setting, its value and what to set instead.
    """
    if engine["name"] in ("ray", "flower"):
        check_settings(engine.get("workers"), engine.get("gpus_per_worker", 0.0), engine.get("address"))
    for key, known in (("trainer", TRAINERS), ("device", DEVICES)):
        wanted = engine.get(key, known[0])
        if wanted not in known:
            choices = f"{', '.join(known[:-1])} or {known[-1]}"
            raise ConfigError(f"engine.{key}={wanted}: give {choices}.{nearest(str(wanted), known)}")


def check_settings(workers: Any, gpus_per_worker: Any, address: Any) -> None:
    """Refuse engine settings that no machine could satisfy.

    Raises:
        ConfigError: the setting, its value and what to set instead.
    """
    if workers is not None and (type(workers) is not int or workers < 1):
        raise ConfigError(
            f"engine.workers={workers}: give a whole number of at least 1, or null for one per core "
            "(engine=inline needs no worker)"
        )
    if type(gpus_per_worker) not in (int, float) or not (math.isfinite(gpus_per_worker) and gpus_per_worker >= 0):
        raise ConfigError(
            f"engine.gpus_per_worker={gpus_per_worker}: give the share of a GPU each worker reserves, e.g. 0.5; 0: none"
        )
    if gpus_per_worker > 1 and gpus_per_worker != int(gpus_per_worker):
        raise ConfigError(f"engine.gpus_per_worker={gpus_per_worker}: above 1 give a whole number of GPUs")
    if address is not None:
        split_address(address)


def split_address(address: object) -> tuple[str, int]:
    """(host, port) of ``host:port``. ConfigError for anything else (Ray's ``auto``, ``local`` and ``ray://`` too)."""
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if not host or "/" in host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ConfigError(
            f"engine.address={address}: give host:port of the cluster's head, e.g. 10.0.0.5:6379 "
            "(null starts a private head)"
        )
    return host.strip("[]"), int(port)
