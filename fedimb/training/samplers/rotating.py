"""Rotating batches: every epoch has equally many rows of each class, with frequent classes split over epochs.

BRIQA's rule, as far as its abstract describes it: the majority is split into K = ceil(n_maj / n_min) chunks, and epoch
e uses chunk e mod K and the whole minority, so every batch contains every class and K epochs cover everything.
"""

import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.registry import register


@register("sampler", "rotating")
class Rotating:
    """Each class has a window of w rows that moves on by w every epoch and wraps around; rarer classes repeat rows.

    Classes are interleaved, so a batch with at least as many rows as classes contains each class. The rows of a class
    are shuffled again whenever training starts: a client need not remember its chunk from round to round, and over
    rounds every row is used equally often on average.

    Args:
        rows_per_class: w. null: the number of rows of the rarest class, as in the paper. With a long tail that may be
            1, and an epoch is then one small batch; the number of steps does not change, so use about batch size /
            classes instead.

    Raises:
        ConfigError: fewer than one row.
    """

    def __init__(self, rows_per_class: int | None = None) -> None:
        if rows_per_class is not None and rows_per_class < 1:
            raise ConfigError(f"sampler 'rotating': rows_per_class={rows_per_class}: give at least 1, or null")
        self.rows_per_class = rows_per_class
        self._labels: Tensor | None = None
        self._classes: list[Tensor] = []
        self._epoch = 0

    def epoch(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Labels [n] int64 -> positions [w x classes present] int64."""
        if len(labels) == 0:
            return torch.empty(0, dtype=torch.int64, device=labels.device)
        if self._labels is None or not torch.equal(labels, self._labels):
            rows = torch.randperm(len(labels), generator=generator, device=labels.device)
            self._classes = [rows[labels[rows] == c] for c in torch.unique(labels)]
            self._labels, self._epoch = labels.clone(), 0
        window = self.rows_per_class or min(len(rows) for rows in self._classes)
        turn = torch.arange(window, device=labels.device) + self._epoch * window
        self._epoch += 1
        shown = torch.stack([rows[turn % len(rows)] for rows in self._classes])  # [classes, window]
        # Each column: one row of every class.
        mixed = torch.rand(shown.shape, generator=generator, device=labels.device).argsort(dim=0)
        return shown.gather(0, mixed).T.reshape(-1)
