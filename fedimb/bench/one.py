"""One measurement, in a separate process: ``python -m fedimb.bench.one '<request as JSON>'``.

The request names what to do (``mode``), the settings (``words``) and the file for the findings (``out``). Times are
measured by the parent process; this process reports its memory and what only it can see.
"""

import json
import math
import sys
from pathlib import Path

from fedimb.plain import JsonObject


def main(request: JsonObject) -> int:
    """Do the request and write the findings. Returns the exit code."""
    modes = {"run": _run, "bare": _bare, "scale": _scale, "sweep": _sweep}
    found = modes[request["mode"]](request["words"], int(request["workers"]))
    Path(request["out"]).write_text(json.dumps(found | _peaks()))
    return 0


def _run(words: list[str], workers: int) -> dict[str, object]:
    """Run the real command."""
    import runpy

    sys.argv = ["fedimb", "run", *words]
    try:
        runpy.run_module("fedimb", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    return {}


def _bare(words: list[str], workers: int) -> JsonObject:
    from fedimb.bench.bare import run_bare
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate

    result = run_bare(validate(compose(words)), workers)
    return {"ends": result.ends, "rows": result.rows, "macro_recall": result.macro_recall}


def _scale(words: list[str], workers: int) -> dict[str, object]:
    """A run whose memory is measured before the first round and after every round."""
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate
    from fedimb.serverapp.launch import launch
    from fedimb.serverapp.loop import Loop
    from fedimb.serverapp.progress import ProgressBar

    held: list[tuple[float, float]] = []

    class Watch(ProgressBar):
        def skip(self, rounds: int) -> None:
            held.append(held_mb())

        def round(self, loop: Loop, metrics: dict[str, dict[str, float]]) -> None:
            held.append(held_mb())

    config = validate(compose(words))
    launch(config, progress=Watch(config.rounds, enabled=False))
    return {"before_mb": held[0][0], "after_mb": held[-1][0], "mapped_mb": held[-1][1]}


def _sweep(words: list[str], workers: int) -> dict[str, object]:
    """Two runs of one worker, the second with another loss; records the actors' process ids after each."""
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate
    from fedimb.errors import RunFailed
    from fedimb.rundir.folder import RunFolder
    from fedimb.study.work import Task, Worker

    folders: list[str] = []
    workers_of: list[list[int]] = []
    worker = Worker()
    try:
        for loss in ("loss=ce", "loss=balanced_softmax"):
            done = worker.do(Task.of("run", validate(compose([*words, loss])), loss), None)
            if done.path is None:
                raise RunFailed(done.error)
            folders.append(str(done.path))
            workers_of.append(_actors(RunFolder(done.path).read_json("processes.json", {}).get("temp_dir")))
    finally:
        worker.close()
    return {"folders": folders, "same_workers": float(bool(workers_of[0]) and workers_of[0] == workers_of[1])}


def _actors(temp_dir: str | None) -> list[int]:
    """Process ids of the Ray actors of the head in ``temp_dir``: Ray names their processes after the class."""

    from fedimb.engine.processes import marked

    return [pid for pid in marked(temp_dir) if _command(pid).startswith("ray::Worker")] if temp_dir else []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""


def held_mb() -> tuple[float, float]:
    """Resident memory of this process now, megabytes: its own, and pages of files it maps; NaN without /proc.

    Mapped pages of data are shared system cache, freed when memory is needed.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return math.nan, math.nan
    kilobytes = {line.partition(":")[0]: float(line.split()[1]) for line in lines if line.startswith("Rss")}
    return (kilobytes["RssAnon"] + kilobytes["RssShmem"]) * 1024 / 1e6, kilobytes["RssFile"] * 1024 / 1e6


def _peaks() -> dict[str, float]:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    own, below = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"peak_mb": own * unit / 1e6, "others_mb": below * unit / 1e6 if below else math.nan}


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
