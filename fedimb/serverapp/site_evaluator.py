"""Scores where there is no one model: every site's own model on the same test rows, counted together.

A method may fuse the sites' models to one at the end; that one is then scored as any other. A model that was never
trained is left out, and said.

With ``clients.models`` a site's model is that of its kind; with ``clients.private`` it is the shared weights and the
site's own. A row's confusion matrix counts each test row once for every site, so that a score such as a class's recall
is the mean over sites of what their models reach. What each model reaches is in ``artifacts/site_models.json``.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from flwr.app import RecordDict

from fedimb.clientapp.private_weights import STATE, own_counts
from fedimb.config.parts import build_model, corrects_by_own_counts
from fedimb.config.site_models import Layout, arrays_of_kind
from fedimb.data.federation import Federation
from fedimb.engine.lanes import LaneOutcome
from fedimb.errors import RunFailed
from fedimb.evaluation.confusion import confusion_of
from fedimb.evaluation.costs import client_accuracies
from fedimb.evaluation.intervals import bootstrap_votes
from fedimb.evaluation.metrics import named_scores, scores
from fedimb.evaluation.multilabel import bootstrap_labels
from fedimb.evaluation.probabilities import ProbabilityScores, probabilities_of, probability_scores
from fedimb.models.base import Classifier, buffers_of, load_into, parameters_of
from fedimb.plain import JsonObject
from fedimb.records import Arrays, to_numpy
from fedimb.rundir.model_file import save_model, site_models_index
from fedimb.rundir.row_scores import RowScores
from fedimb.schema import RunConfig
from fedimb.serverapp.client_scores import NOBODY_TRAINED
from fedimb.serverapp.evaluate import Evaluator
from fedimb.training.calibrations.base import Outputs
from fedimb.training.forward import forward_batched

SITE_MODELS = "site_models.json"
"""Artifact: what each model reaches on the test rows, and whose it is."""


@dataclass(frozen=True)
class SiteModel:
    """A model to score.

    Attributes:
        name: a kind's, or a site's.
        kind: its network.
        clients: whose model it is.
    """

    name: str
    kind: str
    clients: tuple[int, ...]


def site_models(config: RunConfig, kinds: Sequence[str], sites: Sequence[int], names: Sequence[str]) -> list[SiteModel]:
    """The models of a run that are scored and stored.

    Args:
        kinds: kind of each client, by client id.
        sites: ids of the clients with data.
        names: name of each client by id, or empty.
    """
    if config.clients.private:
        return [SiteModel(names[k] if names else f"client-{k}", kinds[k], (k,)) for k in sites]
    found = {kind: tuple(k for k in sites if kinds[k] == kind) for kind in dict.fromkeys(kinds)}
    return [SiteModel(kind, kind, clients) for kind, clients in found.items() if clients]


class SiteEvaluator(Evaluator):
    """Scores the models of sites; see `Evaluator`.

    Args:
        config, federation: as for `Evaluator`.
        layout: networks of the run.
        models: the models to score.
        states: gives the clients' states by client id, which hold their private weights; asked at every scoring. At
            hospitals nobody sees them: there is no test row then, and sites score themselves.
        seen: gives [K] bool, whose updates the weights have been made of; None if that is not known.

    A site's model that was never trained is in no score: one whose private part is still the initial one, or of a kind
    that no client has trained.
    """

    def __init__(
        self,
        config: RunConfig,
        federation: Federation,
        layout: Layout,
        models: Sequence[SiteModel],
        states: Callable[[], Mapping[int, RecordDict]],
        seen: Callable[[], np.ndarray | None] = lambda: None,
    ) -> None:
        super().__init__(config, federation)
        self._models, self._states, self._seen = list(models), states, seen
        self._several = config.clients.models is not None
        shape = federation.n_classes, federation.input_shape
        self._networks: dict[str, Classifier] = {k: build_model(own, *shape) for k, own in layout.configs.items()}
        self._configs = layout.configs
        self.model = next(iter(self._networks.values()))
        self._private = {k: layout.private(k, network) for k, network in self._networks.items()}
        self._weights: tuple[Arrays, Arrays] = {}, {}
        self.copies = sum(len(model.clients) for model in models) if len(self._y) else 1
        self._own_counts = corrects_by_own_counts(config)
        self._fused = False
        self._by_model: dict[str, list[tuple[SiteModel, torch.Tensor]]] = {}

    def __call__(
        self, parameters: Arrays, buffers: Arrays, counts: np.ndarray | None, outcome: LaneOutcome | None
    ) -> dict[str, dict[str, float]]:
        """Metrics by row label, over the predictions of all sites' models."""
        whole = parameters_of(self.model) | buffers_of(self.model)
        self._fused = (parameters | buffers).keys() == whole.keys()
        if self._fused:
            self.copies = 1
            return super().__call__(parameters, buffers, counts, outcome)
        self._weights = parameters, buffers
        clients, federation = self._client_metrics(outcome), self._federation
        scored, states = self._trained()
        if len(self._y):
            self.copies = max(1, sum(len(model.clients) for model in scored))
        adjusted: dict[str, list[tuple[SiteModel, torch.Tensor]]] = {row: [] for row in self._calibrations}
        for model, network in self._loaded(scored if len(self._y) else scored[:1], states):
            features, logits = forward_batched(network, self._x)
            bias = None if network.head.bias is None else network.head.bias.detach()
            corrected_by = self._counts_of(model, states, counts)
            outputs = Outputs(features, logits, network.head.weight.detach().clone(), bias, corrected_by)
            for row, calibration in self._calibrations.items():
                adjusted[row].append((model, calibration.adjust(outputs) if len(self._y) else logits))
        metrics = {}
        for row, own in adjusted.items():
            if own:
                self._logits[row] = own[0][1]
            if not own or (not len(self._y) and not self.client_matrix):
                metrics[row] = dict(clients)
                continue
            parts = [len(model.clients) * confusion_of(self._y, logits) for model, logits in own]
            matrix = self.client_matrix[self.labels[row]] if self.client_matrix else np.sum(parts, axis=0)
            self.matrices[row], self._by_model[row] = matrix, own
            metrics[row] = named_scores(matrix, federation.minority, federation.class_names) | clients
            if self.client_matrix:
                metrics[row] |= self._by_domain(row, own[0][1])
        return metrics

    def _trained(self) -> tuple[list[SiteModel], Mapping[int, RecordDict]]:
        """The models that were trained, as far as the server can know, and the clients' states where it has them."""
        if any(self._private.values()):
            if self._federation.client_names:  # a hospital keeps its own, and says itself that it has none
                return self._models, {}
            states = self._states()
            return [model for model in self._models if STATE in states.get(model.clients[0], RecordDict())], states
        seen = self._seen()
        return [model for model in self._models if seen is None or seen[list(model.clients)].any()], {}

    def _counts_of(
        self, model: SiteModel, states: Mapping[int, RecordDict], counts: np.ndarray | None
    ) -> np.ndarray | None:
        """The class counts [C] that a model's predictions are corrected by: the run's, or of its own head its own."""
        return own_counts(states.get(model.clients[0], RecordDict())) if self._own_counts else counts

    def idle_clients(self) -> tuple[int, ...]:
        """See `Evaluator.idle_clients`: those of kinds that no client has trained."""
        trained = {client for model in self._trained()[0] for client in model.clients}
        idle = () if any(self._private.values()) else {k for model in self._models for k in model.clients} - trained
        return tuple(sorted(idle))

    def untrained(self) -> JsonObject | None:
        """See `Evaluator.untrained`.

        Raises:
            RunFailed: no model was trained.
        """
        if self._fused or not len(self._y):
            return None if self._fused else super().untrained()
        trained = {client for model in self._trained()[0] for client in model.clients}
        if not trained:
            raise RunFailed(NOBODY_TRAINED)
        missing = sorted({client for model in self._models for client in model.clients} - trained)
        return {"sites": [self._name(client) for client in missing], "rows": 0} if missing else None

    def _name(self, client: int) -> str:
        names = self._federation.client_names
        return names[client] if names else f"client-{client}"

    def _loaded(
        self, models: Sequence[SiteModel], states: Mapping[int, RecordDict]
    ) -> Iterator[tuple[SiteModel, Classifier]]:
        """The models one after another, each in the one network of its kind."""
        for model in models:
            network = self._networks[model.kind]
            shared = [arrays_of_kind(model.kind, w) if self._several else w for w in self._weights]
            own = dict(self._private[model.kind])
            if own and STATE in (state := states.get(model.clients[0], RecordDict())):
                own |= to_numpy(state.array_records[STATE])
            load_into(network, {k: torch.from_numpy(v.copy()) for k, v in (shared[0] | shared[1] | own).items()})
            yield model, network

    def intervals(self, row: str, resamples: int, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
        """See `Evaluator.intervals`: test rows are drawn with the predictions of all sites.

        None for rows with several labels and more than one model.
        """
        if self.client_matrix or self._fused:
            return super().intervals(row, resamples, rng)
        minority, own = self._federation.minority, self._by_model[row]
        if self._y.ndim == 2:
            if len(own) > 1:
                return {}
            said = (own[0][1] > 0).numpy()
            return bootstrap_labels(self._y.numpy(), said, self._strata(), minority, resamples, rng)
        votes = np.zeros((len(self._y), self._federation.n_classes), np.int64)
        for model, logits in own:
            np.add.at(votes, (np.arange(len(votes)), logits.argmax(dim=1).numpy()), len(model.clients))
        return bootstrap_votes(votes, self._y.numpy(), minority, resamples, rng)

    def client_accuracies(self, row: str) -> np.ndarray:
        """See `Evaluator.client_accuracies`: of each client by its own model; NaN if clients score themselves, as their
        matrices are summed over models."""
        if self._fused:
            return super().client_accuracies(row)
        held = self._federation.counts
        found = np.full(len(held), np.nan)
        if self._y.ndim == 2 or not len(self._y):
            return found
        for model, logits in self._by_model[row]:
            clients = list(model.clients)
            found[clients] = client_accuracies(confusion_of(self._y, logits), held[clients])
        return found

    def probability(self, row: str) -> ProbabilityScores:
        """See `Evaluator.probability`: the mean over sites of each score, NaN where one of them is."""
        if not len(self._y) or self._fused:
            return super().probability(row)
        several, labels = self._y.ndim == 2, self._y.numpy()
        found = [(m, probability_scores(probabilities_of(z, several), labels)) for m, z in self._by_model[row]]
        weights = [len(model.clients) for model, _ in found]
        means = {k: float(np.average([one.means[k] for _, one in found], weights=weights)) for k in found[0][1].means}
        auroc, auprc = (
            np.average([getattr(one, name) for _, one in found], axis=0, weights=weights) for name in ("auroc", "auprc")
        )
        return ProbabilityScores(means, auroc, auprc)

    def row_scores(self, row: str) -> RowScores | None:
        """None, as a test row has scores of several models; those of the model that a method fused them to."""
        return super().row_scores(row) if self._fused else None

    def save(self, folder: Path, counts: np.ndarray | None) -> None:
        """Write each trained model to ``models/<name>``, whose each is to ``models/index.json``, and what each reaches.

        At a deployment with private weights none is written: they stay at the sites. A model that a method fused them
        to is written as any other.
        """
        if self._fused:
            super().save(folder, counts)
            return
        federation = self._federation
        if any(self._private.values()) and federation.client_names:
            return
        resolved = self.resolved.calibration
        trained, states = self._trained()
        for model, network in self._loaded(trained, states):
            config = self._configs[model.kind].model_copy(update={"calibration": resolved})
            own = self._counts_of(model, states, counts)
            save_model(network, config, federation, folder / "models" / model.name, own)
        site_models_index(folder / "models", {m.name: [self._name(k) for k in m.clients] for m in trained})
        if len(self._y):
            facts = [self._facts(model, i) for i, model in enumerate(trained)]
            (folder / SITE_MODELS).write_text(json.dumps(facts, indent=1) + "\n")

    def _facts(self, model: SiteModel, position: int) -> JsonObject:
        """What a model reaches on the test rows, by row label; a score that is undefined is null."""
        found: JsonObject = {"name": model.name, "network": model.kind, "clients": list(model.clients), "rows": {}}
        for row, own in self._by_model.items():
            matrix = confusion_of(self._y, own[position][1])
            reached = scores(matrix, self._federation.minority)
            found["rows"][row] = {k: float(v) if np.isfinite(v) else None for k, v in reached.items()}
        return found
