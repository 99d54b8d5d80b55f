"""A permutation of 0..n-1 that is computed where it is read: no array of n numbers, however large n is.

A Feistel network on two halves of bits is a bijection whatever its round function does (Luby and Rackoff, "How to
construct pseudorandom permutations from pseudorandom functions", SIAM Journal on Computing 17, 1988); values that are
not below n are mapped again until they are (cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains",
CT-RSA 2002). The round function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): it mixes well
enough to sample clients, and hides nothing from anybody.
"""

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_MOST = 2**62


class KeyedPermutation:
    """A permutation of 0..n-1, decided by a key.

    Args:
        n: 1 to 2**62.
        key: non-negative whole numbers; the same give the same permutation.

    Example:
        >>> order = KeyedPermutation(10, (3, 1))
        >>> sorted(order(np.arange(10)).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(self, n: int, key: tuple[int, ...]) -> None:
        if not 1 <= n <= _MOST:
            raise ValueError(f"a permutation of {n} numbers: give 1 to 2**62")
        self.n = n
        half = max(1, -(-(n - 1).bit_length() // 2))
        self._half, self._mask = np.uint64(half), np.uint64(2**half - 1)
        self._keys = np.random.SeedSequence(entropy=list(key)).generate_state(_ROUNDS, np.uint64)

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers at these positions, [m] int64, each from 0 to n - 1."""
        values = np.array(positions, np.uint64)
        todo = np.arange(len(values))
        while len(todo):  # at most 4 n numbers are permuted, so a number leaves the loop after 4 passes on average
            values[todo] = self._once(values[todo])
            todo = todo[values[todo] >= np.uint64(self.n)]
        return values.astype(np.int64)

    def _once(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._mask)
        return left << self._half | right


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each of 64 bits depends on all: SplitMix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
