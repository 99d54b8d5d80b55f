"""The background term of the deep simplex classifier: rows of none of the classes are kept away from the vertices.

Uncertainty-aware and dynamic-margin deep simplex classifiers (UCDSC; arXiv 2605.00675), with the equation of LA-DMDSC's
code: with d^2(f, s) the squared distance of a row's projected features to a vertex, B rows f of the batch and B_o rows
u of the background,

    sum over pairs of min(60, max(0, m + d^2(f, s_y) - d^2(u, s_y))) / (2 B B_o)

so that every background row is farther from the vertex of a row's class than the row itself, by m; a pair counts for at
most 60, so that single rows that look like a class do not dominate. UCDSC's further term on how evenly distances to the
other vertices are spread is not used: of which rows it is taken is not known here.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedimb.data.inputs import check_units
from fedimb.data.paths import find_data
from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.registry import register
from fedimb.registry.arguments import NonNegative, Positive, PositiveCount, in_range
from fedimb.training.objectives.base import LocalObjective


@register(
    "objective",
    "simplex_background",
    stackable=False,
    needs_head="simplex",
    needs_loss=("dm_simplex",),
    tasks=("multiclass",),
)
class SimplexBackground(LocalObjective):
    """Pushes rows of none of the classes away from the vertices of ``model.head=simplex``.

    Args:
        path: a .npz whose array ``x`` [n, *shape of one row] holds background rows: uint8 pictures, or numbers in the
            units that the model gets. Each client reads its own file of this name (see `fedimb.data.paths.find_data`).
        weight: of the term, >= 0.
        margin: m; 48 in UCDSC.
        most: what a pair counts for at most; 60 in the code.
        rows: B_o, background rows drawn for each batch, at least 1.

    Raises:
        ConfigError: an argument outside its range. DataError: no such file.
    """

    def __init__(
        self,
        path: str,
        weight: NonNegative = 1.0,
        margin: NonNegative = 48.0,
        most: Positive = 60.0,
        rows: PositiveCount = 32,
    ) -> None:
        where = "objective 'simplex_background'"
        self.path = path
        self.weight = in_range(where, "weight", weight, 0)
        self.margin = in_range(where, "margin", margin, 0)
        self.most = in_range(where, "most", most, 0, low_allowed=False)
        self.rows = int(in_range(where, "rows", rows, 1))
        self._x = torch.zeros(0)
        self._generator: torch.Generator | None = None

    def check_rows(self, input_shape: tuple[int, ...]) -> None:
        """Refuse a file without background rows, or with rows of another shape."""
        background_rows(find_data(self.path), input_shape)

    def before_training(self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """Read the rows.

        Raises:
            DataError: their values are of another order than those of the client's rows.
        """
        x = background_rows(find_data(self.path), tuple(inputs.shape[1:]))
        if inputs.numel():
            real = float(inputs.min()), float(inputs.max())
            where = f"objective 'simplex_background': {self.path}"
            check_units(where, float(x.min()), float(x.max()), real, inputs.numel())
        self._x, self._generator = torch.from_numpy(x).to(inputs), generator

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """The term, or None if the weight is 0."""
        if not self.weight:
            return None
        assert isinstance(model, Classifier)
        drawn = torch.randint(len(self._x), (self.rows,), generator=self._generator, device=self._x.device)
        return self.weight * background_term(logits, labels, model(self._x[drawn]), self.margin, self.most)


def background_term(logits: Tensor, labels: Tensor, background: Tensor, margin: float, most: float) -> Tensor:
    """Logits -d^2 of rows [B, C] with labels [B], and of background rows [B_o, C] -> the term above, a scalar.

    Example:
        >>> row, away = torch.tensor([[-10.0, -90.0]]), torch.tensor([[-50.0, 0.0], [-500.0, 0.0]])
        >>> background_term(row, torch.tensor([0]), away, margin=48.0, most=60.0).item()  # (48 + 10 - 50 + 0) / 4
        2.0
    """
    own = -logits.gather(1, labels[:, None])
    theirs = -background[:, labels].T
    pairs = (margin + own - theirs).clamp(0, most)
    return pairs.sum() / (2 * pairs.numel())


def background_rows(path: Path, input_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Rows [n, *input_shape] of a .npz, pictures of uint8 in 0..1.

    Raises:
        ConfigError: it is none, or its rows are of another shape or kind.
    """
    where = f"objective 'simplex_background': {path}"
    try:
        with np.load(path, allow_pickle=False) as file:
            x = file["x"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{where} is not a .npz with an array x ({error}): save the background rows as x") from error
    if x.dtype.kind not in "uif" or x.shape[1:] != input_shape or not len(x):
        raise ConfigError(f"{where} has x of {x.dtype} {list(x.shape)}: give rows of shape {list(input_shape)}")
    if not np.isfinite(x).all():
        raise ConfigError(f"{where}: x has values that are not finite")
    scaled: NDArray[np.float32] = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1)
    return scaled
