"""How often does the monitor call a run suspect that was fine? Runs committed configurations again and counts.

    python experiments/monitor/false_alarms.py                  # 200 runs; repeat the command to continue
    python experiments/monitor/false_alarms.py --minutes 30     # as many as fit

Draws from the configurations (row, setting, seed) of every study of experiments/ whose data come with scikit-learn, and
of experiments/heart. A run that takes more than a minute of CPU time is done again with as
many rounds as fit in one. One line per run in false_alarms.csv; finished ones are not repeated.
"""

import argparse
import csv
import importlib.util
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fedimb.config.load import config_sha, row_label
from fedimb.errors import ConfigError, FedimbError
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.schema import RunConfig
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar
from fedimb.study.cells import first_config
from fedimb.study.design import Study, Words, read_study

HERE = Path(__file__).parent
STUDIES = (
    "baselines/study",
    "fairfal/digits",
    "fairfal/views",
    "fedssg/devices",
    "fedssg/public",
    "fedssg/tuning",
    "privacy/dp",
)
COLUMNS = ("study", "rows", "seed", "sha", "rounds", "of", "seconds", "status", "suspect",
           "loss_ratio", "macro_recall", "least_classes")  # fmt: skip
LIMIT_S = 60.0


class TooLongError(BaseException):
    """The run takes more than its time; not an Exception, so that it ends the run like an interrupt."""


def heart() -> list[tuple[str, Callable[[], RunConfig]]]:
    """The configurations of experiments/heart/run.py."""
    spec = importlib.util.spec_from_file_location("heart_run", HERE.parent / "heart" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    configs = [(f"heart/{task}", config) for task in module.TASKS for config in module.plan(task, 5, Path("runs"))]
    return [(name, partial(RunConfig.model_copy, config)) for name, config in configs]


def committed() -> list[tuple[str, Callable[[], RunConfig]]]:
    """(study, function that composes its configuration) of every row, setting and seed that is a run, in order."""
    found: list[tuple[str, Callable[[], RunConfig]]] = []
    for name in STUDIES:
        study = read_study(HERE.parent / f"{name}.yaml")
        for setting in study.setting_words:
            for row in study.all_rows.values():
                found += [(name, partial(composed, study, setting, row.words, seed)) for seed in study.seed_list]
    return [*found, *heart()]


def composed(study: Study, setting: str, words: Words, seed: int) -> RunConfig:
    """The configuration of one row in one setting with one seed."""
    return first_config(study, setting, words).model_copy(update={"seed": seed})


def drawn(count: int, seed: int) -> Iterator[tuple[str, RunConfig]]:
    """``count`` of them without replacement."""
    every = committed()
    order = np.random.default_rng(seed).permutation(len(every))
    for at in order[:count]:
        yield every[at][0], every[at][1]()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TooLongError after that many seconds of this process's CPU time."""

    def stop(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def run_capped(config: RunConfig, output: Path) -> RunResult:
    """Run a configuration, with fewer rounds if it does not end in `LIMIT_S`.

    Raises:
        TooLongError: not even one round fits.
        FedimbError: as `launch`.
    """
    rounds, most = config.rounds, config.rounds
    while rounds:
        target = output / f"{config_sha(config)[:12]}-{rounds}-{time.time_ns()}"
        tried = config.model_copy(update={"rounds": rounds, "output_dir": str(target), "study": "monitor"})
        try:
            with limited(LIMIT_S if most == rounds else 2 * LIMIT_S):
                return launch(tried, progress=ProgressBar(rounds, enabled=False), tracked=False)
        except TooLongError:
            done = max((len(RunFolder(path.parent).metrics()) for path in target.glob("*/*/config.json")), default=0)
            rounds = min(rounds - 1, int(0.8 * done / len(config.calibration)))
        except ConfigError:  # a method that needs a number of rounds that its cycles divide
            if rounds == most:
                raise
            rounds -= 1
    raise TooLongError


def facts(result: RunResult) -> dict[str, object]:
    """What the monitor's thresholds look at, over the run's rows."""
    lines = [line["metrics"] for line in RunFolder(result.folder).metrics() if line["row"] == result.rows[0].label]
    losses = [line["train/loss"] for line in lines if line.get("train/loss") is not None]
    ends = min(5, len(losses) // 2)
    ratio = statistics.median(losses[-ends:]) / statistics.median(losses[:ends]) if ends else float("nan")
    called = [int((row.confusion.sum(axis=0) > 0).sum()) for row in result.rows if row.confusion.ndim == 2]
    recall = result.rows[0].metrics.get("macro_recall", float("nan"))
    return {"loss_ratio": f"{ratio:.4g}", "macro_recall": f"{recall:.4g}", "least_classes": min(called, default="")}


def main() -> None:
    """Run what is missing and print the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after that many minutes")
    parser.add_argument("--output", type=Path, default=Path("runs/monitor"), help="folder of the run folders")
    args = parser.parse_args()
    torch.set_num_threads(1)
    file, stop = HERE / "false_alarms.csv", time.monotonic() + 60 * args.minutes
    done = {row["sha"]: row for row in csv.DictReader(file.open())} if file.exists() else {}
    for study, config in drawn(args.count, args.seed):
        sha = config_sha(config)[:12]
        if sha in done or time.monotonic() > stop:
            continue
        rows = " ".join(row_label(config, name) for name in config.calibration)
        line: dict[str, object] = {"study": study, "rows": rows, "seed": config.seed, "sha": sha, "of": config.rounds}
        began = time.process_time()
        try:
            result = run_capped(config, args.output)
            rounds = RunFolder(result.folder).read_json("config.json")["rounds"]
            line |= {"status": "finished", "rounds": rounds, "suspect": result.suspect, **facts(result)}
        except TooLongError:
            line |= {"status": "too long"}
        except FedimbError as error:
            line |= {"status": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        line["seconds"] = round(time.process_time() - began, 1)
        with file.open("a", newline="") as opened:
            writer = csv.DictWriter(opened, COLUMNS, restval="")
            if not done:
                writer.writeheader()
            writer.writerow(line)
        done[sha] = {key: str(value) for key, value in line.items()}
    finished = [row for row in done.values() if row["status"] == "finished"]
    alarms = [row for row in finished if row["suspect"]]
    print(f"{len(alarms)} of {len(finished)} finished runs are suspect; {len(done) - len(finished)} did not finish")
    print("\n".join(f"  {row['study']} {row['rows']} seed {row['seed']}: {row['suspect']}" for row in alarms))


if __name__ == "__main__":
    main()
