"""What the coordinator's admission screen costs of a round: seconds inside it by a timer, and runs with and without it.

    FEDIMB_DATA_DIR=... python experiments/engine/admission.py --to experiments/engine/admission.csv

Processor seconds of the one process that does all work (engine inline), so that other work on the machine does not
count. A round is the difference between a long and a short run, divided by their rounds: start and data fall out.
Pairs: the same run with the screen, and with one that lets everything through.
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import fedimb
from fedimb.engine.admission import Admission

CASES = {
    # Few rows and a model of 650 parameters: the least work that a round can be.
    "toy": "data=digits model=logistic clients.count=20 local.epochs=1",
    "digits": "data=digits model=mlp clients.count=20 local.epochs=1",
    # A CNN of 49,000 parameters on real pictures, 20 clients.
    "fashion": "data=fashion_mnist model.width=42 clients.count=20 local.epochs=1",
}
ROUNDS = {"toy": (5, 35), "digits": (5, 35), "fashion": (1, 3)}
COMMON = "strategy=plain engine=inline tracking=none evaluation.every=1000 checkpoint.every=1000"
FIELDS = ["case", "pair", "screen", "round_ms", "inside_ms", "replies", "inside_us_per_reply", "share_percent"]


@contextmanager
def _timed(screens: bool) -> Iterator[list[float]]:
    """Seconds of each call of the screen; without it every reply passes."""
    seconds: list[float] = []
    own = Admission.refusal

    def refusal(self, *args):  # type: ignore[no-untyped-def]
        before = time.thread_time()
        found = own(self, *args) if screens else None
        seconds.append(time.thread_time() - before)
        return found

    with patch.object(Admission, "refusal", refusal):
        yield seconds


def _run(case: str, rounds: int, screens: bool, folder: str) -> tuple[float, list[float]]:
    """(processor seconds, seconds of each call of the screen) of one run."""
    before = time.process_time()
    with _timed(screens) as seconds:
        fedimb.run(f"{CASES[case]} {COMMON} rounds={rounds} output_dir={folder}")
    return time.process_time() - before, seconds


def measure(case: str, pair: int, screens: bool) -> dict[str, object]:
    """One row: a long run less a short one."""
    short, long = ROUNDS[case]
    with tempfile.TemporaryDirectory() as folder:
        _run(case, 1, screens, folder)  # imports and caches
        spent, inside = zip(*(_run(case, n, screens, folder) for n in (short, long)), strict=True)
    rounds = long - short
    round_s = (spent[1] - spent[0]) / rounds
    calls = inside[1][len(inside[0]) :]
    row = {"case": case, "pair": pair, "screen": "on" if screens else "off", "round_ms": f"{1e3 * round_s:.3f}"}
    return row | {
        "inside_ms": f"{1e3 * sum(calls) / rounds:.4f}",
        "replies": len(calls) // rounds,
        "inside_us_per_reply": f"{1e6 * sum(calls) / len(calls):.1f}",
        "share_percent": f"{100 * sum(calls) / rounds / round_s:.3f}",
    }


def main() -> None:
    """Measure the cases in turn, write each row at once, and print the medians."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--to", type=Path, required=True)
    words.add_argument("--pairs", type=int, default=3)
    words.add_argument("--cases", nargs="*", default=list(CASES))
    args = words.parse_args()
    rows = []
    with args.to.open("w", newline="") as out:
        table = csv.DictWriter(out, FIELDS)
        table.writeheader()
        for case in args.cases:
            for pair in range(args.pairs):
                for screens in (True, False) if pair % 2 == 0 else (False, True):
                    rows.append(measure(case, pair, screens))
                    table.writerow(rows[-1])
                    out.flush()
    for case in args.cases:
        shares, rounds = (
            [float(r[key]) for r in rows if (r["case"], r["screen"]) == (case, "on")]
            for key in ("share_percent", "round_ms")
        )
        print(f"{case}: {statistics.median(shares):.2f} % of a round of {statistics.median(rounds):.1f} ms")


if __name__ == "__main__":
    main()
