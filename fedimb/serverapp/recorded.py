"""Arrivals on record as a channel: a run at sites is repeated on simulated clients, in the order of its arrivals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Error, Message
from safetensors.numpy import load_file

from fedimb import registry
from fedimb.contracts import platform as names
from fedimb.engine.channel import Received
from fedimb.engine.grid import CLIENT_FAILED, SimulationGrid
from fedimb.errors import ConfigError, RunFailed
from fedimb.rundir.arrival_journal import FILE, RECORDED, Arrival, read_arrivals
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.seal import sha256_of, write_seal
from fedimb.schema import RunConfig

REPEAT = "repeat"
"""Kind of suspicion: the weights are not those of the run that was repeated."""
_MODEL = Path("artifacts", "model", "model.safetensors")


def recorded_arrivals(folder: Path) -> bytes:
    """The journal of arrivals of a run that is to be repeated.

    Raises:
        ConfigError: the run has none.
        Damaged: see `read_arrivals`; or it is not as it was when the run ended.
    """
    path = folder / FILE
    data = RunFolder(folder).read(FILE)
    if data is None:
        raise ConfigError(
            f"{path} does not exist: only runs at sites with pace=buffered or fedasync record the order of arrivals"
        )
    found, size = read_arrivals(path)
    if not found:
        raise ConfigError(f"{path} has no arrivals yet; let the run go on first")
    return data[:size]


def check_repeatable(config: RunConfig) -> None:
    """Refuse a configuration whose arrivals cannot be on record.

    Raises:
        ConfigError: it has rounds, or an engine that cannot train one client at a time.
    """
    if not registry.flags("pace", config.pace["name"]).get("asynchronous"):
        raise ConfigError(
            f"pace={config.pace['name']} has rounds, and arrivals on record are those of a training without: give the "
            "recorded run's configuration"
        )
    if config.engine["name"] == "flower":
        raise ConfigError("engine=flower cannot repeat arrivals on record; set engine=inline or ray")


def differing_weights(recorded: Path, repeated: Path) -> str:
    """How the final weights of two finished runs differ, in words; empty if each bit is equal.

    Raises:
        ConfigError: the recorded run has no final weights.
    """
    if not (recorded / _MODEL).is_file():
        raise ConfigError(f"{recorded} has not finished, so there are no weights to compare with; {repeated} is whole")
    before, after = (load_file(folder / _MODEL) for folder in (recorded, repeated))
    if {name: value.shape for name, value in before.items()} != {name: value.shape for name, value in after.items()}:
        return f"the weights are not those of {recorded}: other names or shapes"
    by_name = {
        name: float(np.abs(value.astype(np.float64) - after[name]).max(initial=0.0))
        for name, value in before.items()
        if value.tobytes() != after[name].tobytes()
    }
    if not by_name:
        return ""
    most = max(by_name, key=lambda name: by_name[name])
    return (
        f"the weights differ from those of {recorded} by up to {by_name[most]:.1g} ('{most}'): other data, code or "
        "arithmetic than at its sites"
    )


def mark_differing(repeated: Path, why: str) -> None:
    """Mark a finished run suspect: it does not give the weights of the run that it repeats.

    Args:
        repeated: its folder.
        why: see `differing_weights`.
    """
    folder = RunFolder.open(repeated)
    folder.lock()
    try:
        result = folder.read_json("result.json")
        for row in result["rows"]:
            row["suspect"] = {**row.get("suspect", {}), REPEAT: why}
        seal = folder.seal
        folder.write_json("result.json", result)
        if seal is not None:
            write_seal(
                folder.path, seal.with_files({"result.json": sha256_of(folder.path / "result.json")}), durable=True
            )
        folder.set_status("finished", f"suspect: {why}")
    finally:
        folder.unlock()


class RecordedChannel:
    """Trains a client when its reply is on record as the next to arrive.

    A reply that could not be used is not computed: what was wrong with it was its site's.

    Args:
        grid: simulated clients.
        arrivals: on record.
        taken: of these, how many the run has taken before it was resumed.
    """

    def __init__(self, grid: SimulationGrid, arrivals: Sequence[Arrival], taken: int = 0) -> None:
        self._grid, self._arrivals, self._next = grid, arrivals, taken
        self._open: dict[int, Message] = {}

    def send(self, client: int, message: Message) -> None:
        """Keep the message until the client is next."""
        self._open[client] = message

    def receive(self) -> Received:
        """The next reply on record.

        Raises:
            RunFailed: the record ends, or a client is next that was not asked: its settings are other ones.
        """
        if self._next >= len(self._arrivals):
            raise RunFailed(
                f"{RECORDED} ends after {self._next} arrivals, and the run needs more: the recorded run had not come "
                "so far; set rounds to as many as it had"
            )
        line = self._arrivals[self._next]
        message = self._open.pop(line.client, None)
        step: dict[str, Any] = {} if message is None else dict(message.content.config_records[names.STEP])
        version = step.get("version")
        if message is None or version != line.version:
            what = "was not asked" if message is None else f"began with version {version}, not {line.version}"
            raise RunFailed(
                f"{RECORDED}, line {line.number + 1}: client {line.client} arrives, and {what}: repeat the run with "
                "the settings, the seed and the clients that it had"
            )
        self._next += 1
        if line.failed:
            reply = Message(Error(code=CLIENT_FAILED, reason=line.failed), reply_to=message)
            return Received(line.client, reply, line.ns)
        self._grid.admission = None  # the reply is checked where it is read
        [reply] = list(self._grid.send_and_receive([message]))
        return Received(line.client, reply, line.ns)

    def note(self, client: int, reason: str) -> None:
        """Nothing: the run logs it."""

    def close(self) -> None:
        """Nothing is under way."""
        self._open.clear()
