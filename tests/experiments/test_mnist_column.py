"""The MNIST column: final rounds and maxima are read from the rounds, and a cell without all seeds is said to be so."""

import csv
import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "literature"

_spec = importlib.util.spec_from_file_location("mnist_column", FOLDER / "mnist.py")
assert _spec is not None
assert _spec.loader is not None
mnist = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(mnist)


def rounds(scores: dict[int, float], row: str = "fedavg") -> list[dict[str, object]]:
    return [{"row": row, "step": step, "metrics": {"test/accuracy": score}} for step, score in scores.items()]


def test_the_scores_are_those_of_the_row_by_round():
    scores = {step: step / 100 for step in range(1, 51)} | {30: 0.9}
    other = rounds(dict.fromkeys(range(1, 51), 0.1), "another")
    unscored = [{"row": "fedavg", "step": 1, "metrics": {"train/loss": 1.0}}]
    found = mnist.accuracies([*other, *unscored, *reversed(rounds(scores))], "fedavg")
    assert (found[-1], max(found), found.index(max(found)) + 1, len(found)) == (0.5, 0.9, 30, 50)


@pytest.mark.parametrize("steps", [range(1, 50), range(5, 51, 5), [*range(1, 51), 50]])
def test_a_run_without_a_score_of_every_round_is_refused(steps):
    lines = [line for step in steps for line in rounds({step: 0.5})]
    with pytest.raises(ValueError, match="scores of"):
        mnist.accuracies(lines, "fedavg")


def test_a_cell_is_compared_when_all_its_seeds_are_there():
    said = [{"row": row, "skew": "mild", "maximum": "90.0"} for row in ("a", "b", "c")]
    of = {"a": (0.90, 0.91, 0.92), "b": (0.90, 0.92, 0.94), "c": (0.9, 0.9)}
    runs = [
        {"row": row, "skew": "mild", "seed": str(seed), "maximum": str(most), "final": str(most - 0.01)}
        for row, own in of.items()
        for seed, most in enumerate(own)
    ]
    a, b, c = mnist.compared(said, runs)
    assert (a["maximum"], a["difference"], a["final"], a["late"]) == ("91.00 ± 2.48", "+1.00", "90.00 ± 2.48", "1.00")
    assert [(one["within"], one["outside"], one["runs"]) for one in (a, b, c)] == [(1, 0, 3), (0, 1, 3), (0, 0, 2)]
    assert c["maximum"] == c["final"] == c["difference"] == "not yet"


def test_the_committed_comparison_is_that_of_the_committed_runs():
    def lines(name: str) -> list[dict[str, str]]:
        with (FOLDER / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    runs = lines("mnist.csv") if (FOLDER / "mnist.csv").exists() else []
    found = mnist.compared(lines("mnist_second_hand.csv"), runs)
    assert [{key: str(value) for key, value in one.items()} for one in found] == lines("mnist_compared.csv")
