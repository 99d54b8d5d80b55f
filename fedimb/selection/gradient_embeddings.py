"""Last-layer gradients as embeddings, stored as two factors.

BADGE (Ash et al., ICLR 2020, section 3): g(x) = concat_c (1{c = y~} - p_c) phi(x), the gradient of the cross-entropy
with respect to the head's weights (up to its sign), with y~ the model's own prediction. It is an outer product, so
<g_i, g_j> = <r_i, r_j> <phi_i, phi_j> with the residual r = onehot(y~) - p: every distance follows from [n, C] and [n,
D], and the [n, C x D] matrix is never built.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedimb.selection.uncertainty import probabilities

_CELLS = 2_000_000  # distances per block, 16 MB of float64
_NOISE = 1e-13  # relative to |a|^2 + |b|^2: a squared distance below it is a rounding error


@dataclass(frozen=True)
class Factored:
    """Rows whose inner product is the product of their factors' inner products. With a single factor these are ordinary
    vectors.

    Attributes:
        factors: [n, *] float64 each. float64, because |a|^2 + |b|^2 - 2ab cancels: in float32 distances of close rows
            would be noise, and the order of choice would depend on the machine.
        squared_norms: [n] float64.
    """

    factors: tuple[Tensor, ...]
    squared_norms: Tensor

    @staticmethod
    def of(*factors: Tensor) -> "Factored":
        """Rows from their factors, each [n, *]; ValueError unless there is at least one and all have the same
        length."""
        if not factors or len({len(factor) for factor in factors}) > 1:
            raise ValueError(f"factored rows need factors of one length; got {[len(f) for f in factors]}")
        wide = tuple(factor.double() for factor in factors)
        norms = torch.ones(len(wide[0]), dtype=torch.float64)
        for factor in wide:
            norms *= torch.linalg.vecdot(factor, factor)
        return Factored(wide, norms)

    def __len__(self) -> int:
        """Rows, n."""
        return len(self.squared_norms)

    def rows(self, positions: Tensor) -> "Factored":
        """The rows at these positions."""
        return Factored(tuple(factor[positions] for factor in self.factors), self.squared_norms[positions])

    def squared_distances(self, others: "Factored") -> Tensor:
        """To each of ``others``: [n, len(others)] float64, at least 0; exactly 0 for rows that differ only by
        rounding."""
        inner = self.factors[0] @ others.factors[0].T
        for mine, theirs in zip(self.factors[1:], others.factors[1:], strict=True):
            inner *= mine @ theirs.T
        both = self.squared_norms[:, None] + others.squared_norms
        squared = torch.add(both, inner, alpha=-2, out=inner)
        return squared.masked_fill_(squared <= both.mul_(_NOISE), 0.0)

    def nearest(self, others: "Factored") -> Tensor:
        """Squared distance to the nearest of ``others``: [n] float64; infinite if there are none."""
        found = torch.full((len(self),), torch.inf, dtype=torch.float64)
        width = 512
        height = _CELLS // width
        for top in range(0, len(self), height):
            block = self.rows(torch.arange(top, min(top + height, len(self))))
            for left in range(0, len(others), width):
                part = others.rows(torch.arange(left, min(left + width, len(others))))
                near = found[top : top + height]
                torch.minimum(near, block.squared_distances(part).amin(1), out=near)
        return found


def gradient_embeddings(features: Tensor, logits: Tensor, labels: Tensor | None = None) -> Factored:
    """BADGE's embeddings, as factors.

    Args:
        features: [n, D] phi.
        logits: [n, C] of the model whose residual is used (FairFAL may use features and logits of different models).
        labels: [n] int64 if known; None: the model's own predictions.

    Returns:
        Rows with factors (residual [n, C], features [n, D]).
    """
    p = probabilities(logits)
    target = p.argmax(1) if labels is None else labels
    residual = torch.nn.functional.one_hot(target, p.shape[1]).double() - p
    return Factored.of(residual, features)
