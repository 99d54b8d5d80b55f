"""The federation of a deployment, without its rows: row counts from the sites, the rest from the study plan."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedimb.data.federation import Federation
from fedimb.data.label_spaces import LabelSpaces, label_spaces, parse_labels
from fedimb.data.scaling import Scaling
from fedimb.data.store import Store
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.errors import DataError
from fedimb.schema import RunConfig


def declared_labels(
    config: RunConfig, plan: StudyPlan, rows: Sequence[int], left_out: Sequence[int]
) -> LabelSpaces | None:
    """Which site of a plan annotates which class (``data.labels``); None if every site annotates all.

    Args:
        rows: of each site, in client-id order, without those that it leaves out.
        left_out: rows of classes that the site does not annotate.

    Raises:
        ConfigError, DataError: see `fedimb.data.label_spaces.label_spaces`.
    """
    sites = {site.name: [client] for client, site in enumerate(plan.sites)}
    found = label_spaces(parse_labels(config.data), len(plan.sites), plan.classes, "multiclass", sites)
    if found is None:
        return None
    out = np.array(left_out, np.int64)
    return replace(found, rows=np.array(rows, np.int64) + out, left_out=out)


class DeployedFederation(Federation):
    """What the run loop needs to know about a federation whose rows stay at the sites.

    ``train`` and ``validation`` number each site's rows from 0. ``counts`` are zeros: class counts are queried when the
    run's prior needs them, and a site may refuse.

    Args:
        plan: gives classes, minority and input shape.
        sites: names of the sites, in client-id order.
        versions: hash of each site's data version, in client-id order.
        rows, validation: number of training and validation rows of each site.
        scaling: of a table's columns, over all sites; None if there is none.
        scale: factor by which every site's source multiplies a row.
        code: release and hash of the code of each site, in client-id order.
        labels: which site annotates which class; None: every site annotates all.
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
        code: Sequence[str],
        labels: LabelSpaces | None = None,
    ) -> None:
        self._code = dict(zip(sites, code, strict=True))
        self._planned = tuple(site.name for site in plan.sites)
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
            labels=labels,
        )

    @property
    def store(self) -> Store:
        """Not available: the rows are at the sites. Raises DataError."""
        raise DataError("the rows of a deployment are at its sites; nothing at the coordinator can read them")

    def sites_of(self) -> dict[str, list[int]]:
        """Name of each site of the plan -> its client id."""
        return {name: [client] for client, name in enumerate(self._planned)}

    @property
    def content_sha(self) -> str:
        """Hash of the sites' data versions."""
        return self.fingerprint

    @property
    def site_code(self) -> Mapping[str, str]:
        """Release and hash of the code of each site, as it reported them when it joined."""
        return self._code

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, from the plan."""
        return self._shape

    @property
    def input_scale(self) -> float:
        """Factor by which the sites' sources multiply a row."""
        return self._scale

    @property
    def domains(self) -> tuple[str, ...]:
        """The sites: in a deployment each hospital is its own domain."""
        return self._sites

    @property
    def client_names(self) -> tuple[str, ...]:
        """Names of the sites."""
        return self._sites

    @property
    def task(self) -> str:
        """One class per row."""
        return "multiclass"
