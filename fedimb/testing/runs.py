"""A small federation to run a part in, and runs that are killed after every step and resumed.

The table includes the usual edge cases: a client with one row, one that lacks a class, and, optionally, a class that
nobody holds.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedimb.clientapp.context import ClientContext
from fedimb.clientapp.local_training import LocalTraining, Prepared
from fedimb.config.catalogue import Catalogue
from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.engine.open import Engine
from fedimb.records import load_arrays, pack, unpack
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
    """A temporary folder for runs, with the tables they read and a separate cache; removed after the block."""
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
    """Write 71 rows of 5 columns in three classes: 24 test rows, and three sites with 36, 10 and 1 training rows.

    The second site lacks a class. Saved for `fedimb.data.sources.embeddings_npz`, so that Ray's workers can read it.

    Args:
        absent: whether there is a fourth class without rows.
        sites: 3, or 1 with all rows.
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
    parts: Mapping[str, tuple[str, Mapping[str, object]]],
    absent: bool = False,
    clients: int = 3,
    around: Mapping[str, Mapping[str, object]] | None = None,
) -> RunConfig:
    """A validated run of the small federation.

    Args:
        folder: of `small_tables`.
        words: overrides as on the command line, after those of `SMALL`.
        parts: kind (``strategy``, ``aggregator``) -> the part's name, and settings instead of those in its YAML.
        absent: whether there is a class that nobody holds.
        clients: 3, or 1 with all rows.
        around: a method around that of ``parts``: its name -> settings instead of those in its YAML.
    """
    shipped = Catalogue()
    chosen = [f"{kind}={name}" for kind, (name, _) in parts.items() if name in shipped.options(kind)]
    raw = compose((), shared=[*SMALL, f"clients.count={clients}", *chosen, *words])
    for kind, (name, settings) in parts.items():
        if kind == "strategy":
            raw[kind] = {name: {**raw[kind].get(name, yaml_settings(kind, name)), **settings}}
        else:
            old = raw[kind] if raw[kind].get("name") == name else {"name": name, **yaml_settings(kind, name)}
            raw[kind] = {**old, **settings}
    outer = {name: {**yaml_settings("strategy", name), **settings} for name, settings in (around or {}).items()}
    raw["strategy"] = {**outer, **raw["strategy"]}
    if raw["data"]["source"]["name"] == "synthetic_table":
        raw["data"]["source"] = {"name": "embeddings_npz", "path": str(write_table(folder, absent, clients))}
    return validate(raw)


class Killed(BaseException):
    """Ends a run like a killed process: nothing is cleaned up."""


def run(config: RunConfig, folder: Path, engine: Engine | None = None) -> RunResult:
    """Run in ``folder``, without a progress bar and MLflow."""
    config = config.model_copy(update={"output_dir": str(folder)})
    return launch.launch(config, engine, ProgressBar(config.rounds, enabled=False), tracked=False)


@contextlib.contextmanager
def trained_on() -> Iterator[dict[int, dict[int, str]]]:
    """What clients train on in runs within the block: client -> round -> hash of its rows and their labels."""
    seen: dict[int, dict[int, str]] = {}
    prepare = LocalTraining.prepare

    def noted(self: LocalTraining, context: ClientContext, evaluate: bool) -> Prepared:
        prepared = prepare(self, context, evaluate)
        rows = np.asarray(context.data.rows(prepared.spec.view))
        digest = hashlib.sha256(rows.tobytes() + prepared.work.y.cpu().numpy().tobytes())
        seen.setdefault(context.client, {})[context.round] = digest.hexdigest()
        return prepared

    LocalTraining.prepare = noted  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        LocalTraining.prepare = prepare  # type: ignore[method-assign]


def run_killed(config: RunConfig, folder: Path, most: int = 200) -> tuple[RunResult, int]:
    """Run in ``folder``, killed right after every checkpoint and resumed.

    The second kill is just before the checkpoint is written, so that a step is done twice. Client state is read from
    disk and the methods are rebuilt on every resume, as in another process.

    Returns:
        the result, and how often the run was killed.

    Raises:
        RuntimeError: more than ``most`` kills.
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
                _clear_caches()
    finally:
        checkpoint.FolderCheckpointer.checkpoint = written  # type: ignore[method-assign]
    raise RuntimeError(f"the run was killed {most} times and is not finished: a resume makes no progress")


def _resumed(folder: Path, config: RunConfig) -> RunResult:
    (path,) = (file.parent for file in folder.glob("*/*/config.json"))
    return launch.resume(path, progress=ProgressBar(config.rounds, enabled=False), tracked=False)


def _clear_caches() -> None:
    """Clear what a process keeps of a run in memory."""
    from fedimb.clientapp.app import _runtime

    _runtime.cache_clear()


def weights(result: RunResult) -> bytes:
    """The bytes of the final model file; of all of them, where sites have models of their own."""
    return b"".join(file.read_bytes() for file in model_files(result))


def model_files(result: RunResult) -> list[Path]:
    """The final model file; all of them, where sites have models of their own."""
    artifacts = result.folder / "artifacts"
    files = [artifacts / "model" / "model.safetensors", *sorted(artifacts.glob("models/*/model.safetensors"))]
    return [file for file in files if file.exists()]


def kept(result: RunResult) -> dict[str, Any]:
    """Everything saved by a finished run that a resume could get wrong, by its name in messages:

    the last checkpoint's arrays and other values, the clients' states and the logged metrics, all without times.
    """
    arrays, info = load_arrays(result.folder / "checkpoint.safetensors")
    info["progress"].pop("elapsed_s", None)
    info.pop("metrics_size", None)
    info.pop("sealed", None)  # hashes of the other files, whose times and paths differ
    found: dict[str, Any] = {f"checkpoint: {name}": value for name, value in arrays.items()}
    found |= {f"checkpoint: {name}": value for name, value in _leaves(info)}
    clients = result.folder / "clients"
    for path in sorted(clients.rglob("*")) if clients.exists() else ():
        if path.is_file():
            # Without the note on checkpoints: which of them a state belonged to depends on when the run was killed.
            found[f"client state {path.relative_to(clients)}"] = pack(unpack(path.read_bytes()))
    for line in RunFolder(result.folder).metrics():
        values = {key: value for key, value in line["metrics"].items() if not key.startswith("time/")}
        found[f"metrics of round {line['step']}, row {line['row']}"] = values
    return found


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts and lists, with its path."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if inner is None:
        yield path, node
    else:
        for key, value in inner:
            yield from _leaves(value, f"{path}.{key}" if path else str(key))


def compare(contract: Contract, found: RunResult, expected: RunResult) -> None:
    """Check that everything saved by ``expected`` is the same in ``found``: state first, as it shows what was lost.

    Raises:
        ContractError: the first item that differs.
    """
    one, two = kept(found), kept(expected)
    for what, value in two.items():
        contract.expect(what in one, f"{what}, {_brief(value)}", "nothing: it was lost")
        contract.expect(same(one[what], value), f"{what} as without a kill, {_brief(value)}", _brief(one[what]))
    contract.equal(weights(found), weights(expected), "the same model file")


def _brief(value: object) -> object:
    return f"{len(value)} bytes" if isinstance(value, bytes) else value
