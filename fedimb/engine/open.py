"""Engines by name."""

import inspect
from collections.abc import Callable
from typing import Protocol

from fedimb.config.parts import device_of
from fedimb.engine.grid import Job, SimulationGrid
from fedimb.engine.ray_checks import check_gpus
from fedimb.errors import ConfigError, nearest
from fedimb.plain import Settings
from fedimb.schema import RunConfig
from fedimb.training.precision import check_precision


class Engine(Protocol):
    """What a launcher needs from an engine. One engine serves many runs, one after another.

    An engine may have ``run_elsewhere(job, advance)`` instead of a grid: the whole run, server included, then happens
    in another process, and ``advance(rounds)`` is called as rounds end.
    """

    @property
    def reusable(self) -> bool:
        """Whether another run's grid can be had while this run goes on: not if its clients were started for it."""
        ...

    def grid(self, job: Job) -> SimulationGrid:
        """A Flower Grid over one run's clients."""
        ...

    @property
    def temp_dir(self) -> str | None:
        """Folder that marks every process of this engine, known before the first of them starts; None: it has none."""
        ...

    def processes(self) -> list[int]:
        """Ids of processes to end if this one is killed."""
        ...

    def close(self) -> None:
        """Stop what was started."""


def check_gpu(config: Settings) -> None:
    """Refuse a GPU that this machine lacks, before a run folder exists; what a cluster has is seen when it is joined.

    Raises:
        ConfigError: ``engine.device=cuda`` or ``engine.gpus_per_worker``, but torch finds no GPU here.
    """
    if config.get("address") is None:
        check_gpus(float(config.get("gpus_per_worker", 0.0)))
        device_of(config)


def check_arithmetic(config: RunConfig) -> None:
    """Refuse a precision that this machine's processor or GPU lacks; elsewhere each client refuses it itself.

    Raises:
        ConfigError: see `fedimb.training.precision.check_precision`.
    """
    if config.engine["name"] in ("inline", "ray") and config.engine.get("address") is None:
        check_precision(config.local.precision, device_of(config.engine))


def open_engine(config: Settings) -> Engine:
    """The engine of the configuration group ``engine``; starts nothing before its first grid.

    Raises:
        ConfigError: unknown engine or setting.
    """
    clients = ("trainer", "device")  # read by the clients, not by the engine
    args = {k: v for k, v in config.items() if k != "name" and k not in clients}
    make: Callable[..., Engine]
    match config["name"]:
        case "inline":
            from fedimb.engine.inline import InlineEngine as make
        case "flower":
            from fedimb.engine.flower import FlowerLauncher as make
        case "ray":
            from fedimb.engine.ray import RayEngine as make
        case name:
            raise ConfigError(f"no engine '{name}'.{nearest(name, ['inline', 'ray', 'flower'])}")
    try:  # bound first, so that a TypeError inside the engine's own code keeps its traceback
        inspect.signature(make).bind(**args)
    except TypeError as error:
        raise ConfigError(f"engine '{config['name']}': {error}") from None
    return make(**args)
