"""``fedimb bench``: what the platform costs compared with plain torch and with stock Flower."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.errors import ConfigError, nearest

if TYPE_CHECKING:
    from fedimb.bench.bench import Bench
    from fedimb.bench.cases import Case
    from fedimb.cli.output.parts import BenchCases, BenchResult
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Benchmark the platform against the same work written by hand in torch (bare) and against Flower's own simulation
(stock). Prints times, ratios, and whether each ratio is within its limit. Every measurement is a separate process;
do not use the machine for anything else meanwhile. Writes bench.csv and bench.txt.

  fedimb bench                                  all cases, three times: about an hour on two cores
  fedimb bench table noop --repeat 1            two cases, once
  fedimb bench table --engines inline,stock     two engines of a case
  fedimb bench --list                           list cases, engines and limits
  fedimb bench --to experiments/engine          write the results to another folder"""

_TO = "runs/bench"


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    bench = verbs.add_parser("bench", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    bench.add_argument("cases", nargs="*", metavar="CASE", help="cases to measure (default: all; see --list)")
    bench.add_argument(
        "--engines", metavar="A,B", help="some of inline, ray, bare, bare-w, stock (default: all of a case)"
    )
    bench.add_argument("--rounds", type=int, metavar="N", help="rounds per run, 3 or more (default: the case's own)")
    bench.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="measurements per case and engine (default 3)"
    )
    bench.add_argument(
        "--workers", type=int, metavar="W", help="processes of ray, bare-w and stock (default: one per core)"
    )
    bench.add_argument(
        "--to", type=Path, default=Path(_TO), metavar="DIR", help=f"folder for bench.csv and bench.txt (default {_TO})"
    )
    bench.add_argument("--list", action="store_true", help="print cases, engines and limits, and stop")
    bench.set_defaults(handler=bench_command)


def bench_command(args: argparse.Namespace) -> "BenchResult | BenchCases":
    """``fedimb bench``. The exit code is 1 if a measurement failed, else 0, whatever the verdicts.

    Raises:
        ConfigError: unknown case or engine, a number out of range, or nothing can be measured here.
    """
    from fedimb.bench.cases import CASES, ENGINES

    cases = [CASES[name] for name in _known(args.cases or list(CASES), list(CASES), "case")]
    engines = _known((args.engines or ",".join(ENGINES)).split(","), list(ENGINES), "engine")
    if args.list:
        if not args.json:
            print(listing(args.cases))
        return _cases(cases)
    for name, value, least in (("rounds", args.rounds, 3), ("repeat", args.repeat, 1), ("workers", args.workers, 1)):
        if value is not None and value < least:
            raise ConfigError(f"--{name} {value}: give at least {least}")
    reasons = [f"{case.name}: {reason}" for case in cases if (reason := case.lacking())]
    if len(reasons) == len(cases):
        raise ConfigError(f"nothing to measure: {'; '.join(reasons)}; set FEDIMB_DATA_DIR to the folder with the data")
    if not any(set(case.engines) & set(engines) for case in cases):
        raise ConfigError(f"nothing to measure: none of these cases has engine {', '.join(engines)}; see --list")
    from fedimb.bench.bench import Bench
    from fedimb.bench.report import cores

    command = shlex.join(["fedimb", *sys.argv[1:]])
    bench = Bench(cases, engines, args.rounds, args.repeat, args.workers or cores(), args.to, command)
    try:
        bench.run()
    except KeyboardInterrupt:
        print("\ninterrupted; results so far:", file=sys.stderr)
        print(bench.report())
        return _result(bench, 130)
    text = bench.report()
    if not args.json:
        print(text)
    return _result(bench, 1 if bench.failed else 0)


def _cases(cases: "Sequence[Case]") -> "BenchCases":
    from fedimb.bench.cases import ENGINES
    from fedimb.cli.output.parts import BenchCase, BenchCases

    shown = [
        BenchCase(
            name=case.name, about=case.about, rounds=case.rounds, engines=list(case.engines), lacking=case.lacking()
        )
        for case in cases
    ]
    return BenchCases(cases=shown, engines=dict(ENGINES))


def _result(bench: "Bench", exit_code: int) -> "BenchResult":
    from dataclasses import asdict

    from fedimb.cli.output.parts import BenchResult

    files = [path for name in ("bench.csv", "bench.txt") if (path := bench.to / name).exists()]
    return BenchResult(
        measurements=[asdict(one) for one in bench.figures.measured],
        failed=bench.failed,
        left_out=bench.left_out,
        files=list(map(str, files)),
        exit_code=exit_code,
    )


def _known(names: Sequence[str], valid: Sequence[str], kind: str) -> list[str]:
    for name in names:
        if name not in valid:
            raise ConfigError(f"no {kind} '{name}'.{nearest(name, valid)}")
    return list(dict.fromkeys(names))


def listing(chosen: Sequence[str]) -> str:
    """Cases with their engines and limits, then a description of the engines."""
    from fedimb.bench.cases import CASES, ENGINES

    lines = []
    for case in CASES.values():
        if chosen and case.name not in chosen:
            continue
        lines += [f"{case.name:8} {case.about}", f"         {case.rounds} rounds on {', '.join(case.engines)}"]
        if reason := case.lacking():
            lines.append(f"         cannot be measured here: {reason}")
        for bar in case.bars:
            if bar.limit is not None:
                least, limit = bar.limit
                unit = f" {bar.unit}" if bar.unit else ""
                what = bar.what.removeprefix(f"{case.name}: ")
                lines.append(f"         {what}: at {'least' if least else 'most'} {limit:g}{unit}")
    return "\n".join([*lines, "", *(f"{name:8} {about}" for name, about in ENGINES.items())])
