"""Equal-count controls a client can apply to its own rows: SMOTE, and drawing its real rows again.

SMOTE: Chawla et al., JAIR 2002: a point between a row and one of its k nearest neighbours of the same class. **What it
makes must never leave the client**: real records are rebuilt from it with precision 1.00, and at imbalance 20 and more
nearly all of them (Ganev et al., ICLR 2026, arXiv 2510.15083). So nothing here writes a record or a file.
"""

import torch
from torch import Tensor

from fedimb.errors import ConfigError, DataError


def smote(x: Tensor, y: Tensor, wanted: Tensor, generator: torch.Generator, k: int = 5) -> tuple[Tensor, Tensor]:
    """As many rows as wanted between rows of the same class.

    A class of fewer than two rows has no line to draw on: it gets none, however many are wanted.

    Args:
        x: [n, *shape] float.
        y: [n] int64.
        wanted: [C] int64 >= 0.
        generator: every draw comes from it.
        k: neighbours considered, fewer where the class has fewer; ties to the lower row.

    Returns:
        (x [m, *shape] of x's dtype, y [m] int64), by class; m <= wanted.sum().

    Raises:
        ConfigError: k below 1.
        DataError: rows that do not fit, or a wish below 0.
    """
    if k < 1:
        raise ConfigError(f"smote: k={k}: give at least 1 neighbour")
    _check(len(x), y, wanted)
    rows, classes = [x[:0]], [y[:0]]
    for c in torch.nonzero(wanted)[:, 0].tolist():
        members = x[y == c]
        if len(members) < 2:
            continue
        size = int(wanted[c])
        flat = members.reshape(len(members), -1).double()
        distance = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
        neighbours = distance.argsort(dim=1, stable=True)[:, : min(k, len(members) - 1)]
        base = torch.randint(len(members), (size,), generator=generator)
        other = neighbours[base, torch.randint(neighbours.shape[1], (size,), generator=generator)]
        share = torch.rand(size, generator=generator, dtype=x.dtype).view(-1, *[1] * (x.dim() - 1))
        rows.append(members[base] + share * (members[other] - members[base]))
        classes.append(torch.full((size,), c, dtype=torch.int64))
    return torch.cat(rows), torch.cat(classes)


def oversample(y: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
    """Positions of real rows to show again: [m] int64 by class, each class as wanted, its rows as evenly as possible.

    The control to every generator: rebalancing by the same number of rows, with nothing new in them. A class without
    rows gets none.

    Args:
        y: [n] int64.
        wanted: [C] int64 >= 0.
        generator: every draw comes from it.

    Raises:
        DataError: a label or wish out of range.
    """
    _check(len(y), y, wanted)
    chosen = [torch.zeros(0, dtype=torch.int64)]
    for c in torch.nonzero(wanted)[:, 0].tolist():
        members = torch.nonzero(y == c)[:, 0]
        if len(members) == 0:
            continue
        rounds, rest = divmod(int(wanted[c]), len(members))
        chosen += [members.repeat(rounds), members[torch.randperm(len(members), generator=generator)[:rest]]]
    return torch.cat(chosen)


def _check(rows: int, y: Tensor, wanted: Tensor) -> None:
    if y.shape != (rows,) or wanted.dim() != 1 or (rows and (int(y.min()) < 0 or int(y.max()) >= len(wanted))):
        raise DataError(f"give one label of 0 to {len(wanted) - 1} per row; got {list(y.shape)} labels for {rows} rows")
    if (wanted < 0).any():
        raise DataError(f"wanted rows per class must be at least 0; got {wanted.tolist()}")
