"""Several clients per site: each site's rows are assigned to its own clients with label skew.

This is how FedSSG's reconstruction splits acquisition systems (Fed-ISIC2019's centres, FLamby, NeurIPS 2022) into more
clients, for device and class imbalance at once. Within a site rows are assigned as by `dirichlet` (Hsu, Qi and Brown
2019).
"""

import numpy as np
from numpy.typing import NDArray

from fedimb.data.partitioners.by_column import ByColumn
from fedimb.data.partitioners.dirichlet import Dirichlet
from fedimb.errors import ConfigError, DataError
from fedimb.registry import register


@register("partition", "site_dirichlet")
class SiteDirichlet:
    """``clients.count`` = sites x s: clients k s to k s + s - 1 share the rows of site k, Dirichlet(alpha) per class.

    A client may stay empty, and all clients of a site without training rows do.

    Args:
        alpha: >= 1e-6; small is skewed, 100 is near uniform.
        sites: [n] int64 passed by fedimb where the source names sites.
        site_names: one per site id, passed by fedimb with ``sites``.
        patients: [n] int64 passed by fedimb where the source names patients; a patient stays on one client.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        sites: NDArray[np.int64] | None = None,
        site_names: tuple[str, ...] = (),
        patients: NDArray[np.int64] | None = None,
    ) -> None:
        Dirichlet(alpha)  # refuses an alpha without a distribution
        self.alpha, self.sites, self.site_names, self.patients = alpha, sites, site_names, patients

    def __call__(self, y: NDArray[np.int64], n_clients: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """``n_clients`` sorted int64 lists of positions into ``y`` [n]; a list may be empty.

        Raises:
            ConfigError: ``n_clients`` is not a multiple of the number of sites.
            DataError: the source names no sites, or a patient has rows at two.
        """
        if self.sites is None:
            raise DataError(
                "partition 'site_dirichlet' needs a site column and the source has none; give the source one or "
                "choose partition=dirichlet"
            )
        there = len(self.site_names) or int(self.sites.max()) + 1
        if n_clients % there:
            raise ConfigError(
                f"clients.count={n_clients}: partition 'site_dirichlet' makes the same number of clients for each of "
                f"{there} sites; set clients.count to a multiple of {there}"
            )
        at_site = ByColumn(sites=self.sites, site_names=self.site_names, patients=self.patients)(y, there, rng)
        lists = []
        for rows in at_site:
            patients = None if self.patients is None else self.patients[rows]
            deal = Dirichlet(self.alpha, patients=patients)
            parts = deal(y[rows], n_clients // there, rng) if len(rows) else [rows] * (n_clients // there)
            lists += [rows[positions] for positions in parts]
        return lists
