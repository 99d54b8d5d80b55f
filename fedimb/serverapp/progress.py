"""Progress of a run, in the server process: a bar on a terminal, otherwise a line every few seconds, or nothing.

The last line of a log or a pipe is the final count, so that a reader sees whether everything was done.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from fedimb.serverapp.loop import Loop

_LINE_EVERY_S = 10.0


class ProgressBar:
    """One bar over the rounds of one or more runs.

    Args:
        total: rounds of all runs together.
        enabled: False is silent.
        unit: what is counted, if not rounds.
    """

    def __init__(self, total: int, enabled: bool = True, unit: str = "rounds") -> None:
        self._unit = unit
        self._total, self._enabled, self._done = total, enabled, 0
        self._bar: Any = None
        self._task: Any = None
        self._title = ""
        self._last_line = time.monotonic()
        self._noted: set[str] = set()
        self._unsaid = ""  # the latest count, if no line has shown it yet
        if enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[scores]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=total, scores="")
            self._bar.start()

    def title(self, text: str) -> None:
        """Show the name of the run that starts now."""
        self._title = text
        if self._bar is not None:
            self._bar.update(self._task, description=text, scores="")

    def note(self, text: str) -> None:
        """Print a line about the data or the configuration before the rounds; the same line of several runs once."""
        if self._enabled and text not in self._noted:
            self._noted.add(text)
            if self._bar is not None:  # above the bar
                self._bar.console.print(f"{self._title}: {text}", markup=False, highlight=False, soft_wrap=True)
            else:
                print(f"{self._title}: {text}", file=sys.stderr, flush=True)

    def skip(self, rounds: int) -> None:
        """Count rounds done before a resume, or in another process."""
        self._advance(rounds, "")

    def work(self, what: str, total: int) -> Callable[[int], None]:
        """Show other work of the server; returns a function to call with the number of steps just done."""
        done, shown = 0, False

        def step(n: int) -> None:
            nonlocal done, shown
            done += n
            if self._bar is not None:
                self._bar.update(self._task, scores=f"{what} {done}/{total}" if done < total else "")
            else:
                shown |= self._line(f"{what} {done}/{total}", now=shown and done >= total)

        return step

    def round(self, loop: Loop, metrics: dict[str, dict[str, float]]) -> None:
        """Show that a round has ended."""
        first = next(iter(metrics.values()), {})
        scores = ""
        if "test/macro_recall" in first:
            scores = f"macro {first['test/macro_recall']:.3f}  minority {first['test/minority_recall']:.3f}"
        self._advance(1, scores)

    def _advance(self, rounds: int, scores: str) -> None:
        self._done += rounds
        if self._bar is not None:
            self._bar.update(self._task, advance=rounds, **({"scores": scores} if scores else {}))
            return
        self._unsaid = f"{self._done}/{self._total} {self._unit}  {scores}".rstrip()
        if self._line(self._unsaid, now=self._done >= self._total):
            self._unsaid = ""

    def _line(self, text: str, now: bool = False) -> bool:
        """Print a line if it is time for one, or ``now``; returns whether it was printed."""
        moment = time.monotonic()
        if not self._enabled or not (now or moment - self._last_line >= _LINE_EVERY_S):
            return False
        self._last_line = moment
        print(f"{self._title}: {text}", file=sys.stderr, flush=True)
        return True

    def close(self) -> None:
        """Remove the bar; in a pipe, print the last count if no line has shown it."""
        if self._bar is not None:
            self._bar.stop()
        elif self._unsaid and self._line(self._unsaid, now=True):
            self._unsaid = ""

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
