"""A simulated tree: the run's clients are regions in this process, and the grid's clients are their sites."""

from itertools import pairwise

import numpy as np

from fedimb.config.parts import build_model
from fedimb.config.regions import at_sites
from fedimb.data.federation import Federation
from fedimb.data.regions import regional
from fedimb.engine.grid import SimulationGrid
from fedimb.engine.region import Region, RegionGrid
from fedimb.schema import RunConfig
from fedimb.serverapp.assemble import admission_of


def region_tree(config: RunConfig, federation: Federation, grid: SimulationGrid) -> tuple[Federation, SimulationGrid]:
    """The federation and the grid that the loop of the root sees; those given, if clients are no regions.

    Args:
        federation: of all sites; of a deployment, where each site is a region already, it stays.
        grid: over all sites.
    """
    sizes = config.clients.regions
    if sizes is None or federation.regions:
        return federation, grid
    own = at_sites(config)
    model = build_model(own, federation.n_classes, federation.input_shape)
    admission = admission_of(own, federation, model.head.in_features)
    regions = []
    for number, (first, stop) in enumerate(pairwise(np.cumsum([0, *sizes]).tolist())):
        holding = [site for site in range(first, stop) if federation.train_sizes[site]]
        regions.append(Region(f"region {number}", grid, holding, config.clients, admission))
    return regional(federation, sizes), RegionGrid(regions)
