"""fedimb beside pfl-research, fluke and Flower: the same work, in turn, everything measured in separate processes.

  sh environments.sh ENVIRONMENTS
  python bench.py --environments ENVIRONMENTS --to ..           all cases, three times in turn
  python bench.py --environments ENVIRONMENTS digits --repeat 1

Writes peers.csv (every measurement) and peers.txt (the machine, medians, verdicts) as they come in; a measurement that
failed or has no environment is named in peers.txt and does not stop the others.
"""

import argparse
import csv
import json
import math
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from fedimb.bench.cases import CASES, size_words
from fedimb.bench.measure import common_words, engine_words
from fedimb.bench.measurement import between
from fedimb.bench.process_tree import Ran, run_tree
from fedimb.bench.report import commit_of, cores, machine
from fedimb.process_env import QUIET
from fedimb.rundir.folder import RunFolder

HERE = Path(__file__).resolve().parent
_MILLION = (*CASES["scale"].words, *size_words(1_000_000))
WORDS = {name: CASES[name].words for name in ("digits", "table", "cifar")} | {"scale-1000000": _MILLION}
PROGRAMS = {
    "inline": "fedimb, engine=inline: one process",
    "ray": "fedimb, engine=ray: one worker per core",
    "bare": "by hand in torch, one process",
    "pfl": "pfl-research 0.6, one process",
    "fluke": "fluke 0.8.1, one process",
    "flower": "Flower's simulation with an app as its quickstart has it, one CPU per client",
    "stock": "Flower's simulation with fedimb's app, one CPU per client",
}
OTHERS = ("bare", "pfl", "fluke", "flower", "stock")
FIGURES = ("start_s", "round_s", "whole_s", "cpu_s", "tree_mb", "macro_recall", "steps")
_DIFFER = 0.02
Figures = dict[str, float]


def measure(program: str, words: list[str], work: Path, rounds: int, environments: Path, folder: Path) -> Figures:
    """Measure one program once.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    environment = QUIET | os.environ | {"OMP_NUM_THREADS": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    out = folder / "found.json"
    if program in ("pfl", "fluke"):
        environment.pop("PYTHONPATH", None)
        call = [str(environments / program / "bin" / "python"), str(HERE / f"with_{program}.py"), str(work), str(out)]
    elif program == "flower":
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE), environment.get("PYTHONPATH", "")])  # for Ray's workers
        call = [sys.executable, str(HERE / "with_flower.py"), str(work), str(out), str(cores())]
    else:
        more = [*common_words(rounds, folder / "runs"), *engine_words(program, cores())]
        mode = "bare" if program == "bare" else "run"
        request = {"mode": mode, "words": [*words, *more], "workers": 1, "out": str(out)}
        call = [sys.executable, "-m", "fedimb.bench.one", json.dumps(request)]
    ran = run_tree(call, folder / "log", environment)
    if ran.code:
        lines = (folder / "log").read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"exit code {ran.code}: {' | '.join(lines[-3:])[-500:]}")
    return _figures(ran, json.loads(out.read_text()), folder / "runs")


def _figures(ran: Ran, found: dict[str, object], runs: Path) -> Figures:
    steps = math.nan
    if "ends" in found:
        ends, recall, steps = found["ends"], found["macro_recall"], found.get("steps", math.nan)
    else:
        run = RunFolder.open(next((runs / "default").iterdir()))
        lines = run.metrics()
        ends, steps = [line["time"] / 1000 for line in lines], sum(line["metrics"]["train/steps"] for line in lines)
        recall = run.read_json("result.json")["rows"][0]["final"]["macro_recall"]
    between_ends = between(ends[:-1])
    return {
        "start_s": ends[0] - ran.started,
        "round_s": statistics.median(between_ends) if between_ends else math.nan,
        "whole_s": ran.whole_s,
        "cpu_s": ran.cpu_s,
        "tree_mb": ran.tree_mb,
        "macro_recall": recall,
        "steps": steps,
    }


class Bench:
    """All measurements of one call, written as they come in."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.lines: list[dict[str, object]] = []
        self.remarks: list[str] = []

    def run(self) -> None:
        with tempfile.TemporaryDirectory(prefix="fedimb-peers-") as temp:
            for case in self.args.cases:
                rounds = self.args.rounds or CASES[case.partition("-")[0]].rounds
                words, work = list(WORDS[case]), Path(temp) / case
                if reason := CASES[case.partition("-")[0]].lacking():
                    self.remarks.append(f"{case}: left out: {reason}")
                    continue
                settings = json.dumps([*words, f"rounds={rounds}", "tracking=none"])
                self._step(case, "export", lambda: _export(work, settings, Path(temp)))  # noqa: B023
                for repeat in range(1, self.args.repeat + 1):
                    for program in self.args.programs:
                        self._measure(case, program, repeat, words, work, rounds)
                self._write()

    def _measure(self, case: str, program: str, repeat: int, words: list[str], work: Path, rounds: int) -> None:
        if program in ("pfl", "fluke") and not (self.args.environments / program / "bin" / "python").exists():
            self._say(f"{case}: {program}: left out: no environment, see environments.sh")
            return
        with tempfile.TemporaryDirectory(prefix="fedimb-peers-", ignore_cleanup_errors=True) as temp:
            folder = Path(temp)
            found = self._step(
                case, program, lambda: measure(program, words, work, rounds, self.args.environments, folder)
            )
        if found:
            self.lines.append({"case": case, "program": program, "repeat": repeat, "rounds": rounds, **found})
            print(f"{case}: {program}, repeat {repeat}: {found}", file=sys.stderr, flush=True)
            self._write()

    def _step(self, case: str, what: str, do: Callable[[], Figures]) -> Figures:
        try:
            return do()
        except (RuntimeError, OSError) as error:
            self._say(f"{case}: {what}: failed: {error}")
            return {}

    def _say(self, remark: str) -> None:
        print(remark, file=sys.stderr, flush=True)
        if remark not in self.remarks:
            self.remarks.append(remark)

    def _write(self) -> None:
        self.args.to.mkdir(parents=True, exist_ok=True)
        commit = commit_of(HERE)
        with open(self.args.to / "peers.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["case", "program", "repeat", "rounds", *FIGURES, "commit"])
            for line in self.lines:
                numbers = ["" if math.isnan(float(str(line[name]))) else f"{line[name]:.4f}" for name in FIGURES]
                writer.writerow([line["case"], line["program"], line["repeat"], line["rounds"], *numbers, commit])
        command = shlex.join(["python", "experiments/engine/peers/bench.py", *sys.argv[1:]])
        parts = [machine(command), self._table(), self._verdicts(), "\n".join(self.remarks)]
        (self.args.to / "peers.txt").write_text("\n\n".join(part for part in parts if part) + "\n")

    def median(self, case: str, program: str, name: str) -> float:
        """Median over repeats; NaN if not measured."""
        values = [float(str(ln[name])) for ln in self.lines if (ln["case"], ln["program"]) == (case, program)]
        return statistics.median(values) if values else math.nan

    def _table(self) -> str:
        rows = [f"{'case':14}{'program':9}" + "".join(f"{name:>13}" for name in FIGURES)]
        for case, program in dict.fromkeys((str(ln["case"]), str(ln["program"])) for ln in self.lines):
            numbers = "".join(f"{self.median(case, program, name):13.3f}" for name in FIGURES)
            rows.append(f"{case:14}{program:9}{numbers}")
        return "\n".join(rows)

    def _verdicts(self) -> str:
        """Ratios of the others to fedimb inline, and whether they did the same work."""
        rows = []
        for case in dict.fromkeys(str(ln["case"]) for ln in self.lines):
            for program in OTHERS:
                ratios = {n: self.median(case, program, n) / self.median(case, "inline", n) for n in FIGURES[1:5]}
                if math.isnan(ratios["whole_s"]):
                    continue
                off = abs(self.median(case, program, "macro_recall") - self.median(case, "inline", "macro_recall"))
                same = "same macro recall" if off <= _DIFFER else "OTHER MACRO RECALL"
                shown = ", ".join(f"{name.partition('_')[0]} {value:.2f}" for name, value in ratios.items())
                rows.append(f"{case}: {program} / inline: {shown}; {same} (within {_DIFFER}: {off:.4f})")
        return "\n".join(rows)


def _export(work: Path, settings: str, folder: Path) -> Figures:
    """Write the work with fedimb, which also fills its cache of data."""
    call = [sys.executable, str(HERE / "export.py"), str(work), settings]
    ran = run_tree(call, folder / "export.log", QUIET | os.environ)
    if ran.code:
        raise RuntimeError((folder / "export.log").read_text(errors="replace")[-500:])
    return {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(WORDS)} (default: all)")
    parser.add_argument("--environments", type=Path, required=True, metavar="DIR", help="made by environments.sh")
    parser.add_argument("--programs", default=",".join(PROGRAMS), metavar="A,B", help=f"of {', '.join(PROGRAMS)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds, 4 or more (default: as fedimb bench)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="measurements of each (default 3)")
    parser.add_argument("--to", type=Path, default=HERE.parent, metavar="DIR", help="folder of peers.csv, peers.txt")
    args = parser.parse_args()
    args.programs, args.cases = args.programs.split(","), args.cases or list(WORDS)
    for name, given, valid in (("case", args.cases, WORDS), ("program", args.programs, PROGRAMS)):
        if wrong := [one for one in given if one not in valid]:
            parser.error(f"no {name} '{wrong[0]}': {', '.join(valid)}")
    if args.repeat < 1 or (args.rounds is not None and args.rounds < 4):
        parser.error("give --repeat of at least 1 and --rounds of at least 4")
    bench = Bench(args)
    bench.run()
    print((args.to / "peers.txt").read_text())
    return 1 if bench.remarks else 0


if __name__ == "__main__":
    sys.exit(main())
