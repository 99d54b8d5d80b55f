"""What the server knows of the rows of a region, which answers with the sum of its sites' replies."""

from dataclasses import dataclass

import numpy as np

from fedimb.sums import ceil_log2


@dataclass(frozen=True)
class RegionRows:
    """A region's sites, as far as the scale of sums needs them.

    Attributes:
        sites: how many sites have rows to train on.
        largest: a power of two that no site's training rows exceed, and half of which the largest site exceeds.
    """

    sites: int
    largest: float

    @classmethod
    def of(cls, rows: np.ndarray) -> "RegionRows":
        """From the training rows of each site, [n] integers.

        Example:
            >>> RegionRows.of(np.array([60, 90, 0]))
            RegionRows(sites=2, largest=128.0)
        """
        return cls(int(np.count_nonzero(rows)), 2.0 ** ceil_log2(float(max(1, rows.max(initial=1)))))
