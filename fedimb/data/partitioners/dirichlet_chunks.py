"""Label skew by blocks of clients, then equal chunks: the partition of the CReFF line.

CReFF (Shang et al., IJCAI 2022), FedNPC, FedYoYo, CLIP2FL and FedLF share it. Clients come in blocks of ten, each with
rows of its own; within a block every class is spread by a Dirichlet draw in which a client that already has its share
of the rows takes part no more; and the lists, one after another, are cut again into chunks of equal size.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedimb.data.quotas import deal_units, dirichlet_shares, largest_remainder
from fedimb.errors import ConfigError
from fedimb.registry import register

_TRIES = 100
_SMALLEST = 0.5  # of the mean: a draw with a smaller client is drawn again


@register("partition", "dirichlet_chunks")
class DirichletChunks:
    """Equal client sizes from unequal Dirichlet draws: as `dirichlet`, with full clients left out, cut into chunks.

    A chunk may hold the end of one draw and the start of the next, so mixes are milder than alpha says. Rows are cut
    by number, so there is no argument ``patients``: data whose source names patients need another partition.

    Args:
        alpha: >= 1e-6; small is skewed, 100 is near uniform.
        block: clients that share one Dirichlet draw per class, at least 1; the last block may be smaller.
    """

    def __init__(self, alpha: float = 0.5, block: int = 10) -> None:
        if not (math.isfinite(alpha) and alpha >= 1e-6):
            raise ConfigError(f"partition 'dirichlet_chunks': alpha={alpha}: give a finite number of at least 1e-6")
        if block < 1:
            raise ConfigError(f"partition 'dirichlet_chunks': block={block}: give at least 1")
        self.alpha, self.block = alpha, block

    def __call__(self, y: NDArray[np.int64], n_clients: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """``n_clients`` sorted int64 lists of positions into ``y`` [n]; a list may be empty."""
        order = rng.permutation(len(y))
        blocks = np.array([min(self.block, n_clients - start) for start in range(0, n_clients, self.block)])
        ends = np.cumsum(largest_remainder(blocks / n_clients, len(y)))
        parts = zip(np.split(order, ends[:-1]), blocks.tolist(), strict=True)
        drawn = [rows for part, clients in parts for rows in self._draw(part, y[part], clients, rng)]
        sizes = largest_remainder(np.full(n_clients, 1 / n_clients), len(y))
        return [np.sort(rows) for rows in np.split(np.concatenate(drawn), np.cumsum(sizes)[:-1])]

    def _draw(
        self, rows: NDArray[np.int64], y: NDArray[np.int64], clients: int, rng: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """One block's rows by client: the first draw without a small client, or the most even of `_TRIES`."""
        full, most = len(rows) / clients, -1
        best: list[NDArray[np.int64]] = []
        for _ in range(_TRIES):
            found: list[list[NDArray[np.int64]]] = [[] for _ in range(clients)]
            held = np.zeros(clients, np.int64)
            for c in np.unique(y):
                members = rows[y == c]
                shares = dirichlet_shares(self.alpha, clients, rng) * (held < full)
                if not shares.sum() > 0:  # all that is open has a share of 0 in float64
                    shares = (held < full).astype(np.float64)
                quotas = largest_remainder(shares / shares.sum(), len(members))
                owner = deal_units(np.ones(len(members), np.int64), quotas)
                for k in range(clients):
                    found[k].append(members[owner == k])
                held += quotas
            if held.min() > most:
                most, best = int(held.min()), [np.concatenate(one) if one else rows[:0] for one in found]
            if most >= int(_SMALLEST * full):
                break
        return best
