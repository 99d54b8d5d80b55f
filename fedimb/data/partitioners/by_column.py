"""Natural clients: one per site of the source's site column, or one per patient.

flwr-datasets' NaturalIdPartitioner does the same, but only for a Hugging Face Dataset and in order of first appearance.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedimb.data.rows import RowLists
from fedimb.data.units import rows_by_client
from fedimb.errors import ConfigError, DataError
from fedimb.registry import register


@register("partition", "by_column")
class ByColumn:
    """Client k holds the rows of the k-th site (by site id) or patient (by patient id). Nothing is random.

    If the test split or the long tail leaves a site without training rows, its client is empty. ``clients.count`` must
    be the number of sites (or of patients with training rows); the error message gives it.

    Args:
        column: ``site`` or ``patient``.
        sites: [n] int64 passed by fedimb where the source names sites.
        site_names: one per site id, passed by fedimb with ``sites``.
        patients: [n] int64 passed by fedimb where the source names patients.
    """

    def __init__(
        self,
        column: Literal["site", "patient"] = "site",
        sites: NDArray[np.int64] | None = None,
        site_names: tuple[str, ...] = (),
        patients: NDArray[np.int64] | None = None,
    ) -> None:
        if column not in ("site", "patient"):
            raise ConfigError(f"partition 'by_column': column={column!r}: give site or patient")
        self.column = column
        self.sites = sites
        self.site_names = site_names
        self.patients = patients

    def __call__(self, y: NDArray[np.int64], n_clients: int, rng: np.random.Generator) -> RowLists:
        """``n_clients`` sorted int64 lists of positions into ``y`` [n]; a list may be empty.

        Raises:
            ConfigError: ``n_clients`` is not the number of sites or patients.
            DataError: the source has no such column, or a patient has rows at two sites.
        """
        ids = self.sites if self.column == "site" else self.patients
        if ids is None:
            raise DataError(
                f"partition 'by_column' needs a {self.column} column and the source has none; give the source one "
                f"or choose another partition"
            )
        if self.column == "patient":
            found, client = np.unique(ids, return_inverse=True)
            there = len(found)
        else:
            there, client = len(self.site_names) or int(ids.max()) + 1, ids
            self._refuse_parted(ids)
        if n_clients != there:
            names = f" ({_listed(self.site_names)})" if self.column == "site" and self.site_names else ""
            raise ConfigError(
                f"clients.count={n_clients}: partition 'by_column' makes one client per {self.column} and there are "
                f"{there}{names}; set clients.count={there}"
            )
        return rows_by_client(np.arange(len(y)), client.astype(np.int64), n_clients)

    def _refuse_parted(self, sites: NDArray[np.int64]) -> None:
        if self.patients is None:
            return
        pairs = np.unique(np.stack([self.patients, sites], axis=1), axis=0)
        at_two = pairs[1:][pairs[1:, 0] == pairs[:-1, 0]]
        if len(at_two):
            raise DataError(
                f"patients have rows at more than one site ({len(np.unique(at_two[:, 0]))} of them, first patient "
                f"{at_two[0, 0]}); give each site its own patient ids, or keep each patient's rows at one site"
            )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
