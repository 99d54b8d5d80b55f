"""Starts one measurement, waits for it and reads its results; the run folder tells when rounds ended."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fedimb.bench.measurement import Measurement, between
from fedimb.bench.noop import write_package
from fedimb.engine import processes
from fedimb.errors import RunFailed
from fedimb.plain import JsonObject
from fedimb.process_env import QUIET
from fedimb.rundir.folder import RunFolder

_LONGEST_S = 3600.0
_PATIENCE_S = 30.0  # an interrupted run first shuts down its engine


def common_words(rounds: int, output: Path) -> list[str]:
    """Settings of every measured run: only the last round is scored and saved, nothing is tracked."""
    return [
        f"rounds={rounds}",
        f"evaluation.every={rounds}",
        f"checkpoint.every={rounds}",
        "evaluation.bootstrap=0",
        "tracking=none",
        f"output_dir={output}",
    ]


def engine_words(engine: str, workers: int) -> list[str]:
    """Settings that choose the engine; the bare program reads the same configuration and ignores the engine."""
    return {
        "ray": ["engine=ray", f"engine.workers={workers}"],
        "stock": ["engine=flower", f"engine.workers={workers}"],
    }.get(engine, ["engine=inline"])


def measure(
    case: str, mode: str, words: tuple[str, ...], engine: str, repeat: int, rounds: int, workers: int
) -> Measurement:
    """Measure one case on one engine, once.

    Args:
        case: label, only used in the result.
        mode: see `fedimb.bench.one`.

    Raises:
        RunFailed: the process failed; the message has the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="fedimb-bench-", ignore_cleanup_errors=True) as temp:
        folder = Path(temp)
        words = (*words, *common_words(rounds, folder / "runs"), *engine_words(engine, workers))
        request = {
            "mode": "bare" if engine.startswith("bare") else mode,
            "words": words,
            "workers": workers if engine == "bare-w" else 1,
            "out": str(folder / "found.json"),
        }
        started, whole = _wait(request, folder)
        found = json.loads((folder / "found.json").read_text())
        own = {key: found[key] for key in ("peak_mb", "others_mb")}
        read = _bare(found, started) if request["mode"] == "bare" else _platform(found, folder / "runs", started)
    return Measurement(case, engine, repeat, whole_s=whole, **own, **read)


def _wait(request: JsonObject, folder: Path) -> tuple[float, float]:
    """Run the process; returns its start (epoch seconds) and its duration in seconds."""
    path = [str(write_package(folder / "packages")), os.environ.get("PYTHONPATH", "")]
    environment = QUIET | os.environ | {"PYTHONPATH": os.pathsep.join(p for p in path if p), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # otherwise every process compiles torch again, for many seconds
    call = [sys.executable, "-m", "fedimb.bench.one", json.dumps(request)]
    with open(folder / "log", "wb") as log:
        started, clock = time.time(), time.perf_counter()
        process = subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            code = process.wait(_LONGEST_S)
            taken = time.perf_counter() - clock
        except KeyboardInterrupt:  # a terminal sends Ctrl-C to the process too
            _end(process, str(folder))
            raise
        except subprocess.TimeoutExpired:
            processes.stop(process, str(folder))
            raise RunFailed(f"no end after {_LONGEST_S:.0f} s") from None
    if code:
        lines = (folder / "log").read_text(errors="replace").strip().splitlines()
        raise RunFailed(f"exit code {code}: " + " | ".join(lines[-3:])[-600:])
    return started, taken


def _end(process: "subprocess.Popen[bytes]", marker: str) -> None:
    """Let an interrupted process shut down its engine, then end it and everything it started.

    An engine interrupted during its start may not know all of its processes yet, so they are recorded first.
    """
    started = processes.record(processes.marked(marker))
    try:
        process.wait(_PATIENCE_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        processes.stop(process, marker)
    processes.end(started)


def _bare(found: JsonObject, started: float) -> JsonObject:
    ends = found["ends"]
    rows = found["rows"][1:-1]
    return {
        "start_s": ends[0] - started,
        "rounds_s": between(ends[:-1]),
        "rows_per_round": sum(rows) / len(rows) if sum(rows) else math.nan,
        "macro_recall": found["macro_recall"],
    }


def _platform(found: JsonObject, runs: Path, started: float) -> JsonObject:
    """The figures of a run folder (in a sweep: of the first run)."""
    folders = [Path(f) for f in found.get("folders", ())] or list((runs / "default").iterdir())
    folder = RunFolder.open(folders[0])
    config = folder.read_json("config.json")
    ends = _ends(folder)
    score = folder.read_json("result.json")["rows"][0]["final"]["macro_recall"]
    read: JsonObject = {
        "start_s": ends[0] - started,
        "rounds_s": between(ends[:-1]),
        "rows_per_round": _rows_per_round(folder.path),
        "macro_recall": math.nan if score is None else float(score),
        "trainer": config["engine"].get("trainer", "loop"),
    }
    for name in ("before_mb", "after_mb", "mapped_mb", "same_workers"):
        if name in found:
            read[name] = found[name]
    if len(folders) > 1:
        finished = folder.read_json("status.json")["time"]
        read["gap_s"] = _ends(RunFolder.open(folders[1]))[0] - finished
    return read


def _ends(folder: RunFolder) -> list[float]:
    """Epoch seconds at which the rounds ended, to the millisecond."""
    return [line["time"] / 1000 for line in folder.metrics()]


def _rows_per_round(path: Path) -> float:
    """Rows trained on per round, without the first and the last; NaN if no step was made or no round is left."""
    from fedimb.config.load import from_json
    from fedimb.data.federation import Federation
    from fedimb.serverapp.client_sampler import ClientSampler

    lines = RunFolder(path).metrics()[1:-1]
    if not sum(line["metrics"]["train/steps"] for line in lines):
        return math.nan
    settings = from_json((path / "config.json").read_text())
    sizes = Federation.load(path).train_sizes
    client_sampler = ClientSampler(settings.clients, settings.seed, sizes)
    rows = [sum(int(sizes[k]) for k in client_sampler.cohort(line["step"]).asked) for line in lines]
    return settings.local.epochs * sum(rows) / len(rows)
