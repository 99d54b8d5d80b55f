"""Which classes a generator learns, and which it learns by heart, while it is trained on unequal classes.

A diagnosis after "Interplay of Data Structure and Imbalance" (arXiv 2605.06367), where a class's own variance decides
when a diffusion model learns it, and imbalance may turn the order round. Losses are those of the weights as they stand,
not of their running average, which is the trained generator.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.errors import DataError
from fedimb.generation.base import Generator
from fedimb.generation.examples import Examples
from fedimb.generation.export import LEVELS


@dataclass(frozen=True)
class ClassPoint:
    """One class at one step of a generator's training.

    Attributes:
        step: optimiser steps done.
        label: class id.
        loss, loss_held_out: mean loss over the levels, of the rows it learns from and of others.
        memorised: how often a row it learns from has a lower loss than another row of the class (AUC of that membership
            attack): .5 is none, 1 all.
    """

    step: int
    label: int
    loss: float
    loss_held_out: float
    memorised: float


def class_variances(rows: Examples, n_classes: int) -> NDArray[np.float64]:
    """Total variance of each class's own rows (summed over pixels or columns, as they are): [C]; NaN below two rows."""
    flat, y = rows.x.flatten(1).double().numpy(), rows.y.numpy()
    own = [flat[y == c] for c in range(n_classes)]
    return np.array([part.var(axis=0, ddof=1).sum() if len(part) > 1 else np.nan for part in own])


class ClassCurves:
    """Measures each class while a generator is trained: pass it to `train_generator` as ``progress``.

    Training is not disturbed: it gives the same weights, bit for bit.

    Args:
        generator: the one that is trained.
        learned: the rows it learns from.
        held_out: rows of the same classes that it does not learn from.
        every: steps between measurements, at least 1.
        seed: of the noise, the same for each measurement.

    Attributes:
        points: what was measured, by step and class.

    Raises:
        DataError: a class with rows on one side only.
        ValueError: ``every`` below 1.
    """

    def __init__(self, generator: Generator, learned: Examples, held_out: Examples, every: int, seed: int) -> None:
        sides = [set(rows.y.tolist()) for rows in (learned, held_out)]
        if sides[0] != sides[1] or not sides[0]:
            raise DataError(
                f"curves of a class need rows that it learns from and others; classes {sorted(sides[0])} are learned, "
                f"and {sorted(sides[1])} held out"
            )
        if every < 1:
            raise ValueError(f"every={every}: give at least 1 step")
        self.generator, self.learned, self.held_out = generator, learned, held_out
        self.every, self.seed = every, seed
        self.points: list[ClassPoint] = []
        self._step = 0

    def __call__(self, done: int) -> None:
        """Count the steps just done, and measure if a multiple of ``every`` was reached."""
        before, self._step = self._step, self._step + done
        if self._step // self.every > before // self.every:
            self.points += self.measure(self._step)

    def measure(self, step: int) -> list[ClassPoint]:
        """Every class as the generator stands now."""
        losses = [self._losses(rows) for rows in (self.learned, self.held_out)]
        found = []
        for label in sorted(set(self.learned.y.tolist())):
            own, other = (
                loss[rows.y == label] for loss, rows in zip(losses, (self.learned, self.held_out), strict=True)
            )
            less = (own[:, None] < other).double() + 0.5 * (own[:, None] == other).double()
            found.append(ClassPoint(step, label, float(own.mean()), float(other.mean()), float(less.mean())))
        return found

    @torch.no_grad()
    def _losses(self, rows: Examples) -> Tensor:
        """Mean loss of each row over the levels: float64 [n]."""
        total = torch.zeros(len(rows.y), dtype=torch.float64)
        for level in LEVELS:
            noise = torch.Generator().manual_seed(self.seed)
            total += self.generator.losses_at(rows.x, rows.y, rows.d, level, noise).cpu().double()
        return total / len(LEVELS)
