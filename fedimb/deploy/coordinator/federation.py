"""A federation nobody holds in one place: how many rows each site has, and what the plan says of them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedimb.data.federation import Federation
from fedimb.data.scaling import Scaling
from fedimb.data.store import Store
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.errors import DataError


class DeployedFederation(Federation):
    """What the loop needs of a federation, without a row of it.

    ``train`` and ``validation`` count each site's rows from 0; ``counts`` are zeros, for class counts are asked for
    where the run's prior needs them, and refused where a site does not give them.

    Args:
        plan: classes, minority and input shape.
        versions: hash of each site's data version, in client-id order.
        rows, validation: how many each site has.
        scaling: of a table's columns over all sites.
        scale: what every site's source multiplies a row's numbers by.
    """

    def __init__(
        self,
        plan: StudyPlan,
        sites: Sequence[str],
        versions: Sequence[str],
        rows: Sequence[int],
        validation: Sequence[int],
        scaling: Scaling | None,
        scale: float,
    ) -> None:
        self._shape, self._scale, self._sites = tuple(plan.input_shape), scale, tuple(sites)
        minority = tuple(sorted(plan.classes.index(name) for name in plan.minority))
        super().__init__(
            source={"name": "registered", "tags": list(plan.tags), "sites": list(sites)},
            store_path=Path("plans") / plan.sha,
            train=[np.arange(n, dtype=np.int64) for n in rows],
            validation=[np.arange(n, dtype=np.int64) for n in validation],
            test=np.zeros(0, np.int64),
            counts=np.zeros((len(sites), len(plan.classes)), np.int64),
            class_names=tuple(plan.classes),
            minority=minority,
            fingerprint=hashlib.sha256("\n".join(versions).encode()).hexdigest(),
            scaling=scaling,
        )

    @property
    def store(self) -> Store:
        """There is none: the rows are at the sites."""
        raise DataError("the rows of a deployment are at its sites; nothing at the coordinator can read them")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, by the plan."""
        return self._shape

    @property
    def input_scale(self) -> float:
        """What the sites' sources multiply a row by."""
        return self._scale

    @property
    def domains(self) -> tuple[str, ...]:
        """The sites: at a deployment the hospital is the device."""
        return self._sites

    @property
    def client_names(self) -> tuple[str, ...]:
        """The sites."""
        return self._sites

    @property
    def task(self) -> str:
        """One class per row."""
        return "multiclass"
