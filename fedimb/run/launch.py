"""Start a run, or resume one: configuration in, run folder out."""

import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from flwr.serverapp.strategy import Strategy

from fedimb import registry
from fedimb.config.load import config_sha, flatten, from_json, row_label, to_json
from fedimb.config.schema import RunConfig
from fedimb.data.federation import Federation, prepare
from fedimb.engine import processes
from fedimb.engine.grid import Job
from fedimb.engine.open import Engine, open_engine
from fedimb.errors import FedimbError, RunFailed, RunWaiting
from fedimb.models.base import buffers_of, parameters_of
from fedimb.run.aggregator import Aggregator, chain
from fedimb.run.checkpoint import FolderKeeper
from fedimb.run.client import build_model, contracts_of, resolved_weight
from fedimb.run.evaluate import Evaluator
from fedimb.run.exchange import Exchange
from fedimb.run.folder import RunFolder
from fedimb.run.loop import Loop, RunView
from fedimb.run.progress import ProgressBar
from fedimb.run.result import RunResult, write_result
from fedimb.run.roster import Roster
from fedimb.run.steps import Step, gather_counts
from fedimb.tracking.mlflow import MlflowTracker, NoTracker, Tracker, resolve_uri

log = logging.getLogger("fedimb")
logging.getLogger("flwr").setLevel(logging.WARNING)  # two lines per round say less than one progress bar


def launch(config: RunConfig, engine: Engine | None = None, progress: ProgressBar | None = None) -> RunResult:
    """Run a configuration in a new run folder.

    Args:
        engine: one already open (a sweep's); None opens and closes the configured one.
        progress: a bar shared by several runs; None makes one.

    Raises:
        RunFailed, RunWaiting: see `fedimb.errors`; the run folder stays and can be resumed.
    """
    federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    label = row_label(config, next(iter(config.calibration)))
    name = f"{label.replace('/', '_')}-s{config.seed}-{config_sha(config)[:8]}"
    folder = RunFolder.create(Path(config.output_dir) / config.study, name)
    folder.lock()
    try:
        _write_start(folder, config, federation)
        return _execute(folder, config, federation, engine, progress)
    finally:
        folder.unlock()


def resume(path: Path, engine: Engine | None = None, progress: ProgressBar | None = None) -> RunResult:
    """Go on with a run that was killed, failed or waits; a finished one is only sent to MLflow again.

    Raises:
        FedimbError: not a run folder, or another process works on it.
    """
    folder = RunFolder.open(path)
    folder.lock()
    try:
        left = folder.read_json("processes.json")
        if left is not None:
            _end_left_over(left)
        config = from_json((folder.path / "config.json").read_text())
        if folder.status() == "finished":
            log.warning("%s is finished already; nothing to run", folder.path)
            return RunResult.read(folder.path)
        if not (folder.path / "rows.json").exists():  # killed while the folder was being written
            federation = prepare(config.data, config.partition, config.clients.count, config.seed)
            _write_start(folder, config, federation)
        federation = Federation.load(folder.path)
        return _execute(folder, config, federation, engine, progress)
    finally:
        folder.unlock()


def _write_start(folder: RunFolder, config: RunConfig, federation: Federation) -> None:
    (folder.path / "config.json").write_text(to_json(config))
    federation.save(folder.path)
    weight = resolved_weight(config, contracts_of(config))
    params = flatten(config) | {"resolved.aggregation_weight": weight}
    rows = []
    for calibration in config.calibration:
        label = row_label(config, calibration)
        tags = {
            "fedimb.strategy": label,
            "fedimb.seed": str(config.seed),
            "fedimb.config_sha": config_sha(config),
            "fedimb.partition_sha": federation.sha,
            "fedimb.prior": f"{config.prior.view}/{config.prior.weighting}/{config.prior.provenance}",
            "fedimb.calibration": calibration,
            "fedimb.run_id": uuid.uuid4().hex,
        }
        rows.append({"label": label, "tags": tags, "params": params})
    artifacts = folder.path / "artifacts"
    artifacts.mkdir(exist_ok=True)
    shutil.copyfile(folder.path / "config.json", artifacts / "config.json")
    shutil.copyfile(folder.path / "partition.json", artifacts / "partition.json")
    folder.set_status("new")
    folder.write_json("rows.json", rows)  # last: a folder with rows.json is complete


def _end_left_over(left: dict[str, Any]) -> None:
    """End what a killed driver left behind: only processes recorded with their start time or marked by its folder.

    A driver that is still alive (this process, or a sweep going on to its other runs) still uses its engine.
    """
    if any(processes.start_time(int(pid)) == start for pid, start in left.get("driver", {}).items()):
        return
    recorded = dict(left.get("processes", {}))
    temp = left.get("temp_dir")
    if temp:
        recorded |= processes.record(processes.marked(temp))
    ended = processes.end(recorded)
    if ended:
        log.warning("ended %d processes the killed run had left behind", len(ended))
    if temp and Path(temp).name.startswith("fedimb-"):
        shutil.rmtree(temp, ignore_errors=True)


@contextlib.contextmanager
def _engine(given: Engine | None, config: RunConfig) -> Iterator[Engine]:
    if given is not None:
        yield given
        return
    engine = open_engine(config.engine)
    try:
        yield engine
    finally:
        engine.close()


def build_aggregator(config: RunConfig) -> Strategy:
    """The configured aggregator, fresh."""
    own = {k: v for k, v in config.aggregator.items() if k not in ("name", "terms")}
    strategy: Strategy = registry.build("aggregator", config.aggregator["name"], **own)
    return strategy


def build_method(config: RunConfig) -> tuple[Strategy, bool]:
    """The configured methods around the aggregator, outermost first, and whether updates may be summed."""
    strategy = build_aggregator(config)
    linear = bool(registry.flags("aggregator", config.aggregator["name"]).get("linear", False))
    for method, args in reversed(config.strategy.items()):
        strategy = registry.build("strategy", method, {"inner": strategy}, **args)
        linear = linear and not registry.flags("strategy", method).get("needs_individual_updates", False)
    return strategy, linear


def needs_counts(config: RunConfig) -> bool:
    """Whether a loss or a calibration of this run reads class counts."""
    parts = [("loss", config.loss["name"])] + [("calibration", name) for name in config.calibration]
    return any(registry.flags(kind, name).get("needs_prior", False) for kind, name in parts)


def program(config: RunConfig, federation: Federation, method: Any, view: RunView) -> Generator[Step, Any, None]:
    """The prior's prelude, then the method's program."""
    if needs_counts(config) and config.prior.view in ("train", "real"):
        if config.prior.provenance == "clear_sum":
            replies = yield from gather_counts("train")
            view.counts = _weigh(replies.astype(np.float64), config)
        elif config.prior.provenance == "oracle":
            view.counts = federation.counts.sum(axis=0).astype(np.float64)
    yield from method.program(view)


def _weigh(counts: np.ndarray, config: RunConfig) -> np.ndarray:
    """Client counts [K, C] -> counts [C]: their sum, or the priors weighted as the aggregator weighs clients."""
    if config.prior.weighting == "effective" and resolved_weight(config, contracts_of(config)) == "uniform":
        sizes = counts.sum(axis=1, keepdims=True)
        mean: np.ndarray = (counts / sizes).mean(axis=0) * sizes.sum()
        return mean
    total: np.ndarray = counts.sum(axis=0)
    return total


def _execute(
    folder: RunFolder, config: RunConfig, federation: Federation, engine: Engine | None, progress: ProgressBar | None
) -> RunResult:
    with contextlib.ExitStack() as stack:
        if progress is None:
            progress = stack.enter_context(ProgressBar(config.rounds))
        progress.title(row_label(config, next(iter(config.calibration))))
        torch.set_num_threads(1)  # the same bits as any other engine, and no fight with the workers over cores
        running = stack.enter_context(_engine(engine, config))
        grid = running.grid(Job(str(folder.path), (folder.path / "config.json").read_text(), config.clients.count))
        folder.write_json(
            "processes.json",
            {
                "temp_dir": getattr(running, "temp_dir", None),
                "driver": processes.record([os.getpid()]),
                "processes": processes.record(running.processes()),
            },
        )
        tracker = _tracker(folder, config)
        loop, keeper, evaluator = build_loop(folder, config, federation, grid, tracker, progress)
        keeper.restore(loop)
        progress.skip(loop.progress.server_round)
        folder.set_status("running")
        tracker.start()
        try:
            loop.run()
            write_result(folder, config, federation, evaluator, loop)
            folder.set_status("finished")
        except RunWaiting as error:
            folder.set_status("waiting", str(error))
            raise RunWaiting(f"{error}\n  go on with: fedimb run --resume {folder.path}") from None
        except FedimbError as error:
            folder.set_status("failed", str(error))
            raise RunFailed(f"{error}\n  after mending the cause: fedimb run --resume {folder.path}") from error
        except KeyboardInterrupt:
            folder.set_status("killed", "interrupted")
            raise
        finally:
            tracker.finish()
        return RunResult.read(folder.path)


def build_loop(
    folder: RunFolder,
    config: RunConfig,
    federation: Federation,
    grid: Any,
    tracker: Tracker,
    progress: ProgressBar,
) -> tuple[Loop, FolderKeeper, Evaluator]:
    """Put a run's parts together; nothing runs yet."""
    method, linear = build_method(config)

    def global_model(draw: int) -> Aggregator:
        if draw:  # after a Reset: the methods stay, with what they remember, around a fresh aggregator
            cast(Any, chain(method)[-2]).inner = build_aggregator(config)
        model = build_model(config, federation.n_classes, federation.input_shape, draw)
        return Aggregator(method, linear, parameters_of(model), buffers_of(model))

    view = RunView(
        rounds=config.rounds,
        n_clients=federation.n_clients,
        n_classes=federation.n_classes,
        class_names=tuple(federation.class_names),
        seed=config.seed,
        models={"global": global_model},
    )
    evaluator = Evaluator(config, federation)

    def sent(loop: Loop, metrics: dict[str, dict[str, float]]) -> None:
        progress.round(loop, metrics)
        tracker.send()

    keeper = FolderKeeper(
        folder, evaluator, list(evaluator.labels), config.evaluation.every, config.checkpoint.every, sent
    )
    sizes = np.array([len(rows) for rows in federation.train])
    exchange = Exchange(grid, Roster(config.clients, config.seed, sizes), config.clients.min_reply_fraction)
    loop = Loop(
        method,
        exchange,
        view,
        lambda v: program(config, federation, method, v),
        keeper,
        evaluate_clients=any(len(rows) for rows in federation.validation),
    )
    return loop, keeper, evaluator


def _tracker(folder: RunFolder, config: RunConfig) -> Tracker:
    if config.tracking["name"] == "none":
        return NoTracker()
    uri = resolve_uri(config.tracking.get("uri"), Path(config.output_dir))
    experiment = config.tracking.get("experiment") or config.study
    return MlflowTracker(folder.path, uri, experiment)
