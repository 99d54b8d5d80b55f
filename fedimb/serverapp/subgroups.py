"""Scores a run by subgroup: on the server's test rows, or from the clients' counts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fedimb.data.federation import Federation
from fedimb.data.subgroups import Subgroup, group_names, parse_subgroups, subgroups_of
from fedimb.evaluation.probabilities import probabilities_of
from fedimb.evaluation.subgroups import (
    Attribute,
    SiteCells,
    SubgroupCounts,
    count_subgroups,
    hidden_by_attribute,
    subgroup_tables,
)
from fedimb.schema import RunConfig


def attributes_of(subgroups: tuple[Subgroup, ...], federation: Federation) -> tuple[Attribute, ...]:
    """The attributes with the names of their groups: of the rows, or in a deployment as declared."""
    if federation.client_names:
        names = group_names(subgroups, federation.client_names)
    else:
        names = list(subgroups_of(federation.store, subgroups).names)
    return tuple(Attribute(one.column, groups) for one, groups in zip(subgroups, names, strict=True))


class Subgroups:
    """What a run publishes of its subgroups.

    Attributes:
        attributes: as shown.
        floor: fewest people of a shown cell; None: all are shown.
        rows: groups [A, n] of the server's test rows; None if the clients score the run.
        hidden: of each attribute [C, G], what is not shown: the same in every round, as it depends on rows alone.
    """

    def __init__(self, attributes: tuple[Attribute, ...], floor: int | None, federation: Federation) -> None:
        self.attributes, self.floor, self._minority = attributes, floor, federation.minority
        self.rows: np.ndarray | None = None
        self._people: np.ndarray | None = None
        self._sites: np.ndarray | None = None
        self._counts: Mapping[str, SubgroupCounts] = {}
        self._n_classes = federation.n_classes
        self.hidden: list[np.ndarray] = []

    @staticmethod
    def of(config: RunConfig, federation: Federation) -> "Subgroups | None":
        """None if the run has no subgroups."""
        subgroups = parse_subgroups(config.data.get("subgroups"))
        if not subgroups:
            return None
        made = Subgroups(attributes_of(subgroups, federation), config.evaluation.subgroup_floor, federation)
        if len(federation.test):
            store, test = federation.store, federation.test
            made.rows = subgroups_of(store, subgroups).of_row[:, test]
            made._people = None if store.patients is None else np.asarray(store.patients[test])
            made._sites = None if store.sites is None else np.asarray(store.sites[test])
        return made

    @property
    def _most(self) -> int:
        return max(len(one.groups) for one in self.attributes)

    def hide_rows(self, y: np.ndarray) -> np.ndarray:
        """Decide what is not shown of the test rows; returns the classes hidden in scores of single sites, [C]."""
        assert self.rows is not None
        equal = np.full((len(y), self._n_classes), 1 / self._n_classes)

        def count(chosen: np.ndarray) -> SubgroupCounts:
            rows = self.rows[:, chosen] if self.rows is not None else np.zeros((0, 0), np.int64)
            people = None if self._people is None else self._people[chosen]
            return count_subgroups(equal[chosen], y[chosen], rows, self._most, people)

        cells = None
        if self._sites is not None:
            parts = [count(self._sites == site).people for site in np.unique(self._sites)]
            cells = SiteCells(np.stack([one[0].sum(-1) for one in parts]), np.stack([one.sum(1) for one in parts]))
        self.hidden, lost = hidden_by_attribute(count(np.full(len(y), True)), self.attributes, self.floor, cells)
        return lost

    def take(self, counts: Mapping[str, SubgroupCounts], cells: SiteCells | None) -> np.ndarray:
        """The clients' summed counts by calibration; returns the classes hidden in scores of single sites, [C]."""
        self._counts = counts
        first = next(iter(counts.values()))
        self.hidden, lost = hidden_by_attribute(first, self.attributes, self.floor, cells)
        return lost

    def tables(self, calibration: str, y: torch.Tensor, logits: torch.Tensor) -> list[dict[str, Any]]:
        """`subgroup_tables` of these logits of the test rows, or of what the clients sent; empty if that is nothing."""
        if self.rows is not None:
            counts = count_subgroups(
                probabilities_of(logits, several=False), y.numpy(), self.rows, self._most, self._people
            )
        elif calibration in self._counts:
            counts = self._counts[calibration]
        else:
            return []
        return subgroup_tables(counts, self.attributes, self.hidden, self._minority)


def subgroups_artifact(
    floor: int | None, without: Sequence[str], hidden: np.ndarray, tables: Mapping[str, list[dict[str, Any]]]
) -> bytes:
    """Content of subgroups.json.

    Args:
        floor: fewest people of a shown cell; None: all are shown.
        without: names of the clients that do not count.
        hidden: [C] bool, the classes that are shown for no single site.
        tables: row label -> scores by subgroup.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not np.isfinite(value) else value

    about = {
        "floor": floor,
        "without": list(without),
        "hidden_of_sites": [int(c) for c in np.flatnonzero(hidden)],
        "rows": plain(dict(tables)),
    }
    return (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode()
