"""The smallest federation a part is run in, and runs that are killed after every step and resumed.

The table is made so that what surprises a method is there from the start: a client of one row, one that lacks a class,
and, where asked, a class that nobody holds.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedimb.config.catalogue import Catalogue
from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.engine.open import Engine
from fedimb.records import load_arrays
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.schema import RunConfig
from fedimb.serverapp import checkpoint, launch
from fedimb.serverapp.loop import Loop
from fedimb.serverapp.progress import ProgressBar
from fedimb.testing.expectations import Contract, same, yaml_settings

SMALL = (
    "engine=inline",
    "tracking=none",
    "partition=by_column",
    "data=synthetic_table",
    "data.test={name: official}",
    "data.long_tail=natural",
    "data.imbalance_factor=1",
    "data.n_max=null",
    "clients.count=3",
    "rounds=4",
    "local.epochs=1",
    "evaluation.bootstrap=0",
    "evaluation.last_k=1",
)


@contextlib.contextmanager
def small_tables() -> Iterator[Path]:
    """A folder for runs, with the tables they read and a cache of stores of its own; gone after the block."""
    before = os.environ.get("FEDIMB_CACHE_DIR")
    with tempfile.TemporaryDirectory(prefix="fedimb-check-") as folder:
        os.environ["FEDIMB_CACHE_DIR"] = str(Path(folder) / "cache")
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["FEDIMB_CACHE_DIR"]
            else:
                os.environ["FEDIMB_CACHE_DIR"] = before


def write_table(folder: Path, absent: bool, sites: int) -> Path:
    """71 rows of 5 columns in three classes: 24 to test on, and three sites of 36, 10 and 1 rows to train on.

    The second site lacks a class. Kept as `fedimb.data.sources.embeddings_npz` reads it, so that Ray's workers know it.

    Args:
        absent: whether there is a fourth class of which there is no row.
        sites: 3, or 1 that has all.
    """
    rng = np.random.default_rng(0)
    classes = [np.arange(24) % 3, np.repeat([0, 1, 2], [18, 12, 6]), np.repeat([0, 1], [7, 3]), np.array([2])]
    y = np.concatenate(classes).astype(np.int64)
    arrays = {
        "x": (rng.normal(size=(len(y), 5)) + 2 * np.eye(3, 5)[y]).astype(np.float32),
        "y": y,
        "sites": np.minimum(np.repeat([0, 0, 1, 2], list(map(len, classes))), sites - 1).astype(np.int64),
        "class_names": np.array(("common", "less", "rare", "nobody")[: 3 + absent]),
        "site_names": np.array([f"site {k}" for k in range(sites)]),
        "test": np.arange(len(y)) < 24,
    }
    path = folder / f"table-{sites}{'-absent' if absent else ''}.npz"
    if not path.exists():
        np.savez(path, **arrays)
    return path


def configured(
    folder: Path,
    words: Sequence[str],
    parts: Mapping[str, tuple[str, Mapping[str, Any]]],
    absent: bool = False,
    clients: int = 3,
) -> RunConfig:
    """A validated run of the small federation.

    Args:
        folder: of `small_tables`.
        words: as on the command line, in the place of `SMALL`'s.
        parts: kind (``strategy``, ``aggregator``) -> the part's name and settings in the place of its YAML's.
        absent: a class that nobody holds.
        clients: 3, or 1 that has every row.
    """
    shipped = Catalogue()
    chosen = [f"{kind}={name}" for kind, (name, _) in parts.items() if name in shipped.options(kind)]
    raw = compose([*SMALL, f"clients.count={clients}", *chosen, *words])
    for kind, (name, settings) in parts.items():
        if kind == "strategy":
            raw[kind] = {name: {**raw[kind].get(name, yaml_settings(kind, name)), **settings}}
        else:
            old = raw[kind] if raw[kind].get("name") == name else {"name": name, **yaml_settings(kind, name)}
            raw[kind] = {**old, **settings}
    if raw["data"]["source"]["name"] == "synthetic_table":
        raw["data"]["source"] = {"name": "embeddings_npz", "path": str(write_table(folder, absent, clients))}
    return validate(raw)


class Killed(BaseException):
    """Ends a run as a killed process would: nothing is tidied up."""


def run(config: RunConfig, folder: Path, engine: Engine | None = None) -> RunResult:
    """Run below ``folder``, without a progress bar and MLflow."""
    config = config.model_copy(update={"output_dir": str(folder)})
    return launch.launch(config, engine, ProgressBar(config.rounds, enabled=False), tracked=False)


def run_killed(config: RunConfig, folder: Path, most: int = 200) -> tuple[RunResult, int]:
    """Run below ``folder``, in as many lives as there are checkpoints: each life ends right after its first.

    Once, at the second, the life ends just before the checkpoint is written, so that a step is done twice. Client
    state is read back from disk and the methods are built anew in every life, as in another process.

    Returns:
        the result, and how often the run was killed.

    Raises:
        RuntimeError: more than ``most`` lives.
    """
    written = checkpoint.FolderCheckpointer.checkpoint
    deaths = 0

    def die(self: checkpoint.FolderCheckpointer, loop: Loop) -> None:
        if deaths != 1:
            written(self, loop)
        raise Killed

    checkpoint.FolderCheckpointer.checkpoint = die  # type: ignore[method-assign]
    try:
        while deaths < most:
            try:
                return (run(config, folder) if not deaths else _resumed(folder, config)), deaths
            except Killed:
                deaths += 1
                _forget()
    finally:
        checkpoint.FolderCheckpointer.checkpoint = written  # type: ignore[method-assign]
    raise RuntimeError(f"the run was killed {most} times and is not at its end: a resume does not go on")


def _resumed(folder: Path, config: RunConfig) -> RunResult:
    (path,) = (file.parent for file in folder.glob("*/*/config.json"))
    return launch.resume(path, progress=ProgressBar(config.rounds, enabled=False), tracked=False)


def _forget() -> None:
    """What a process keeps of a run in memory is gone with it."""
    from fedimb.clientapp.app import _runtime

    _runtime.cache_clear()


def weights(result: RunResult) -> bytes:
    """The final model file, bit for bit."""
    return (result.folder / "artifacts" / "model" / "model.safetensors").read_bytes()


def kept(result: RunResult) -> dict[str, Any]:
    """Everything a finished run keeps that a resume could get wrong, by what it is called in a message.

    The last checkpoint's arrays and what is beside them (without times), the clients' states, and the logged metrics
    (without times).
    """
    arrays, info = load_arrays(result.folder / "checkpoint.safetensors")
    info["progress"].pop("elapsed_s", None)
    info.pop("metrics_size", None)
    found: dict[str, Any] = {f"checkpoint: {name}": value for name, value in arrays.items()}
    found |= {f"checkpoint: {name}": value for name, value in _leaves(info)}
    clients = result.folder / "clients"
    for path in sorted(clients.rglob("*")) if clients.exists() else ():
        if path.is_file():
            found[f"client state {path.relative_to(clients)}"] = path.read_bytes()
    for line in RunFolder(result.folder).metrics():
        values = {key: value for key, value in line["metrics"].items() if not key.startswith("time/")}
        found[f"metrics of round {line['step']}, row {line['row']}"] = values
    return found


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts and lists, and the way to it."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if inner is None:
        yield path, node
    else:
        for key, value in inner:
            yield from _leaves(value, f"{path}.{key}" if path else str(key))


def compare(contract: Contract, came: RunResult, expected: RunResult) -> None:
    """Whatever ``expected`` keeps, ``came`` keeps alike: state first, for it says what was lost.

    Raises:
        ContractError: the first item that differs.
    """
    one, two = kept(came), kept(expected)
    for what, value in two.items():
        contract.expect(what in one, f"{what}, {_brief(value)}", "nothing: it is lost")
        contract.expect(same(one[what], value), f"{what} as without a kill, {_brief(value)}", _brief(one[what]))
    contract.equal(weights(came), weights(expected), "the same model file")


def _brief(value: object) -> object:
    return f"{len(value)} bytes" if isinstance(value, bytes) else value
