"""Which clients hold a class, and so whether a round's clients can have learned it at all."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def exposure(counts: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Per class, from ``counts`` [K, C]. A class without rows: holders 0, the rest NaN.

    Returns:
        ``holders`` [C] int64: number of clients with at least one row, s_c.
        ``n_eff`` [C] float64: n_c^2 / sum_k n_kc^2, the effective number of clients: as if spread equally over that
        many, 1..K. ``top1_mass`` [C] float64: the largest holder's share of the class.

    Example:
        >>> import numpy as np
        >>> held = exposure(np.array([[50, 4], [50, 0]]))
        >>> held["holders"].tolist(), held["n_eff"].tolist(), held["top1_mass"].tolist()
        ([2, 1], [2.0, 1.0], [0.5, 1.0])
    """
    total = counts.sum(axis=0).astype(np.float64)
    total[total == 0] = np.nan
    squares = (counts.astype(np.float64) ** 2).sum(axis=0)
    return {
        "holders": (counts > 0).sum(axis=0).astype(np.int64),
        "n_eff": total**2 / np.where(squares == 0, np.nan, squares),
        "top1_mass": counts.max(axis=0) / total,
    }
