"""Clients that nobody stores: a client's rows are drawn when it is asked, so 10**8 of them cost no more than ten."""

import math

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError
from fedimb.registry import register

Rows = NDArray[np.int64]


@register("partition", "virtual", virtual=True)
class Virtual:
    """Draws a client's size, class mix and rows from all training rows, by a generator of the client's own.

    Clients share rows: two may hold the same one, and each row is drawn anew for every client that holds it. Within a
    client rows differ. Class mixes are Dirichlet(alpha x shares of the classes) (Hsu, Qi and Brown 2019). A client
    whose mix asks for more rows of a class than there are gets others: of rare classes clients hold less than these
    shares. Patients are not kept at one client.

    Args:
        rows: a client's rows, or their mean where ``spread`` is above 0; >= 1.
        spread: standard deviation of the logarithm of the clients' sizes, 0 to 3; 0: all hold ``rows``.
        alpha: >= 1e-3; small is skewed; null: every client draws by the shares of the classes.

    Example:
        >>> import numpy as np
        >>> of_class = [np.arange(0, 60), np.arange(60, 90), np.arange(90, 100)]
        >>> draw = Virtual(rows=5, alpha=1.0)
        >>> draw.rows_of(of_class, np.random.default_rng(0)).tolist()
        [31, 33, 36, 56, 90]
    """

    def __init__(self, rows: int = 20, spread: float = 0.0, alpha: float | None = 5.0) -> None:
        if rows < 1:
            raise ConfigError(f"partition 'virtual': rows={rows}: give at least 1")
        if not 0 <= spread <= 3:
            raise ConfigError(f"partition 'virtual': spread={spread}: give a number from 0 to 3")
        if alpha is not None and not (math.isfinite(alpha) and alpha >= 1e-3):
            raise ConfigError(f"partition 'virtual': alpha={alpha}: give a finite number of at least 1e-3, or null")
        self.rows, self.spread, self.alpha = rows, spread, alpha

    def size(self, most: int, rng: np.random.Generator | None) -> int:
        """A client's number of rows, 1 to ``most``: the first draw of its generator, if ``spread`` is above 0."""
        if rng is None or not self.spread:
            return min(self.rows, most)
        normal = float(rng.standard_normal())  # log-normal with mean `rows`
        size = self.rows * math.exp(self.spread * normal - self.spread**2 / 2)
        return min(max(1, round(size)), most)

    def rows_of(self, of_class: list[Rows], rng: np.random.Generator) -> Rows:
        """A client's rows, sorted int64, each once.

        Args:
            of_class: the rows to draw from, by class.
            rng: the client's generator, unused.
        """
        held = np.array([len(rows) for rows in of_class], np.int64)
        size = self.size(int(held.sum()), rng)
        counts = self._counts(size, held, rng)
        drawn = [rng.choice(of_class[c], counts[c], replace=False) for c in np.flatnonzero(counts)]
        return np.sort(np.concatenate(drawn))

    def _counts(self, size: int, held: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Rows of each class [C]: by the client's class mix, no more than there are of a class."""
        shares = held / held.sum()
        if self.alpha is not None:
            present = held > 0
            shares[present] = rng.dirichlet(self.alpha * shares[present])
        counts = np.zeros(len(held), np.int64)
        while (left := size - int(counts.sum())) > 0:
            room = held - counts
            mix = np.where(room > 0, shares, 0.0)
            if not mix.sum() > 0:  # the classes of its mix are exhausted: what is left, by the rows that are left
                mix = room.astype(np.float64)
            counts += np.minimum(rng.multinomial(left, mix / mix.sum()), room)
        return counts
