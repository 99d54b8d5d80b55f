"""A federation whose clients are drawn when they are asked: no array has an entry for each.

Client k's rows follow from the run's seed and k alone, on any engine and in any round. What needs a figure of every
client (a table of counts, a sum over all) is refused: before work by `fedimb.config.virtual`, and here by a
`DataError`, so that nothing takes a part for the whole.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from fedimb.data.federation import CHANGED, Federation, Rows
from fedimb.data.federation_file import digest, read_federation, write_federation
from fedimb.data.partitioners.virtual import Virtual
from fedimb.data.rows import RowLists
from fedimb.data.views import ClientData
from fedimb.errors import DataError
from fedimb.evaluation.intervals import wilson
from fedimb.seeds import Stream, numpy_rng

_SHOWN = 1000
"""Clients that are drawn to say who holds which class."""


def _refuse(*_: object, **__: object) -> NoReturn:
    raise DataError(
        "clients of partition=virtual are drawn when they are asked, so there is no figure of each of them; use "
        "another partition, such as dirichlet"
    )


class VirtualSizes:
    """Rows of each client, computed where they are read.

    ``sizes[k]`` is an int, ``sizes[ids]`` an int64 array; whatever would read them all raises DataError.

    Args:
        draw: how clients are drawn.
        most: rows to draw from.
        n, seed: number of clients, and the run's seed.
    """

    def __init__(self, draw: Virtual, most: int, n: int, seed: int) -> None:
        self._draw, self._most, self._n, self._seed = draw, most, n, seed

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, clients: Any) -> Any:
        if isinstance(clients, int | np.integer):
            k = range(self._n)[int(clients)]
            return self._draw.size(self._most, client_rng(self._seed, k) if self._draw.spread else None)
        return np.array([self[k] for k in np.asarray(clients).tolist()], np.int64)

    __array__ = __iter__ = __gt__ = __lt__ = __eq__ = sum = any = max = min = _refuse
    __hash__ = None  # type: ignore[assignment]


class _NoSizes:
    """No rows at any of ``n`` clients."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, client: int) -> int:
        range(self._n)[client]
        return 0

    def any(self) -> bool:
        """Whether some client has rows."""
        return False

    def sum(self) -> int:
        """Rows of all clients."""
        return 0

    __array__ = __iter__ = _refuse


class VirtualLists(RowLists):
    """Lists of rows, one per client, drawn where they are read.

    Args:
        whole: a federation whose clients hold the rows to draw from.
        draw: how clients are drawn.
        n, seed: number of clients, and the run's seed.

    Attributes:
        rows: every row that some client may hold, once, sorted int64.
    """

    def __init__(self, whole: Federation, draw: Virtual, n: int, seed: int) -> None:
        self.rows, self._whole, self._draw, self._n, self._seed = whole.train.rows, whole, draw, n, seed

    @cached_property
    def sizes(self) -> Rows:
        """`VirtualSizes`."""
        return cast(Rows, VirtualSizes(self._draw, len(self.rows), self._n, self._seed))

    @cached_property
    def _of_class(self) -> list[Rows]:
        labels = np.asarray(self._whole.store.y)[self.rows]
        return [self.rows[labels == c] for c in range(self._whole.n_classes)]

    def owners(self) -> Rows:
        """Raises DataError: a row has many owners."""
        _refuse()

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Rows]:
        _refuse()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(self._n))]
        k = range(self._n)[index]
        return self._draw.rows_of(self._of_class, client_rng(self._seed, k))


class NoLists(RowLists):
    """An empty list for each of ``n`` clients."""

    def __init__(self, n: int) -> None:
        self.rows, self._n = np.zeros(0, np.int64), n

    @cached_property
    def sizes(self) -> Rows:
        """Zeros, where they are read."""
        return cast(Rows, _NoSizes(self._n))

    def owners(self) -> Rows:
        """Nobody."""
        return self.rows

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Rows]:
        _refuse()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(self._n))]
        range(self._n)[index]
        return self.rows


def client_rng(seed: int, client: int) -> np.random.Generator:
    """The generator by which a client's size, class mix and rows are drawn."""
    return numpy_rng(seed, Stream.PARTITION, 3, client)


class VirtualFederation(Federation):
    """``n`` clients, drawn from the rows that one client of ``whole`` holds.

    ``train`` and its sizes are computed where they are read; ``counts`` does not exist. Class totals and the imbalance
    factor are those of the rows drawn from, each row once. Clients do not hold these shares: one whose mix asks for
    more of a rare class than there is gets other rows (`drawn_counts`).

    Args:
        whole: source, test rows, scaling and class names, with one client that holds all training rows.
        draw: how clients are drawn.
        n: number of clients.
        seed: the run's.

    Raises:
        DataError: no training rows, or no test rows.
    """

    def __init__(self, whole: Federation, draw: Virtual, n: int, seed: int) -> None:
        rows = whole.train.rows
        if not len(rows):
            raise DataError("partition=virtual: there are no training rows to draw clients from")
        if not len(whole.test):
            raise DataError("partition=virtual: the server has no test rows, and it cannot ask every client for scores")
        self._whole, self._draw, self._seed = whole, draw, seed
        super().__init__(
            whole.source,
            whole.store_path,
            VirtualLists(whole, draw, n, seed),
            NoLists(n),
            whole.test,
            whole.counts,
            whole.class_names,
            whole.minority,
            whole.fingerprint,
            whole.scaling,
            whole.public,
            whole.test_counts,
        )

    @property
    def recipe(self) -> dict[str, object]:
        """All that decides the clients, besides the rows they are drawn from."""
        draw = self._draw
        return {
            "clients": len(self.train),
            "seed": self._seed,
            "rows": draw.rows,
            "spread": draw.spread,
            "alpha": draw.alpha,
        }

    def hash_with(self, source: str) -> str:
        """Hex sha256 over the recipe, the rows to draw from, test rows, class names and a hash of the source."""
        whole = self._whole
        lists = (whole.train, whole.validation, whole.test)
        return digest(*lists, whole.class_names, source, whole.public, {"virtual": self.recipe})

    @property
    def virtual(self) -> bool:
        """Clients are drawn when they are asked."""
        return True

    @property
    def counts(self) -> NDArray[np.int64]:
        """Does not exist. Raises DataError; see `class_totals`."""
        _refuse()

    @counts.setter
    def counts(self, counts: NDArray[np.int64]) -> None:
        """Those of the whole are not the clients'."""

    @property
    def class_totals(self) -> NDArray[np.int64]:
        """Rows of each class that clients are drawn from, [C] int64, each row once."""
        return self._whole.class_totals

    @property
    def n_train_rows(self) -> int:
        """Rows that clients are drawn from, each counted once: those that somebody must have labelled."""
        return self._whole.n_train_rows

    @property
    def n_holders(self) -> int:
        """All clients have rows."""
        return self.n_clients

    @cached_property
    def drawn_counts(self) -> NDArray[np.int64]:
        """Rows of each class at 1,000 drawn clients, or at all if they are fewer, [n, C] int64."""
        rng = numpy_rng(self._seed, Stream.PARTITION, 4)
        ids = np.sort(rng.choice(self.n_clients, min(_SHOWN, self.n_clients), replace=False))
        return np.stack([self.store.class_counts(self.train[int(k)]) for k in ids])

    def exposure(self) -> dict[str, NDArray[np.generic]]:
        """Who holds each class, from 1,000 drawn clients: of all clients, the share that has a row of it [C] float64.

        Returns:
            ``clients_drawn`` [1]; ``holders_share`` [C]; ``holders_low``, ``holders_high`` [C], 95 % (Wilson).
        """
        counts = self.drawn_counts
        drawn, holders = len(counts), (counts > 0).sum(axis=0)
        low, high = wilson(holders, drawn)
        shares: dict[str, NDArray[np.generic]] = {
            "holders_share": np.asarray(holders / drawn),
            "holders_low": np.asarray(low),
            "holders_high": np.asarray(high),
        }
        return {"clients_drawn": np.array([drawn]), **shares}

    def client(self, k: int) -> ClientData:
        """Client ``k``'s rows as views with tensors; they have no view ``mismatched``."""
        return ClientData(self.store, self.train[k], self.validation[k], self.scaling)

    def save(self, folder: str | Path) -> None:
        """Write partition.npz (the rows to draw from) and partition.json (the recipe, a summary and the hash)."""
        whole, facts = self._whole, self._facts() | {"virtual": self.recipe}
        write_federation(Path(folder), facts, whole.counts, whole.train, whole.validation, whole.test, whole.public)


def load_federation(folder: str | Path) -> Federation:
    """Read what `Federation.save` wrote, whichever clients it has. The store is not opened.

    Raises:
        DataError: missing, damaged, or changed since it was saved.
    """
    saved = read_federation(Path(folder))
    facts = saved.facts
    federation = Federation.of(saved)
    if "virtual" in facts:
        recipe = facts["virtual"]
        draw = Virtual(recipe["rows"], recipe["spread"], recipe["alpha"])
        federation = VirtualFederation(federation, draw, recipe["clients"], recipe["seed"])
    if federation.sha != facts["sha"]:
        raise DataError(f"{folder}: {CHANGED}")
    return federation
