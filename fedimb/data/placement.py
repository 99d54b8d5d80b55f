"""Which clients hold the minority classes: a setting on top of any partitioner.

Who holds a class matters as much as its size. Only rows of minority classes move. After the exposure axis of Client-LT.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedimb.data.quotas import deal_units, largest_remainder
from fedimb.data.rows import RowLists
from fedimb.data.units import group_units, rows_by_client
from fedimb.errors import ConfigError, nearest
from fedimb.plain import Settings

Rows = NDArray[np.int64]
Rule = Literal["spread", "concentrated", "absent"]
RULES: tuple[str, ...] = get_args(Rule)


@dataclass(frozen=True)
class Placement:
    """Where a `partition` group places the minority.

    Attributes:
        rule: ``spread``: equal quotas of each minority class over all clients; ``concentrated``: all of them at some
            clients, with equal quotas; ``absent``: none of them at some clients; None: leave the partition as it is.
        clients: how many clients hold (concentrated) or lack (absent) the minority: a whole number, or a fraction
            of all. Ignored by ``spread`` and None.
    """

    rule: str | None = None
    clients: int | float = 0.2

    @staticmethod
    def split(partition: Settings) -> tuple["Placement", Settings]:
        """The keys ``minority_placement`` and ``minority_clients`` of a `partition` group, and the group without them.

        Raises:
            ConfigError: unknown rule, or neither a count nor a fraction.
        """
        rest = {k: v for k, v in partition.items() if k not in KEYS}
        placement = Placement(**{KEYS[k]: v for k, v in partition.items() if k in KEYS})
        if placement.rule is not None and placement.rule not in RULES:
            wrong = placement.rule
            raise ConfigError(f"partition.minority_placement: no rule '{wrong}'.{nearest(str(wrong), RULES)}")
        clients: object = placement.clients
        whole = type(clients) is int and clients >= 1  # not isinstance: True is no count
        if not (whole or (type(clients) is float and 0 < clients < 1)):
            raise ConfigError(
                f"partition.minority_clients={clients!r}: give a whole number of at least 1, "
                f"or a fraction between 0 and 1"
            )
        return placement, rest

    def holders(self, n_clients: int) -> int:
        """How many of ``n_clients`` hold (concentrated) or lack (absent) the minority; a fraction is rounded half up.

        Raises:
            ConfigError: more clients than exist, or no client would hold the minority.
        """
        if self.rule in (None, "spread"):
            return n_clients
        most = n_clients - (self.rule == "absent")
        n = self.clients if isinstance(self.clients, int) else max(1, int(self.clients * n_clients + 0.5 + 1e-9))
        if isinstance(self.clients, float):
            n = min(n, max(1, most))
        if n > most:
            raise ConfigError(
                f"partition.minority_clients={self.clients}: at most {most} of {n_clients} clients can "
                f"{'lack the minority (somebody must hold it)' if self.rule == 'absent' else 'hold the minority'}; "
                f"{f'set it to {most} or less' if most else 'raise clients.count'}"
            )
        return n


KEYS = {"minority_placement": "rule", "minority_clients": "clients"}


def place_minority(
    lists: Sequence[Rows],
    y: NDArray[np.int64],
    minority: tuple[int, ...],
    rule: str | None,
    n_holders: int,
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None = None,
) -> RowLists:
    """Redistribute the rows of minority classes by ``rule``; all other rows stay where they are.

    Patients move as a whole: a patient with a minority row takes all other rows along, and counts for the minority
    class that most of their minority rows have. Client sizes change.

    Args:
        lists: [K] int64 positions into ``y``, each exactly once: the output of any partitioner.
        y: [n] labels.
        minority: class ids.
        rule: see `Placement`; under ``absent`` only rows of the clients that must lack them move, to the others in
            proportion to what these have of the class (equally where they have none).
        n_holders: 1..K clients that hold (concentrated) or lack (absent, at most K - 1) the minority; drawn, the same
            clients for every minority class.
        patients: [n] int64, or None.

    Returns:
        [K] sorted int64 lists, each position exactly once.
    """
    rows, clients, held = np.flatnonzero(np.isin(y, minority)), len(lists), RowLists.of(lists)
    if rule is None or len(rows) == 0:
        return RowLists.by_owner(held.rows, held.owners(), clients)
    owner = np.empty(len(y), dtype=np.int64)
    owner[held.rows] = held.owners()
    units = group_units(y[rows], None if patients is None else patients[rows])
    home = owner[rows[np.unique(units.of_row, return_index=True)[1]]]
    drawn = np.sort(rng.permutation(clients)[:n_holders])
    allowed = {"spread": np.arange(clients), "concentrated": drawn}.get(rule, np.delete(np.arange(clients), drawn))
    new = home.copy()
    for c in np.unique(units.label):
        members = rng.permutation(np.flatnonzero(units.label == c))
        holders = rng.permutation(allowed)  # shuffled: the rows left over must not all go to the first client
        shares = np.full(len(holders), 1 / len(holders))
        if rule == "absent":
            kept = np.bincount(home[members], weights=units.weight[members], minlength=clients)[holders]
            shares = kept / kept.sum() if kept.any() else shares
            members = members[np.isin(home[members], drawn)]
        weight = units.weight[members]
        new[members] = holders[deal_units(weight, largest_remainder(shares, int(weight.sum())))]
    owner[rows] = new[units.of_row]
    if patients is not None:
        owner = _whole(owner, patients, rows)
    return rows_by_client(np.arange(len(y)), owner, clients)


def _whole(owner: Rows, patients: NDArray[np.int64], moved: Rows) -> Rows:
    """``owner`` [n] with every row of a patient in ``moved`` rows at the client those rows are at."""
    ids, first = np.unique(patients[moved], return_index=True)
    at = np.minimum(np.searchsorted(ids, patients), len(ids) - 1)
    return np.where(ids[at] == patients, owner[moved[first]][at], owner)
