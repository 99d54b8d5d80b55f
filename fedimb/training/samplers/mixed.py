"""Real and synthetic rows in one epoch: real rows by the configured sampler, each synthetic row with probability
lambda.

FedSSG's lambda_syn (arXiv 2604.26324, reconstructed). Not registered: only the client knows how many rows are
synthetic, so its code wraps the configured sampler.
"""

import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.training.spec import Sampler


def mixed_epoch(inner: Sampler, labels: Tensor, n_real: int, share: float, generator: torch.Generator) -> Tensor:
    """One epoch's order of visit: positions [m] int64 among ``n_real`` real rows followed by the synthetic ones.

    Real rows come in the inner sampler's order, each synthetic row at most once, at a random place between them.
    Without synthetic rows the order and the generator's state are those of the inner sampler.

    Args:
        inner: sampler of the real rows; it does not get the synthetic ones.
        labels: [n] int64, the first ``n_real`` of real rows.
        share: probability of a visit to each synthetic row, [0, 1].
        generator: every draw comes from it.

    Raises:
        ConfigError: a share outside [0, 1], or more real rows than labels.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share of synthetic rows visited per epoch: {share}: give a number from 0 to 1")
    if not 0 <= n_real <= len(labels):
        raise ConfigError(f"{n_real} real rows among {len(labels)} labels: give 0 to {len(labels)}")
    order = inner.epoch(labels[:n_real], generator)
    synthetic = len(labels) - n_real
    if synthetic == 0:
        return order
    # float64 draws are below 1, so a share of 1 visits all and a share of 0 none.
    at = labels.device
    drawn = torch.rand(synthetic, generator=generator, dtype=torch.float64, device=at)
    visited = torch.nonzero(drawn < share)[:, 0] + n_real
    visited = visited[torch.randperm(len(visited), generator=generator, device=at)]
    place = torch.randperm(len(order) + len(visited), generator=generator, device=at)
    mixed = torch.empty(len(place), dtype=torch.int64, device=at)
    mixed[place[: len(visited)]] = visited
    mixed[place[len(visited) :].sort().values] = order
    return mixed


class Mixed:
    """`mixed_epoch` as a sampler.

    Args:
        inner, n_real, share: see `mixed_epoch`.
    """

    def __init__(self, inner: Sampler, n_real: int, share: float = 0.5) -> None:
        self.inner, self.n_real, self.share = inner, n_real, share

    def epoch(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Labels [n] int64 of real rows, then synthetic ones -> positions [m] int64."""
        return mixed_epoch(self.inner, labels, self.n_real, self.share, generator)
