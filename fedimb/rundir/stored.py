"""Reads a run folder's configuration and partition for use, checked against its seal."""

from fedimb.config.load import from_json
from fedimb.data.federation import Federation
from fedimb.data.virtual_federation import load_federation
from fedimb.errors import FedimbError
from fedimb.registry.targets import installed_only
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.origin import made_here
from fedimb.schema import RunConfig


def read_config(folder: RunFolder) -> RunConfig:
    """The configuration of ``config.json``.

    A class that it names by its import path is imported from the working folder only if this user started the run here,
    or within `fedimb.registry.targets.trusted`.

    Raises:
        Damaged: the file was changed since the run was started.
        ConfigError: it is not valid for this installation, or names a class that only the working folder has.
    """
    data = folder.read("config.json")
    if data is None:
        raise FedimbError(f"{folder.path} is not a run folder: it has no config.json")
    seal = folder.seal
    with installed_only(seal is None or not made_here(data, seal.origin)):
        return from_json(data.decode("utf-8", errors="replace"))


def read_federation(folder: RunFolder) -> Federation:
    """The partition. Raises Damaged if a file of it was changed since the run was started."""
    folder.check("partition.json", "partition.npz")
    return load_federation(folder.path)
