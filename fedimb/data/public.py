"""Rows that the server itself holds, with their labels: a public or consented set beside the federation (D_0)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedimb.data.split import split_test
from fedimb.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

    from fedimb.data.federation import Federation

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PublicRows:
    """The server's rows, as models see them.

    Attributes:
        x: [n, *shape] float32, scaled.
        y: [n] int64 class ids.
        d: [n] int64 site (device) ids; all 0 where the source names none.
        domains: names by site id; empty where the source names none.
    """

    x: "torch.Tensor"
    y: "torch.Tensor"
    d: "torch.Tensor"
    domains: tuple[str, ...]


def public_rows(federation: "Federation") -> PublicRows:
    """The server's rows of a federation.

    Raises:
        ConfigError: there are none, or rows have several labels.
    """
    from fedimb.data.views import to_tensors

    store, rows = federation.store, federation.public
    if not len(rows):
        raise ConfigError("the server holds no rows of its own: set data.public to its rows per class, 30 say")
    if store.task != "multiclass":
        raise ConfigError("data.public is for rows with one class each; these have several labels")
    import torch

    x, y = to_tensors(store, rows, federation.scaling)
    sites = np.zeros(len(rows), np.int64) if store.sites is None else np.asarray(store.sites[rows], np.int64)
    return PublicRows(x, y, torch.from_numpy(sites), tuple(store.site_names or ()))


def split_public(
    rows: Rows,
    y: NDArray[np.int64],
    class_names: tuple[str, ...],
    per_class: int,
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None = None,
) -> tuple[Rows, Rows]:
    """Cut the server's own labelled rows: as many of each class, whole patients; the clients never see them.

    Args:
        rows: [m] int64 rows of the store that are no test rows.
        y: [n] labels of the whole store; ``patients`` [n] likewise.

    Returns:
        (public, rest), sorted int64, disjoint. Cut by patient, what a patient has beyond ``per_class`` is in neither.

    Raises:
        DataError: a class would have fewer than ``per_class`` rows there, or none left to train on.
    """
    rule = {"name": "balanced", "per_class": per_class}
    own = None if patients is None else np.asarray(patients[rows])
    try:
        public, rest = split_test(np.asarray(y[rows]), class_names, rule, rng, own)
    except DataError as error:
        raise DataError(f"data.public={per_class} cuts the server's rows like a test set: {error}") from error
    return rows[public], rows[rest]
