"""The CReFF line's rows in a tenth of its rounds: one line per row that has finished, in the final round.

    fedimb compare experiments/literature/creff_cifar10_short.yaml
    python experiments/literature/creff.py     # creff.csv from the run folders; then pages.py

Recalls in parts (0..1), bytes of all clients over all rounds, seconds of all clients' training. Lines of rows without
runs stay as they stand.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from fedimb.study.experiments import arguments, parser_of
from fedimb.study.folders import collect
from fedimb.study.pages import Line, merge_lines
from fedimb.study.results import Result

STUDY = "literature-creff-cifar10-short"
COLUMNS = ("macro_recall", "minority_recall", "min_class_recall", "up_bytes", "down_bytes", "client_seconds", "steps")


def lines_of(results: Iterable[Result]) -> Iterator[Line]:
    """The lines of creff.csv: finished rows.

    Raises:
        ValueError: a row is suspect, or a score of it is not there.
    """
    for result in results:
        if result.status != "finished":
            continue
        scores: Line = {name: result.score(name) for name in COLUMNS}
        absent = [name for name in COLUMNS if scores[name] != scores[name]]
        if result.suspect or absent:
            raise ValueError(f"{result.label}: {result.suspect or 'without ' + ', '.join(absent)}")
        yield {"row": result.label, "seed": result.seed} | scores


def main() -> None:
    parser = parser_of(__file__, __doc__)
    parser.set_defaults(output=Path("runs", STUDY))
    args = arguments(parser)
    merge_lines(args.to / "creff.csv", list(lines_of(collect(args.output).results)), ("row", "seed"))


if __name__ == "__main__":
    main()
