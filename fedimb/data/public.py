"""Labelled rows that the server itself holds: a public or consented data set next to the federation (D_0)."""

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
        d: [n] int64 site (device) ids; all 0 if the source has none.
        domains: names by site id; empty if the source has none.
    """

    x: "torch.Tensor"
    y: "torch.Tensor"
    d: "torch.Tensor"
    domains: tuple[str, ...]


def public_rows(federation: "Federation") -> PublicRows:
    """The server's rows of a federation.

    Raises:
        ConfigError: the server holds no rows, or rows have several labels.
    """
    from fedimb.data.views import to_tensors

    store, rows = federation.store, federation.public
    if not len(rows):
        raise ConfigError("the server holds no rows of its own: set data.public to its rows per class, such as 30")
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
    noun: str = "patients",
) -> tuple[Rows, Rows]:
    """Split off the server's own labelled rows: equally many of each class, whole patients; clients never see them.

    Args:
        rows: [m] int64 rows of the store that are not test rows.
        y: [n] labels of the whole store; ``patients`` [n] too, called ``noun`` in messages.

    Returns:
        (public, rest), sorted int64, disjoint. When splitting by patient, rows of a patient beyond ``per_class`` are in
        neither.

    Raises:
        DataError: the server would have fewer than ``per_class`` rows of a class, or none would be left to train on.
    """
    rule = {"name": "balanced", "per_class": per_class}
    own = None if patients is None else np.asarray(patients[rows])
    try:
        public, rest = split_test(np.asarray(y[rows]), class_names, rule, rng, own, noun=noun)
    except DataError as error:
        raise DataError(f"data.public={per_class} takes the server's rows like a test set: {error}") from error
    return rows[public], rows[rest]
