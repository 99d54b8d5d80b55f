"""The MNIST column: accuracy of the final round and the maximum over rounds, beside figures known at second hand.

    fedimb compare experiments/literature/fedvls_mnist.yaml
    python experiments/literature/mnist.py     # mnist.csv from the run folders, mnist_compared.csv; then pages.py

mnist.csv: a line per row, skew and seed that has finished (parts, in 0..1); lines of cells without runs stay as they
stand. mnist_compared.csv: per cent and points, means over seeds, against mnist_second_hand.csv, whose maxima over
rounds, on test rows, are not taken from the source's own text. Without all seeds of a cell it says how many it has.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fedimb.evaluation.intervals import t_interval
from fedimb.rundir.folder import RunFolder
from fedimb.study.experiments import arguments, parser_of
from fedimb.study.folders import collect
from fedimb.study.pages import Line, Row, merge_lines, read_rows, write_lines
from fedimb.study.results import Result

HERE = Path(__file__).parent
SECOND_HAND = HERE / "mnist_second_hand.csv"
STUDY = "literature-fedvls-mnist"
SCORE = "test/accuracy"
ROUNDS = 50
SEEDS = 3
POINT = 1.0
WAITING = "not yet"


def accuracies(lines: Sequence[dict[str, object]], row: str) -> list[float]:
    """A run's test accuracy after every round, from its lines of metrics.jsonl.

    Raises:
        ValueError: the rounds are not 1 to 50, each once.
    """
    found: dict[int, float] = {}
    for line in lines:
        metrics = line["metrics"]
        if line["row"] == row and isinstance(metrics, dict) and SCORE in metrics:
            step = int(str(line["step"]))
            if step in found:
                raise ValueError(f"{row}: two scores of round {step}")
            found[step] = float(metrics[SCORE])
    if sorted(found) != list(range(1, ROUNDS + 1)):
        raise ValueError(f"{row}: scores of {len(found)} rounds, not of 1 to {ROUNDS}: set evaluation.every=1")
    return [found[step] for step in sorted(found)]


def line_of(result: Result) -> Line:
    """The line of mnist.csv of a finished run."""
    assert result.folder is not None
    scores = accuracies(RunFolder.open(result.folder).metrics(), result.row)
    best = max(scores)
    named: Line = {"row": result.label, "skew": result.setting, "seed": result.seed}
    return named | {"final": scores[-1], "maximum": best, "round_of_maximum": scores.index(best) + 1}


def compared(said: Sequence[Row], runs: Sequence[Row]) -> Iterator[Line]:
    """Ours beside the second-hand figure of every cell, as text; ``within`` and ``outside``: a point, 0 or 1."""
    for one in said:
        own = [run for run in runs if (run["row"], run["skew"]) == (one["row"], one["skew"])]
        whole = len(own) == SEEDS
        line: Line = {"row": one["row"], "skew": one["skew"], "runs": len(own), "second_hand": one["maximum"]}
        if not whole:
            waiting = dict.fromkeys(("maximum", "difference", "final", "late"), WAITING)
            yield line | waiting | {"within": 0, "outside": 0}
            continue
        most, final = ([100 * float(run[key]) for run in own] for key in ("maximum", "final"))
        gap = round(sum(most) / SEEDS - float(one["maximum"]), 2)  # as it is printed
        yield line | {
            "maximum": _with_half(most),
            "difference": f"{gap:+.2f}",
            "final": _with_half(final),
            "late": f"{sum(most) / SEEDS - sum(final) / SEEDS:.2f}",
            "within": int(abs(gap) <= POINT),
            "outside": int(abs(gap) > POINT),
        }


def _with_half(values: Sequence[float]) -> str:
    mean, low, high = t_interval(list(values))
    return f"{mean:.2f} ± {(high - low) / 2:.2f}"


def main() -> None:
    parser = parser_of(__file__, __doc__)
    parser.set_defaults(output=Path("runs", STUDY))
    args = arguments(parser)
    said = read_rows(SECOND_HAND)
    wanted = {(one["row"], one["skew"]) for one in said}
    file, lines = args.to / "mnist.csv", list[Line]()
    if args.output.is_dir():
        found = collect(args.output).results
        lines = [line_of(r) for r in found if r.status == "finished" and (r.label, r.setting) in wanted]
    if lines:
        merge_lines(file, lines, ("row", "skew"))
    runs = read_rows(file) if file.exists() else []
    write_lines(args.to / "mnist_compared.csv", list(compared(said, runs)))
    print(f"{len(runs)} of {len(said) * SEEDS} runs")


if __name__ == "__main__":
    main()
