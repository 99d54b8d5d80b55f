"""Recall by how many sites annotate a class, of the runs of a study in this folder.

python experiments/different/by_annotators.py runs/different [--output experiments/different/by_annotators.csv]

One line per setting, row and number of annotators: the mean recall over the classes of all seeds that so many sites
annotate, and how many these are. Rows that train nothing have no run folder and no line.
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

from fedimb.data.federation import Federation
from fedimb.rundir.result import RunResult
from fedimb.study.compare import read_compared

COLUMNS = ("setting", "row", "annotators", "recall", "classes")


def lines_of(study: Path) -> list[dict[str, object]]:
    """The lines, sorted.

    Raises:
        SystemExit: every site of a run annotates every class.
    """
    found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for one in read_compared(study).results:
        if one.folder is None or one.status != "finished":
            continue
        spaces = Federation.load(one.folder).labels
        if spaces is None:
            raise SystemExit(f"{one.label}, {one.setting}, seed {one.seed}: every site annotates every class")
        recalls = RunResult.read(one.folder).rows[0].recall
        for annotators, recall in zip(spaces.annotated.sum(axis=0).tolist(), recalls, strict=True):
            found[one.setting, one.label, annotators].append(recall[0])
    return [
        dict(zip(COLUMNS, (*key, round(sum(own) / len(own), 4), len(own)), strict=True))
        for key, own in sorted(found.items())
    ]


def main() -> None:
    """Write the lines as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--output", type=Path, help="instead of the screen")
    args = parser.parse_args()
    lines = lines_of(args.study)
    with args.output.open("w", newline="") if args.output else sys.stdout as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
