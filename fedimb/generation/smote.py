"""Equal-count controls a client can apply to its own rows: SMOTE, and repeating real rows.

SMOTE (Chawla et al., JAIR 2002) draws a point between a row and one of its k nearest neighbours of the same class.
**Its output must never leave the client**: real records can be reconstructed from it with precision 1.00, and nearly
all of them at imbalance 20 and more (Ganev et al., ICLR 2026, arXiv 2510.15083). So nothing here writes a record or a
file.
"""

import torch
from torch import Tensor

from fedimb.errors import ConfigError, DataError


def smote(x: Tensor, y: Tensor, wanted: Tensor, generator: torch.Generator, k: int = 5) -> tuple[Tensor, Tensor]:
    """Draw the wanted number of rows between rows of the same class.

    A class with fewer than two rows gets none, however many are wanted.

    Args:
        x: [n, *shape] float.
        y: [n] int64.
        wanted: [C] int64 >= 0.
        generator: source of all randomness.
        k: neighbours considered, fewer if the class has fewer; ties go to the lower row.

    Returns:
        (x [m, *shape] of x's dtype, y [m] int64), by class; m <= wanted.sum().

    Raises:
        ConfigError: k below 1.
        DataError: rows and labels that do not fit, or a wanted number below 0.
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
    """Positions of real rows to repeat: [m] int64 by class, as many as wanted, rows of a class as evenly as possible.

    The control for every generator: rebalancing by the same number of rows, without anything new. A class without rows
    gets none.

    Args:
        y: [n] int64.
        wanted: [C] int64 >= 0.
        generator: source of all randomness.

    Raises:
        DataError: a label or wanted number out of range.
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
