"""How much of the term is needed where the truth is known: Gaussian rows, others, and a rare class with its own spread.

    python experiments/oneround/simulate.py     # simulated.csv; seconds

A class of three rows beside nine large ones. Needed: the c with which the mean score of the class at its own true mean
is that of the head with the true mean, the covariance being estimated from the same rows both times.
"""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedimb.discriminant import heads
from fedimb.discriminant.estimates import within_of
from fedimb.discriminant.statistics import Floats, Statistics

HERE = Path(__file__).parent
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]
RARE, CLASSES, SHRINKAGE = 3, 10, 0.5


def gaussian(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return rng.normal(size=shape)


def heavy(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Student's t of 5 degrees of freedom, whole rows long or short together; variance 1."""
    length = np.sqrt(3 / rng.chisquare(5, size=(shape[0], 1)))
    return rng.normal(size=shape) * length


def skewed(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Exponential, of mean 0 and variance 1."""
    return rng.exponential(size=shape) - 1


CASES: list[tuple[str, Draw, int, int, float, int]] = [
    ("Gaussian", gaussian, 64, 307, 1.0, 200),
    ("Gaussian, more features than rows", gaussian, 320, 280, 1.0, 40),
    ("heavy tails", heavy, 64, 307, 1.0, 200),
    ("skewed", skewed, 64, 307, 1.0, 200),
    ("rare class with half the variance", gaussian, 64, 307, 0.5, 200),
    ("rare class with twice the variance", gaussian, 64, 307, 2.0, 200),
    ("rare class with four times the variance", gaussian, 64, 307, 4.0, 200),
]
"""Name, law, features, rows, variance of the rare class against the others', draws."""


def needed(draw: Draw, width: int, rows: int, variance: float, draws: int) -> tuple[float, float, float]:
    """(needed c, its standard error, nats of one times the term)."""
    rng, found, terms = np.random.default_rng(0), [], []
    spread = np.sqrt(np.linspace(0.2, 2.0, width))
    many = (rows - RARE) // (CLASSES - 1)
    y = np.repeat(np.arange(CLASSES), [RARE, *[many] * (CLASSES - 1)])
    truth = np.zeros((CLASSES, width))
    truth[:, :CLASSES] = 2 * np.eye(CLASSES)
    scale = np.where(y == 0, np.sqrt(variance), 1.0)[:, None]
    for _ in range(draws):
        x = truth[y] + draw(rng, (len(y), width)) * spread * scale
        sums = np.zeros((CLASSES, width))
        np.add.at(sums, y, x)
        given = Statistics(np.bincount(y).astype(np.float64), sums, None, x.T @ x)
        within = within_of(given)
        head = heads.lda(given, SHRINKAGE, np.zeros(CLASSES), False, within)
        along = truth[0] @ within.basis
        best = float((np.square(along) / within.shrunk(SHRINKAGE)).sum()) / 2  # of the true mean, at itself
        term = within.effective_width(SHRINKAGE) / (2 * RARE)
        found.append((best - float(head.bias[0] + truth[0] @ head.weight[0])) / term)
        terms.append(term)
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(draws)), float(np.mean(terms))


def simulate(to: Path) -> None:
    """Write simulated.csv."""
    with (to / "simulated.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "features", "rows", "draws", "needed_c", "standard_error", "nats"])
        for name, draw, width, rows, variance, draws in CASES:
            figures = needed(draw, width, rows, variance, draws)
            writer.writerow([name, width, rows, draws, *(f"{value:.4g}" for value in figures)])
            print(name, *(f"{value:.3f}" for value in figures), flush=True)


if __name__ == "__main__":
    simulate(HERE)
