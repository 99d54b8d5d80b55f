"""Scores where a method may make an ensemble of the sites' models: each of them, and the ensemble once there is one."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedimb.config.parts import build_model
from fedimb.engine.lanes import LaneOutcome
from fedimb.models.ensemble import Ensemble
from fedimb.records import Arrays
from fedimb.rundir.model_file import save_model
from fedimb.schema import RunConfig
from fedimb.serverapp.site_evaluator import SiteEvaluator

WEIGHTS = "member_weights"
"""Name of the parameter with the members' weights."""
_MEMBERS = "members"


def member_key(client: int, name: str) -> str:
    """The ensemble's name for a parameter of a client's model."""
    return f"{_MEMBERS}.{client}.{name}"


class EnsembleEvaluator(SiteEvaluator):
    """Scores an ensemble like any one model; see `SiteEvaluator`."""

    def __call__(
        self, parameters: Arrays, buffers: Arrays, counts: np.ndarray | None, outcome: LaneOutcome | None
    ) -> dict[str, dict[str, float]]:
        """Metrics by row label, of the ensemble if these are its parameters."""
        if WEIGHTS in parameters:
            shape = self._federation.n_classes, self._federation.input_shape
            self.model = build_model(self._config_of(parameters), *shape)
        return super().__call__(parameters, buffers, counts, outcome)

    def _config_of(self, parameters: Mapping[str, object]) -> RunConfig:
        """The configuration with the ensemble as its model."""
        clients = sorted({int(name.split(".")[1]) for name in parameters if name.startswith(f"{_MEMBERS}.")})
        kinds = {client: model.kind for model in self._models for client in model.clients}
        members = {str(client): dict(self._configs[kinds[client]].model) for client in clients}
        spaces = self._federation.labels
        known = None
        if spaces is not None:
            known = {str(client): np.flatnonzero(spaces.annotated[client]).tolist() for client in clients}
        path = f"{Ensemble.__module__}.{Ensemble.__qualname__}"
        return self.resolved.model_copy(update={"model": {"name": path, "members": members, "annotated": known}})

    def save(self, folder: Path, counts: np.ndarray | None) -> None:
        """See `SiteEvaluator.save`: the ensemble is written as any one model."""
        if not isinstance(self.model, Ensemble):
            super().save(folder, counts)
            return
        config = self._config_of(dict(self.model.named_parameters()))
        save_model(self.model, config, self._federation, folder / "model", counts)
