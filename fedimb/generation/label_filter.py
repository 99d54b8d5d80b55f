"""Keeps only samples whose class the real rows confirm: a filter by pseudo-labels, for every generator.

After ScaffAug (arXiv 2510.16306), which keeps confident pseudo-labels: a classifier of the real rows must recognise a
sample as the class it was made for, with a given probability; what it does not is drawn again. The classifier (logistic
regression, classes weighted equally) has seen the rows that the generator has, so it is no independent judge
(`fedimb.generation.quality.agreement`), and samples become more typical of their class.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.errors import ConfigError, DataError
from fedimb.generation.base import Generator, Progress
from fedimb.generation.examples import Examples

log = logging.getLogger("fedimb")

TRIES = 20
"""Draws of a sample before the filter gives up: enough unless fewer than one in five pass."""
_MOST_ROWS = 500  # of a class that the classifier learns from: more change little and cost much

Recogniser = Callable[[Tensor, Tensor], NDArray[np.float64]]
"""(rows [n, *shape], classes [n]) -> [n]: the probability of that class, 0 where another one is likelier."""


def recogniser(examples: Examples, seed: int) -> Recogniser:
    """A classifier of real rows.

    With rows of one class alone there is nothing to tell apart, and each sample of it is recognised.

    Args:
        examples: the rows it learns from, up to 500 of each class.
        seed: of which 500.

    Raises:
        DataError: no rows.
    """
    if len(examples.y) == 0:
        raise DataError("a filter by pseudo-labels needs real rows to learn from, and there are none")
    kept = _some(examples.y, torch.Generator().manual_seed(seed))
    rows, labels = examples.x[kept].flatten(1).double().numpy(), examples.y[kept].numpy()
    classes = np.unique(labels)
    if len(classes) == 1:
        log.warning("rows of one class only: the filter by pseudo-labels keeps every sample")
        return lambda x, y: (y.numpy() == classes[0]).astype(np.float64)
    centre, spread = rows.mean(0), rows.std(0)
    spread[spread < 1e-12] = 1.0
    model = _fit((rows - centre) / spread, labels)

    def recognise(x: Tensor, y: Tensor) -> NDArray[np.float64]:
        shares = model.predict_proba((x.flatten(1).double().numpy() - centre) / spread)
        hit = classes[shares.argmax(1)] == y.numpy()
        return np.where(hit, shares.max(1), 0.0)

    return recognise


def check_recognisable(real: Tensor, asked: Tensor, names: Sequence[str]) -> None:
    """Refuse classes of which there are no real rows: every sample of theirs would be recognised as another class.

    Args:
        real: int64 [n] classes of the rows that the classifier learns from.
        asked: int64 [m] classes of samples.
        names: of the classes.

    Raises:
        DataError: names these classes.
    """
    if lacking := sorted(set(asked.unique().tolist()) - set(real.unique().tolist())):
        raise DataError(
            f"a filter by pseudo-labels has no real rows of {', '.join(repr(names[c]) for c in lacking)}, so it would "
            "drop every sample of these classes: give it such rows, make none of these classes, or leave the "
            "generator's confidence out"
        )


def _some(y: Tensor, generator: torch.Generator) -> Tensor:
    """Positions of up to 500 rows of each class."""
    order = torch.randperm(len(y), generator=generator)
    parts = [order[y[order] == c][:_MOST_ROWS] for c in y.unique().tolist()]
    return torch.cat(parts)


def _fit(rows: NDArray[np.float64], labels: NDArray[np.int64]) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # classes that can be separated: it has no end
        return LogisticRegression(class_weight="balanced", max_iter=200).fit(rows, labels)


def recognised_samples(
    generator: Generator,
    recognise: Recogniser,
    confidence: float,
    y: Tensor,
    d: Tensor,
    rng: torch.Generator,
    names: Sequence[str],
    progress: Progress | None = None,
) -> Tensor:
    """Samples of the given classes and domains, each recognised as its class.

    Args:
        generator: drawn from again, up to 20 times, for what is not recognised. One that serves ready-made rows loses
            those that are not (`Generator.keep_only`).
        recognise: see `recogniser`.
        confidence: least probability of the class, above 0 and below 1.
        y, d: int64 [n], see `Generator.sample`.
        rng: source of all randomness.
        names: of the classes, for the error.
        progress: called with the number of samples just accepted.

    Returns:
        float32 [n, *shape].

    Raises:
        ConfigError: a generator that serves rows and does not name them.
        DataError: samples of a class are still not recognised after 20 draws; or see `Generator.sample`.
    """
    if not generator.trainable:
        _drop_unrecognised(generator, recognise, confidence)
        return generator.sample(y, d, rng, progress)
    made = torch.empty((len(y), *generator.shape))
    left = torch.arange(len(y))
    for _ in range(TRIES):
        drawn = generator.sample(y[left], d[left], rng)
        good = torch.from_numpy(recognise(drawn, y[left]) >= confidence) if len(left) else left == left
        made[left[good]] = drawn[good]
        if progress is not None:
            progress(int(good.sum()))
        left = left[~good]
        if not len(left):
            return made
    wrong = [f"'{names[c]}' ({int((y[left] == c).sum())} of {int((y == c).sum())})" for c in y[left].unique().tolist()]
    raise DataError(
        f"after {TRIES} draws each, samples are not recognised as their class with a probability of {confidence:g}: "
        f"{', '.join(wrong)}: lower the generator's confidence, train it longer, or plan none of these classes"
    )


def _drop_unrecognised(generator: Generator, recognise: Recogniser, confidence: float) -> None:
    rows = generator.rows
    if rows is None:
        raise ConfigError(f"{type(generator).__name__} does not name its rows: set its confidence to 0")
    good = torch.from_numpy(recognise(rows.x, rows.y) >= confidence)
    generator.keep_only(good)
    if not bool(good.all()):
        log.warning(
            "%d of %d ready-made rows are not recognised as their class with a probability of %g, and not used",
            int((~good).sum()), len(good), confidence,
        )  # fmt: skip
