"""Start a run, or resume one: configuration in, run folder out."""

import contextlib
import functools
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypedDict, TypeVar

import torch

from fedimb.atomic import write_atomic
from fedimb.config.load import config_sha, run_label
from fedimb.config.parts import trains_by_phase, with_pooled
from fedimb.data.federation import Federation
from fedimb.data.prepare import prepare
from fedimb.engine import processes
from fedimb.engine.grid import Job
from fedimb.engine.open import Engine, check_arithmetic, check_gpu, open_engine
from fedimb.engine.trainer import resolve_trainer
from fedimb.errors import ConfigError, FedimbError, RunDiverged, RunFailed, RunWaiting, storage_reason
from fedimb.process_state import collect_as_usual, log_level, restored
from fedimb.registry.targets import trusted
from fedimb.rundir.arrival_journal import remove_replies
from fedimb.rundir.changes import check_unchanged
from fedimb.rundir.checkpoints import FIXED, rewrite_seal
from fedimb.rundir.code import Code
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.identity import record_end
from fedimb.rundir.manifest import return_freed_memory, write_start
from fedimb.rundir.result import RunResult
from fedimb.rundir.seal import CHECKPOINT, Damaged
from fedimb.rundir.source_files import remember_imported
from fedimb.rundir.stored import read_config, read_federation
from fedimb.schema import RunConfig
from fedimb.serverapp.assemble import build_loop, check_parts
from fedimb.serverapp.client_sampler import DENSE, ClientSampler
from fedimb.serverapp.exchange import StateGone
from fedimb.serverapp.finish import keep_scores, write_result
from fedimb.serverapp.fold_runs import folds_on
from fedimb.serverapp.progress import ProgressBar
from fedimb.serverapp.recorded import RECORDED, check_repeatable, recorded_arrivals
from fedimb.serverapp.regions import region_tree
from fedimb.tracking.mlflow import MlflowTracker, NoTracker, Tracker, resolve_uri
from fedimb.tracking.sender import Sender

log = logging.getLogger("fedimb")
P = ParamSpec("P")
R = TypeVar("R")


class LeftOver(TypedDict, total=False):
    """processes.json: what a killed driver left behind; processes as id -> start time."""

    temp_dir: str | None
    driver: dict[str, str]
    processes: dict[str, str]


def _restores_process(start: Callable[P, R]) -> Callable[P, R]:
    """Decorator that restores the caller's process after a run, also if the run fails; see `fedimb.process_state`."""

    @functools.wraps(start)
    def started(*args: P.args, **options: P.kwargs) -> R:
        # Flower logs two lines per round, which say less than the progress bar.
        with restored(), log_level("flwr", logging.WARNING):
            return start(*args, **options)

    return started


@_restores_process
def launch(
    config: RunConfig,
    engine: Engine | None = None,
    progress: ProgressBar | None = None,
    tracked: bool | Sender = True,
    arrivals: Path | None = None,
) -> RunResult:
    """Run a configuration in a new run folder.

    Args:
        engine: an open engine (of a sweep); None opens and closes the configured one.
        progress: a bar shared by several runs; None creates one.
        tracked: False sends nothing to MLflow; `fedimb.tracking.mlflow.sync` can later. True sends from this process, a
            sender from its own.
        arrivals: folder of a run at sites without rounds, whose order of arrivals is repeated; None: the pace's clock
            decides.

    Raises:
        ConfigError, DataError: raised before a run folder is created.
        RunFailed, RunWaiting: see `fedimb.errors`; the run folder stays and can be resumed.
    """
    remember_imported()
    if uri := config.tracking.get("uri"):  # absolute, because a ServerApp or a later resume may run in another folder
        config = config.model_copy(update={"tracking": config.tracking | {"uri": resolve_uri(uri, config.output_dir)}})
    check_gpu(config.engine)
    check_arithmetic(config)
    _check_output_dir(config)
    recorded = None if arrivals is None else recorded_arrivals(arrivals)
    if recorded is not None:
        check_repeatable(config)
    federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    return_freed_memory()
    config = with_pooled(config, federation)
    check_parts(config, federation)
    per_round = ClientSampler(config.clients, config.seed, federation.train_sizes).per_round()
    config = resolve_trainer(config, federation.n_classes, federation.input_shape, per_round)
    label = run_label(config)
    name = f"{label.replace('/', '_')}-s{config.seed}-{config_sha(config)[:8]}"
    folder = _create(config, name)
    try:
        with _storage_errors(folder):
            folder.lock()
            if recorded is not None:
                write_atomic(folder.path / RECORDED, recorded)
            write_start(folder, config, federation)
            return execute(folder, config, federation, engine, progress, tracked)
    finally:
        folder.unlock()


def _check_output_dir(config: RunConfig) -> None:
    """Raise ConfigError, before the data are prepared, if ``output_dir`` cannot hold a run folder."""
    wanted = Path(config.output_dir).expanduser().absolute() / config.study
    place = next(path for path in (wanted, *wanted.parents) if os.path.lexists(path))
    if not place.is_dir():
        raise ConfigError(f"output_dir={config.output_dir}: {place} is a file, not a folder; choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(
            f"output_dir={config.output_dir}: {place} is not writable for this user; give write access, or choose "
            "another folder"
        )


def _create(config: RunConfig, name: str) -> RunFolder:
    try:
        return RunFolder.create(Path(config.output_dir) / config.study, name)
    except OSError as error:
        reason = storage_reason(error) or f"{error.filename}: {error.strerror}; choose another folder"
        raise ConfigError(f"output_dir={config.output_dir}: {reason}") from error


@contextlib.contextmanager
def _storage_errors(folder: RunFolder) -> Iterator[None]:
    """Turn a full or unwritable disk into one line; what the folder holds so far can be resumed."""
    try:
        yield
    except OSError as error:
        if (reason := storage_reason(error)) is None:
            raise
        if (folder.path / "config.json").is_file():
            raise RunFailed(f"{reason}, then: fedimb run --resume {folder.path}") from error
        shutil.rmtree(folder.path, ignore_errors=True)
        raise FedimbError(f"{reason}; the run has not started") from error


@_restores_process
def resume(
    path: Path,
    engine: Engine | None = None,
    progress: ProgressBar | None = None,
    tracked: bool | Sender = True,
    accept_changes: bool = False,
) -> RunResult:
    """Continue a run that was killed, failed or is waiting; a finished run is only sent to MLflow again.

    If a result file of a finished run is missing or damaged, the result is written again from the checkpoint.

    Args:
        engine, progress, tracked: as for `launch`.
        accept_changes: continue although code or data changed since the start (`fedimb.rundir.changes`).

    Raises:
        FedimbError: not a run folder, or in use by another process.
        Damaged: a file that the run builds on is missing or was changed.
        Changed: the code or the data changed, and this was not accepted.
    """
    folder = RunFolder.open(path)
    with _storage_errors(folder):
        return _resume(folder, engine, progress, tracked, accept_changes)


def _resume(
    folder: RunFolder,
    engine: Engine | None,
    progress: ProgressBar | None,
    tracked: bool | Sender,
    accept_changes: bool,
) -> RunResult:
    folder.lock()
    try:
        rewrite_seal(folder)
        left = folder.read_json("processes.json")
        if left is not None:
            _end_left_over(left)
        config = read_config(folder)
        remember_imported()
        if is_finished(folder):
            log.warning("%s is already finished; sending to MLflow what it lacks", folder.path)
            _tracker(folder, config, tracked).finish()
            return RunResult.read(folder.path)
        if is_incomplete(folder):
            federation = prepare(config.data, config.partition, config.clients.count, config.seed)
            write_start(folder, config, federation)
        folder.check_sealed(*FIXED)
        federation = read_federation(folder)
        check_unchanged(folder, config, federation, accept_changes)
        return execute(folder, config, federation, engine, progress, tracked)
    finally:
        folder.unlock()


def is_incomplete(folder: RunFolder) -> bool:
    """Whether the run was killed while its folder was being written, before the first step."""
    seal = folder.seal
    started = (folder.path / CHECKPOINT).exists() or (seal is not None and seal.number > 0)
    return not started and not (folder.path / "rows.json").exists()


def is_finished(folder: RunFolder) -> bool:
    """Whether a run has finished and its result is as it was written; if it is not, says so."""
    try:
        if folder.status() != "finished":
            return False
    except Damaged as error:
        log.warning("%s", error)
        return False
    try:
        if (seal := folder.seal) is not None and not seal.ended:
            return False
        folder.check_sealed("result.json", "artifacts/", "steps/", "metrics.jsonl", *FIXED)
        RunResult.read(folder.path)
    except Damaged as error:
        log.warning("%s", error)
        return False
    return True


def _end_left_over(left: LeftOver) -> None:
    """End what a killed driver left behind: only processes recorded with their start time or marked by its folder.

    A driver that is still alive (this process, or a sweep continuing with other runs) still uses its engine.
    """
    if _alive(left.get("driver", {})):
        return
    recorded = dict(left.get("processes", {}))
    temp = left.get("temp_dir")
    if temp:
        recorded |= processes.record(processes.marked(temp))
    ended = processes.end(recorded)
    if ended:
        log.warning("ended %d processes that the killed run had left behind", len(ended))
    if temp and Path(temp).name.startswith("fedimb-"):
        shutil.rmtree(temp, ignore_errors=True)


def _alive(recorded: dict[str, str]) -> dict[str, str]:
    """The recorded processes that are still running."""
    return {pid: start for pid, start in recorded.items() if processes.start_time(int(pid)) == start}


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


def _code_of_workers(engine: Engine, config: RunConfig) -> list[Code]:
    """What worker processes report, on an engine that has some of its own."""
    code: Callable[[RunConfig], list[Code]] | None = getattr(engine, "code", None)
    return [] if code is None else code(config)


def _record_processes(folder: RunFolder, engine: Engine) -> None:
    left, temp = folder.read_json("processes.json", {}), engine.temp_dir
    # In a ServerApp the launcher remains the driver: if it is killed, a resume has to end the ServerApp.
    launcher = _alive(left.get("driver", {})) if left.get("temp_dir") == temp else {}
    driver, started = launcher or processes.record([os.getpid()]), processes.record(engine.processes())
    folder.write_json("processes.json", {"temp_dir": temp, "driver": driver, "processes": started})


@_restores_process
def execute(
    folder: RunFolder,
    config: RunConfig,
    federation: Federation,
    engine: Engine | None,
    progress: ProgressBar | None,
    tracked: bool | Sender = True,
) -> RunResult:
    """Execute a run folder whose lock is held, continuing from its checkpoint. See `launch` for errors."""
    with contextlib.ExitStack() as stack:
        if progress is None:
            progress = stack.enter_context(ProgressBar(config.rounds))
        progress.title(run_label(config))
        progress.note(federation.minority_line())
        if federation.phases:
            joint = "; no method of this run trains by them: all classes are trained at once"
            progress.note(federation.phases_line() + ("" if trains_by_phase(config) else joint))
        torch.set_num_threads(1)  # the same bits as on any engine, and no competition with the workers for cores
        running = stack.enter_context(_engine(engine, config))
        _record_processes(folder, running)  # the head's folder, before a process starts that could be left behind
        job = Job(str(folder.path.absolute()), (folder.path / "config.json").read_text(), config.clients.count)
        if run_elsewhere := getattr(running, "run_elsewhere", None):
            with _ending(folder, _tracker(folder, config, tracked), running):
                run_elsewhere(job, progress.skip)
                _check_finished(folder)
            return RunResult.read(folder.path)
        federation, grid = region_tree(config, federation, running.grid(job))
        _record_processes(folder, running)
        tracker = _tracker(folder, config, tracked)
        run_fold = folds_on(folder, running)
        loop, checkpointer, evaluator = build_loop(folder, config, federation, grid, tracker, progress, run_fold)
        try:
            checkpointer.restore(loop)
        except FedimbError as error:  # the launcher of a ServerApp reads it there
            folder.set_status("failed", str(error), type(error).__name__)
            raise
        progress.skip(loop.progress.server_round)
        folder.set_status("running")
        if federation.phases and not trains_by_phase(config):
            folder.journal(event="phases", trained="at once")
        if loop.exchange.attackers is not None:
            folder.journal(event="attackers", **loop.exchange.attackers.facts())
        if (sampler := loop.exchange.client_sampler).permuted:
            folder.journal(event="cohorts", drawn="by keyed permutation", clients=len(sampler.sizes), above=DENSE)
        tracker.start()
        collect_as_usual()
        with _ending(folder, tracker, running):
            try:
                loop.run()
            except StateGone as error:
                if not error.at_checkpoint:
                    raise
                raise RunFailed(f"{error}; {checkpointer.fall_back(str(error))}") from None
            finally:
                record_end(folder, config, _code_of_workers(running, config))
            keep_scores(folder, evaluator, loop)
            why = write_result(folder, config, federation, evaluator, loop)
            if why:
                log.warning("suspect: %s", why)
            checkpointer.seal_end()
            folder.set_status("finished", f"suspect: {why}" if why else "")
        return RunResult.read(folder.path)


@contextlib.contextmanager
def _ending(folder: RunFolder, tracker: Tracker, engine: Engine) -> Iterator[None]:
    """Record how a run ended in its folder and in MLflow, and tell the user how to continue."""
    resume = f"{getattr(engine, 'resume_with', 'fedimb run --resume')} {folder.path}"
    try:
        yield
    except RunWaiting as error:
        folder.set_status("waiting", str(error))
        raise RunWaiting(f"{error}\n  continue with: {resume}") from None
    except FedimbError as error:
        with contextlib.suppress(OSError):  # the disk may be the cause; without a status the run counts as killed
            folder.set_status("failed", str(error), type(error).__name__)
        kind = RunDiverged if isinstance(error, RunDiverged) else RunFailed
        if kind is RunDiverged:  # the same arrivals would diverge again, so nobody needs what single clients sent
            remove_replies(folder.path)
        raise kind(f"{error}\n  after fixing the cause: {resume}") from error
    except KeyboardInterrupt as interrupt:
        with contextlib.suppress(OSError):
            folder.set_status("killed", "interrupted")
        interrupt.add_note(f"continue with: {resume}")
        raise
    except Exception as error:
        with contextlib.suppress(OSError):
            folder.set_status("failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        tracker.finish()


@_restores_process
def run_in_server_app(path: Path, engine: Engine) -> RunResult:
    """Execute a run folder whose lock the launcher holds: the part of ``run_elsewhere`` that runs in the ServerApp."""
    folder = RunFolder.open(path)
    with trusted():  # the launcher has decided
        config = read_config(folder)
    return execute(folder, config, read_federation(folder), engine, None)


def _check_finished(folder: RunFolder) -> None:
    """Raise the error of a run that another process executed."""
    if (status := folder.status()) != "finished":
        raise (RunWaiting if status == "waiting" else RunFailed)(folder.read_json("status.json")["reason"])


def _tracker(folder: RunFolder, config: RunConfig, tracked: bool | Sender) -> Tracker:
    if not tracked or config.tracking["name"] == "none":
        return NoTracker()
    uri = resolve_uri(config.tracking.get("uri"), folder.path.parent.parent)  # relative to output_dir
    experiment = config.tracking.get("experiment") or config.study
    if isinstance(tracked, Sender):
        return tracked.tracker(folder.path, uri, experiment)
    return MlflowTracker(folder.path, uri, experiment)
