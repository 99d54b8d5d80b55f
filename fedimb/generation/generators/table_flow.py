"""Rectified flow on rows of numbers (tables and embeddings), with a small residual network.

Columns are standardised. Every column is learned as a real number. Of a table with categories, which are indicator
columns here, ``categories`` names them: each sample then has one of a column's categories, or none.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.generation.base import Progress
from fedimb.generation.categories import check_categories, nearest_categories
from fedimb.generation.examples import columns_expected
from fedimb.generation.rectified import RectifiedFlow
from fedimb.registry import register

_FREQUENCIES = 16


class _Net(nn.Module):
    """``net(z [n, columns], time [n] in 0..1000, y [n], d [n]) -> [n, columns]``."""

    def __init__(self, n_classes: int, n_domains: int, columns: int, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Linear(columns, width)
        self.time = nn.Linear(2 * _FREQUENCIES, width)
        self.class_embedding = nn.Embedding(n_classes + 1, width)
        self.domain_embedding = nn.Embedding(n_domains + 1, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.leave = nn.Linear(width, columns)

    def forward(self, z: Tensor, time: Tensor, y: Tensor, d: Tensor) -> Tensor:
        angles = time[:, None] / 1000 * torch.logspace(0, 2, _FREQUENCIES, device=z.device) * (math.pi / 2)
        conditions = self.time(torch.cat([angles.sin(), angles.cos()], 1)) + self.class_embedding(y)
        conditions = conditions + self.domain_embedding(d)
        hidden = self.enter(z) + conditions
        for block in self.blocks:
            hidden = hidden + block(hidden + conditions)  # every block gets the conditions again
        output: Tensor = self.leave(hidden)
        return output


@register("generator", "table_flow")
class TableFlow(RectifiedFlow):
    """Generates rows of a table, or embeddings, by rectified flow.

    A constant column stays constant: samples are clipped to the range seen. See `fedimb.generation.rectified`.

    Args:
        n_classes, n_domains, shape: given by fedimb; shape (columns,).
        width: of the hidden layers.
        depth: number of residual blocks.
        steps: Euler steps per sample.
        guidance: 0 is off; above 0 costs diversity.
        categories: of each categorical column and "missing" mark, its first indicator column and the one after its
            last; samples are put at the nearest category (`fedimb.generation.categories`). Empty: numbers only.
        seed: of the initial weights (given by fedimb).

    Raises:
        ConfigError: rows that are not numbers, or settings out of range.
    """

    sample_batch = 4096

    def __init__(
        self,
        n_classes: int,
        n_domains: int,
        shape: tuple[int, ...],
        *,
        width: int = 128,
        depth: int = 3,
        steps: int = 20,
        guidance: float = 0.0,
        categories: Sequence[Sequence[int]] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(n_classes, n_domains, shape, steps, guidance)
        columns = columns_expected("table_flow", shape)
        if width < 1 or depth < 1:
            raise ConfigError(f"generator 'table_flow': width={width}, depth={depth}: give at least 1 of each")
        self.categories = check_categories("table_flow", categories, shape[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = _Net(n_classes, n_domains, columns, width, depth)

    def sample(self, y: Tensor, d: Tensor, generator: torch.Generator, progress: Progress | None = None) -> Tensor:
        """See `Generator.sample`; categorical columns hold 0 and 1."""
        return nearest_categories(super().sample(y, d, generator, progress), self.categories)

    def class_rows(self) -> dict[str, int]:
        return super().class_rows() | {"net.class_embedding.weight": self.n_classes}

    def domain_rows(self) -> dict[str, int]:
        return super().domain_rows() | {"net.domain_embedding.weight": self.n_domains}
