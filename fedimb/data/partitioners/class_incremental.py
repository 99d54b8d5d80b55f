"""Classes that arrive in phases, on any data set: rows by another partition, the phase of each class by this.

Class-incremental learning (Rebuffi et al., iCaRL, CVPR 2017), here with a long tail (Liu et al., "Long-Tailed
Class-Incremental Learning", ECCV 2022, whose ordered scenario is ``rare_last`` and whose shuffled one ``shuffled``). A
client holds all of its rows from the start; `fedimb.strategies.class_incremental` shows it those of one phase.
"""

from typing import Annotated, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedimb.data.config import inner_dealer
from fedimb.data.federation import Phases
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.plain import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Range

Order = Literal["rare_last", "rare_first", "mixed", "shuffled"]


@register("partition", "class_incremental", phased=True)
class ClassIncremental:
    """Deals rows by another partition, and says which classes appear in which phase.

    Args:
        phases: how many phases, at least 2, whose numbers of classes differ by one at most, the first ones larger; or
            the classes of each, by name or number, every class once.
        order: of a number of phases: ``rare_last`` (null is the same) from the most frequent class to the rarest by the
            clients' rows, ``rare_first`` the reverse, ``mixed`` classes of neighbouring frequency go to different
            phases, so that each has a long tail of its own, ``shuffled`` drawn from the seed.
        rows: the partition that deals the rows, with its arguments.
        patients, sites, site_names: of the rows, passed on to that partition.

    Raises:
        ConfigError: fewer than 2 phases, a class in two of them, a phase without classes, an order beside a list of
            classes, or ``rows`` is not another partition.

    Example:
        >>> counts = np.array([5, 90, 40, 10])
        >>> ClassIncremental(2).classes(counts, ("a", "b", "c", "d"), np.random.default_rng(0))
        ((1, 2), (0, 3))
        >>> ClassIncremental([["d"], ["a", 1, 2]]).classes(counts, ("a", "b", "c", "d"), np.random.default_rng(0))
        ((3,), (0, 1, 2))
    """

    def __init__(
        self,
        phases: Annotated[int, Range(2)] | list[list[int | str]] = 2,
        order: Order | None = None,
        rows: Settings | None = None,
        patients: NDArray[np.int64] | None = None,
        sites: NDArray[np.int64] | None = None,
        site_names: tuple[str, ...] = (),
    ) -> None:
        listed = isinstance(phases, list)
        if (len(phases) if isinstance(phases, list) else phases) < 2:
            raise ConfigError(
                f"partition 'class_incremental': phases={phases}: give at least 2; with one phase use its rows alone, "
                "as in partition=dirichlet"
            )
        if listed and order is not None:
            raise ConfigError(
                f"partition 'class_incremental': order={order} beside a list of classes, which says the order itself; "
                "leave order out, or give phases as a number"
            )
        if order is not None and order not in get_args(Order):
            raise ConfigError(f"partition 'class_incremental': no order '{order}'.{nearest(order, get_args(Order))}")
        self.phases, self.order = phases, order or "rare_last"
        self.inner = inner_dealer(rows, {"patients": patients, "sites": sites, "site_names": site_names})

    def __call__(self, y: NDArray[np.int64], n_clients: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """``n_clients`` sorted int64 lists of positions into ``y`` [n]; a list may be empty."""
        lists: list[NDArray[np.int64]] = self.inner(y, n_clients, rng)
        return lists

    def classes(self, counts: NDArray[np.int64], names: tuple[str, ...], rng: np.random.Generator) -> Phases:
        """The class ids of each phase, ascending.

        Args:
            counts: rows of each class over all clients, [C].
            names: names of the classes, [C].
            rng: for orders that are drawn.

        Raises:
            DataError: more phases than classes, a phase whose classes have no rows, or a list that names an unknown
                class, one twice, or not all of them.
        """
        found = self._listed(names) if isinstance(self.phases, list) else self._dealt(self.phases, counts, rng)
        for number, classes in enumerate(found, start=1):
            if not counts[list(classes)].sum():
                named = ", ".join(names[c] for c in classes)
                raise DataError(
                    f"partition 'class_incremental': no client has a row of phase {number} ({named}), so nothing can "
                    "be trained in it; use fewer phases, or another order"
                )
        return found

    def _dealt(self, phases: int, counts: NDArray[np.int64], rng: np.random.Generator) -> Phases:
        n = len(counts)
        if phases > n:
            raise DataError(
                f"partition 'class_incremental': phases={phases}, but there are {n} classes; set partition.phases to "
                f"at most {n}"
            )
        ranked = np.argsort(-counts, kind="stable")
        if self.order == "mixed":
            phase = np.concatenate([rng.permutation(phases) for _ in range(0, n, phases)])
            # Of the last, incomplete group the first phases get a class, as with the other orders.
            whole = n - n % phases
            phase[whole:n] = rng.permutation(n % phases)
            dealt = [ranked[phase[:n] == p] for p in range(phases)]
        else:
            ordered = {"rare_first": ranked[::-1], "shuffled": rng.permutation(n)}.get(self.order, ranked)
            dealt = np.array_split(ordered, phases)
        return tuple(tuple(sorted(int(c) for c in own)) for own in dealt)

    def _listed(self, names: tuple[str, ...]) -> Phases:
        assert isinstance(self.phases, list)
        phases = tuple(tuple(sorted(_class_id(one, names) for one in own)) for own in self.phases)
        flat = [c for own in phases for c in own]
        if empty := [number for number, own in enumerate(phases, start=1) if not own]:
            raise DataError(f"partition 'class_incremental': phase {empty[0]} of partition.phases names no class")
        if twice := [names[c] for c in flat if flat.count(c) > 1]:
            raise DataError(f"partition 'class_incremental': partition.phases names class '{twice[0]}' twice")
        if lacking := [name for c, name in enumerate(names) if c not in flat]:
            raise DataError(
                f"partition 'class_incremental': partition.phases does not say when class '{lacking[0]}' appears: "
                "name every class once"
            )
        return phases


def _class_id(one: int | str, names: tuple[str, ...]) -> int:
    if isinstance(one, str):
        if one not in names:
            raise DataError(
                f"partition 'class_incremental': partition.phases: no class '{one}'.{nearest(one, list(names))}"
            )
        return names.index(one)
    if not 0 <= one < len(names):
        raise DataError(
            f"partition 'class_incremental': partition.phases: no class {one}; there are 0 to {len(names) - 1}"
        )
    return one
