"""A few classes per client, each class cut into equal shards among its holders (after McMahan et al. 2017).

flwr-datasets' PathologicalPartitioner is not used: it drops every row of a class that no client drew, refuses a class
with fewer rows than holders (every long tail), and needs a Hugging Face Dataset. In McMahan's own sort-and-split a
shard may contain two classes; here a client holds exactly the configured number of classes.
"""

import numpy as np
from numpy.typing import NDArray

from fedimb.data.quotas import deal_units, largest_remainder
from fedimb.data.rows import RowLists
from fedimb.data.units import group_units, rows_by_client
from fedimb.errors import ConfigError
from fedimb.registry import register


@register("partition", "pathological")
class Pathological:
    """Every client holds ``classes_per_client`` classes; every row is used once.

    The numbers of holders of two classes differ by at most one, and a class never has more holders than rows. If
    clients x classes_per_client is less than the number of classes, the remaining classes are assigned one by one and
    some clients hold one class more. With very few rows some hold fewer.

    Args:
        classes_per_client: >= 1; if it is at least the number of classes, every client holds all.
        patients: [n] int64 passed by fedimb where the source names patients; a patient counts for the class
            most of their rows have and stays on one client (their other classes come along).

    Example:
        >>> import numpy as np
        >>> y = np.repeat([0, 1, 2], [60, 30, 10])
        >>> lists = Pathological(classes_per_client=2)(y, 3, np.random.default_rng(0))
        >>> [np.bincount(y[rows], minlength=3).tolist() for rows in lists]
        [[0, 15, 5], [30, 0, 5], [30, 15, 0]]
    """

    def __init__(self, classes_per_client: int = 2, patients: NDArray[np.int64] | None = None) -> None:
        if classes_per_client < 1:
            raise ConfigError(f"partition 'pathological': classes_per_client={classes_per_client}: give at least 1")
        self.classes_per_client = classes_per_client
        self.patients = patients

    def __call__(self, y: NDArray[np.int64], n_clients: int, rng: np.random.Generator) -> RowLists:
        """``n_clients`` sorted int64 lists of positions into ``y`` [n]; a list may be empty."""
        units = group_units(y, self.patients)
        classes, label = np.unique(units.label, return_inverse=True)
        holds = assign(np.bincount(label), n_clients, self.classes_per_client, rng)
        client = np.empty(len(label), dtype=np.int64)
        for c in range(len(classes)):
            members = rng.permutation(np.flatnonzero(label == c))
            holders = rng.permutation(np.flatnonzero(holds[:, c]))
            weight = units.weight[members]
            even = largest_remainder(np.full(len(holders), 1 / len(holders)), int(weight.sum()))
            client[members] = holders[deal_units(weight, even)]
        return rows_by_client(units.of_row, client, n_clients)


def assign(available: NDArray[np.int64], clients: int, per_client: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which client holds which class: [K, C] bool; every class is held.

    The number of holders per class is evened out first; then each client takes the classes that still need most
    holders. This always works out (Gale and Ryser 1957), while drawing at random can get stuck.

    Args:
        available: [C] >= 1, units of each class, the maximum number of its holders.
    """
    n_classes = len(available)
    slots = _levelled(np.minimum(available, clients), max(clients * min(per_client, n_classes), n_classes))
    wanted = largest_remainder(np.full(clients, 1 / clients), int(slots.sum()))
    holds = np.zeros((clients, n_classes), dtype=bool)
    for row, size in zip(rng.permutation(clients), wanted, strict=True):  # shuffled: scarce classes come up late
        chosen = np.lexsort((rng.random(n_classes), -slots))[:size]
        holds[row, chosen] = True
        slots[chosen] -= 1
    return holds


def _levelled(most: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """[C] int64, each at most ``most[c]``, as equal as that allows, summing to ``total`` or to all that is
    available."""
    level = np.zeros_like(most)
    left = min(total, int(most.sum()))
    while left:
        room = np.flatnonzero(level < most)
        step = max(1, min(left // len(room), int((most - level)[room].min())))
        level[room[:left]] += step  # fewer left than there is room: one each to the first
        left -= step * len(room[:left])
    return level
