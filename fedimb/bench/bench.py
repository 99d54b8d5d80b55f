"""The benchmark: fills the caches, measures the engines in turn, and reports which limits are met."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fedimb.bench.bars import Bar
from fedimb.bench.cases import Case
from fedimb.bench.measure import measure
from fedimb.bench.measurement import Figures, Measurement
from fedimb.bench.report import text, write_csv
from fedimb.errors import RunFailed


class Bench:
    """Measurements of some cases, written to ``to`` as they come in.

    Args:
        cases: cases to measure, in order.
        engines: engines to measure, among each case's engines.
        rounds: rounds per run; None: each case's own.
        repeats: measurements per case and engine.
        workers: processes of ray, bare-w and stock.
        to: folder for bench.csv and bench.txt; created if missing.
        command: the command as typed, for the report.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        engines: Sequence[str],
        rounds: int | None,
        repeats: int,
        workers: int,
        to: Path,
        command: str,
    ) -> None:
        self.cases, self.engines, self.rounds, self.repeats = cases, engines, rounds, repeats
        self.workers, self.to, self.command = workers, to, command
        self.figures = Figures()
        self.left_out: list[str] = []
        self.failed: list[str] = []

    def run(self) -> None:
        """Measure everything. A failure is recorded and the rest continues; Ctrl-C stops and keeps the measurements."""
        self.to.mkdir(parents=True, exist_ok=True)
        for case in self.cases:
            if reason := case.lacking():
                self.left_out.append(f"{case.name}: {reason}")
                _say(f"{case.name}: left out, {reason}")
                continue
            self._case(case)

    def _case(self, case: Case) -> None:
        rounds = self.rounds or case.rounds
        engines = [engine for engine in case.engines if engine in self.engines]
        work = [(label, words, engine) for label, words in case.labels().items() for engine in engines]
        for label, words in case.labels().items() if work else ():
            if self._attempt(label, "run", words, "inline", 0, 1) is None:
                return
        total = len(work) * self.repeats
        for number in range(total):
            repeat, (label, words, engine) = 1 + number // len(work), work[number % len(work)]
            _say(f"{label}: {engine}, repeat {repeat} of {self.repeats} ({number + 1} of {total}) ... ", end="")
            started = time.monotonic()
            if one := self._attempt(label, case.mode, words, engine, repeat, rounds):
                self.figures.measured.append(one)
                write_csv(self.figures.measured, self.to / "bench.csv")
                _say(f"{time.monotonic() - started:.1f} s, {1000 * one.round_s:.1f} ms per round")

    def _attempt(
        self, label: str, mode: str, words: tuple[str, ...], engine: str, repeat: int, rounds: int
    ) -> Measurement | None:
        """Do one measurement; repeat 0 only fills the caches, so that every engine finds them filled."""
        if not repeat:
            _say(f"{label}: preparing data ... ", end="")
        try:
            one = measure(label, mode, words, engine, repeat, rounds, self.workers)
        except RunFailed as error:
            what = f"{engine}, repeat {repeat}" if repeat else "preparing data"
            self.failed.append(f"{label}: {what} failed: {error}")
            _say(f"failed: {error}")
            return None
        if not repeat:
            _say(f"{one.whole_s:.1f} s")
        return one

    def bars(self) -> list[Bar]:
        """The limits of the cases that were measured."""
        measured = {case.name for case in self.cases if case.lacking() is None}
        return [bar for case in self.cases if case.name in measured for bar in case.bars]

    def report(self) -> str:
        """The report as text, also written to bench.txt."""
        remarks = [*(f"left out: {one}" for one in self.left_out), *(f"failed: {one}" for one in self.failed)]
        report = text(self.figures, self.bars(), self.command, self.workers, remarks)
        (self.to / "bench.txt").write_text(report)
        return report


def _say(line: str, end: str = "\n") -> None:
    print(line, end=end, file=sys.stderr, flush=True)
