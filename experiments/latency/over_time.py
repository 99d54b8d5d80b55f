"""Scores of a latency study at equal virtual time: each run at the time that its FedBuff twin needed, and at its end.

python experiments/latency/over_time.py runs/latency [--row buffered] [--output experiments/latency/over_time.csv]

One line per run: its setting, row, seed; the end of the run (virtual seconds, client updates, scores); and the last
scored round before the twin's end (the same setting and seed, row ``--row``, or ``--row`` + ``+bs`` for rows that end
so).
"""

import argparse
import csv
import json
import math
from pathlib import Path

from fedimb.rundir.folder import RunFolder
from fedimb.study.compare import read_compared

SCORES = ("minority_recall", "macro_recall")
COLUMNS = (
    *("setting", "row", "seed", "virtual_s", "updates", *SCORES),
    *("twin_virtual_s", "at_virtual_s", "at_updates", *(f"at_{name}" for name in SCORES)),
)


def course(folder: Path) -> list[dict[str, float]]:
    """The scored rounds of a run: virtual seconds and client updates so far, and scores."""
    updates, found = 0.0, []
    for line in RunFolder(folder).metrics():
        metrics = line["metrics"]
        updates += metrics.get("data/replies", 0.0)
        if "test/macro_recall" not in metrics:
            continue
        scores = {name: math.nan if metrics[f"test/{name}"] is None else metrics[f"test/{name}"] for name in SCORES}
        found.append({"virtual_s": metrics["time/virtual_s"], "updates": updates, **scores})
    return found


def lines_of(study: Path, row: str) -> list[dict[str, object]]:
    """One line per finished run, sorted.

    Raises:
        SystemExit: a run's twin is not there.
    """
    results = read_compared(study).results
    runs = {(one.setting, one.label, one.seed): course(one.folder) for one in results if one.folder is not None}
    lines: list[dict[str, object]] = []
    for (setting, label, seed), rounds in sorted(runs.items()):
        twin = (setting, f"{row}+bs" if label.endswith("+bs") else row, seed)
        if twin not in runs:
            raise SystemExit(f"{label}, {setting}, seed {seed}: no run of {twin[1]}; run `fedimb compare` to its end")
        until = runs[twin][-1]["virtual_s"]
        before = [one for one in rounds if one["virtual_s"] <= until]
        then = before[-1] if before else dict.fromkeys(rounds[0], math.nan)
        line: dict[str, object] = {"setting": setting, "row": label, "seed": seed, **rounds[-1]}
        lines.append(line | {"twin_virtual_s": until} | {f"at_{key}": value for key, value in then.items()})
    return lines


def main() -> None:
    """Write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the study's folder, such as runs/latency")
    parser.add_argument("--row", default="buffered", help="the row whose virtual time all are given")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("over_time.csv"))
    args = parser.parse_args()
    lines = lines_of(args.study, args.row)
    with args.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print(json.dumps({"lines": len(lines), "output": str(args.output)}))


if __name__ == "__main__":
    main()
