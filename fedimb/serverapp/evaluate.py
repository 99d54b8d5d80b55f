"""Score the global model on the server's test set: one forward pass, one set of predictions per calibration."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedimb import registry
from fedimb.config.load import row_label
from fedimb.config.parts import build_model
from fedimb.data.federation import Federation
from fedimb.data.views import to_tensors
from fedimb.engine.lanes import ClientReply, LaneOutcome
from fedimb.evaluation.confusion import confusion_of
from fedimb.evaluation.costs import client_accuracies
from fedimb.evaluation.domains import Domains, domain_recalls
from fedimb.evaluation.intervals import bootstrap_scores
from fedimb.evaluation.metrics import TESTED, hits_and_support, named_scores, scores
from fedimb.evaluation.multilabel import bootstrap_labels
from fedimb.evaluation.phases import phase_recalls
from fedimb.evaluation.probabilities import ProbabilityScores, probabilities_of, probability_scores
from fedimb.evaluation.subgroups import subgroup_metrics
from fedimb.models.base import Classifier, load_into
from fedimb.plain import JsonObject
from fedimb.records import Arrays
from fedimb.rundir.model_file import save_model
from fedimb.rundir.row_scores import RowScores, hash_of_rows
from fedimb.schema import RunConfig, calibration_part
from fedimb.serverapp.attackers import Attackers
from fedimb.serverapp.client_scores import ClientScores
from fedimb.serverapp.subgroups import Subgroups
from fedimb.serverapp.temperature import tau_rules
from fedimb.training.calibrations.base import Outputs
from fedimb.training.forward import forward_batched
from fedimb.training.prior import log_prior

ATTACK_SUCCESS = "test/attack_success"
"""Metric of a run with an attack that has an aim: how often it is reached on test rows."""


class Evaluator:
    """Scores a model for every calibration of the run.

    Attributes:
        model: the classifier scored last.
        matrices: row label -> last confusion matrix [C, C] int64 (rows: true class); [C, 2, 2], one table per class, if
            rows have several labels.
        labels: row label -> calibration name, in configured order.
        client_matrix: calibration name -> the final model's confusion matrix on the clients' rows, if the server has no
            test rows (`fedimb.serverapp.client_scores`).
        matrix_by_client: calibration name -> the same of each client, unless they are masked.
        subgroups: row label -> scores by subgroup (`fedimb.evaluation.subgroups.subgroup_tables`) of the last
            predictions; empty unless ``data.subgroups`` is set.
        without_subgroups: clients that do not count in them.
        taus: calibration name -> the number found for it, where its tau is a rule (`fedimb.serverapp.temperature`).
        temperature: what was found, for the result; None without a rule.
        held_out: (log loss of the final model on the clients' validation rows at each temperature [37] int64, rows), if
            ``evaluation.temperature`` is set.
        hidden_of_sites: [C] bool, the classes that count for no single site's scores (``evaluation.subgroup_floor``).
    """

    def __init__(self, config: RunConfig, federation: Federation, attackers: Attackers | None = None) -> None:
        self._federation, self._attackers = federation, attackers
        self.model: Classifier = build_model(config, federation.n_classes, federation.input_shape)
        if len(federation.test):
            self._x, self._y = to_tensors(federation.store, federation.test, federation.scaling)
            sites = federation.store.sites
            self._domains = Domains(None if sites is None else sites[federation.test], federation.domains)
        else:  # a deployment's server has no store
            self._domains = Domains(None, ())
            self._x, self._y = torch.zeros((0, *federation.input_shape)), torch.zeros(0, dtype=torch.int64)
        self.labels = {row_label(config, name): name for name in config.calibration}
        self._config, self._rules = config, tau_rules(config)
        self._calibrations: dict[str, Any] = {
            row_label(config, name): registry.build(
                "calibration", calibration_part(name), {"seed": config.seed}, **(args or {})
            )
            for name, args in config.calibration.items()
        }
        self.taus: dict[str, float] = {}
        self.temperature: JsonObject | None = None
        self.held_out: tuple[np.ndarray, int] | None = None
        self._outputs: Outputs | None = None
        self.matrices: dict[str, np.ndarray] = {}
        self.client_matrix: dict[str, np.ndarray] = {}
        self.matrix_by_client: dict[str, dict[int, np.ndarray]] = {}
        self.subgroups: dict[str, list[dict[str, Any]]] = {}
        self.hidden_of_sites = np.zeros(federation.n_classes, np.bool_)
        self.without_subgroups: tuple[str, ...] = ()
        self._untrained: JsonObject | None = None
        self._of_subgroups = Subgroups.of(config, federation)
        if self._of_subgroups is not None and self._of_subgroups.rows is not None:
            self.hidden_of_sites = self._of_subgroups.hide_rows(self._y.numpy())
        self._logits: dict[str, torch.Tensor] = {}  # row label -> calibrated logits [n, C] of the last predictions

    copies = 1
    """How often each test row is counted in `matrices`."""

    def idle_clients(self) -> tuple[int, ...]:
        """Clients of a network that nobody has trained: none, where all share one."""
        return ()

    def untrained(self) -> JsonObject | None:
        """Whose models are in no score, as they were never trained: ``sites`` (names; empty if masks hide them) and
        ``rows`` (of their validation rows, which count for nothing); None if all are in."""
        found = self._untrained
        return found if found is not None and (found["sites"] or found["rows"]) else None

    def save(self, folder: Path, counts: np.ndarray | None) -> None:
        """Write the model scored last to ``model`` in a folder of artifacts.

        Args:
            counts: class counts [C] that calibrations had in the last round.
        """
        save_model(self.model, self.resolved, self._federation, folder / "model", counts)

    def take(self, scores: ClientScores) -> None:
        """What the clients' rows say of the model that is scored next."""
        self.client_matrix, self.matrix_by_client = scores.total, scores.by_client
        names = self._federation.client_names
        who = [names[k] if names else f"client-{k}" for k in scores.untrained]
        self._untrained = {"sites": who, "rows": scores.untrained_rows}
        self.without_subgroups = tuple(names[client] if names else f"client {client}" for client in scores.without)
        if self._of_subgroups is not None and scores.subgroups:
            self.hidden_of_sites = self._of_subgroups.take(scores.subgroups, scores.cells)

    @property
    def tested(self) -> tuple[int, ...]:
        """Test rows of each class, those with the label if rows have several; empty if the server has none."""
        if not len(self._y):
            return ()
        if self._y.ndim == 2:
            rows = (self._y == 1).sum(dim=0)
        else:
            rows = torch.bincount(self._y, minlength=self._federation.n_classes)
        return tuple(map(int, rows.tolist()))

    @property
    def waits_for_tau(self) -> bool:
        """Whether a calibration's tau is a rule that has given no number yet: its row has no scores till then."""
        return self.taus.keys() != self._rules.keys()

    def take_taus(self, found: JsonObject) -> None:
        """Score from now on with the numbers found (`fedimb.serverapp.temperature.find_taus`)."""
        self.temperature = found
        self.taus = {name: float(found["rules"][rule]["tau"]) for name, rule in self._rules.items()}
        for row, name in self.labels.items():
            if name in self.taus:
                args = self.resolved.calibration[name]
                self._calibrations[row] = registry.build("calibration", calibration_part(name), **args)

    @property
    def resolved(self) -> RunConfig:
        """The configuration with the numbers found in place of rules: what a model's predictions need."""
        found = {
            name: (args or {}) | ({"tau": self.taus[name]} if name in self.taus else {})
            for name, args in self._config.calibration.items()
        }
        return self._config.model_copy(update={"calibration": found})

    def tau_of(self, row: str) -> JsonObject:
        """``tau`` and ``tau_rule`` of a row with post-hoc logit adjustment, for its result; {} for others."""
        name = self.labels[row]
        if calibration_part(name) != "la_post":
            return {}
        return {"tau": float(self.resolved.calibration[name]["tau"]), "tau_rule": self._rules.get(name, "")}

    def tau_curve(self) -> list[tuple[float, dict[str, float]]]:
        """Scores of the last predictions shifted by tau times the log prior, for tau from 0 to 4 in steps of 1/4.

        Empty unless a tau is a rule and the server has test rows.
        """
        outputs = self._outputs
        if not self._rules or outputs is None or outputs.counts is None or not len(self._y):
            return []
        shift, curve = log_prior(outputs.counts), []
        for step in range(17):
            matrix = confusion_of(self._y, outputs.logits - step / 4 * shift)
            curve.append((step / 4, scores(matrix, self._federation.minority)))
        return curve

    def of_clients(self, calibration: str) -> dict[int, np.ndarray]:
        """The clients' confusion matrices, without the classes that are shown for no single site."""
        shown = ~self.hidden_of_sites[:, None]
        return {client: matrix * shown for client, matrix in self.matrix_by_client.get(calibration, {}).items()}

    def __call__(
        self, parameters: Arrays, buffers: Arrays, counts: np.ndarray | None, outcome: LaneOutcome | None
    ) -> dict[str, dict[str, float]]:
        """Metrics by row label: ``test/*`` for these weights, ``client/*`` from the clients' matrices."""
        clients = self._client_metrics(outcome)
        load_into(self.model, {k: torch.from_numpy(v.copy()) for k, v in (parameters | buffers).items()})
        features, logits = forward_batched(self.model, self._x)
        head = self.model.head
        bias = None if head.bias is None else head.bias.detach()
        outputs = Outputs(features, logits, head.weight.detach(), bias, counts)
        self._outputs = outputs if self._rules else None
        names, minority = self._federation.class_names, self._federation.minority
        metrics = {}
        for row, calibration in self._calibrations.items():
            if self.labels[row] in self._rules and self.labels[row] not in self.taus:
                metrics[row] = dict(clients)
                continue
            adjusted = calibration.adjust(outputs)
            self._logits[row] = adjusted
            if not len(self._y) and not self.client_matrix:
                metrics[row] = dict(clients)
                continue
            matrix = self.client_matrix[self.labels[row]] if self.client_matrix else confusion_of(self._y, adjusted)
            self.matrices[row] = matrix
            metrics[row] = named_scores(matrix, minority, names) | clients
            metrics[row] |= self._by_domain(row, adjusted)
            metrics[row] |= phase_recalls(matrix, self._federation.phases) if self._federation.phases else {}
            if self._of_subgroups is not None:
                tables = self._of_subgroups.tables(self.labels[row], self._y, adjusted)
                self.subgroups[row] = tables
                metrics[row] |= subgroup_metrics(tables) if tables else {}
            if self._attackers is not None and (aim := self._attackers.attack.aim()) is not None and len(self._y):
                metrics[row][ATTACK_SUCCESS] = self._success(calibration, counts, *aim)
        return metrics

    def _success(self, calibration: Any, counts: np.ndarray | None, source: Sequence[int], target: int) -> float:
        """Share of the test rows of the source classes, shown as the attack shows them, predicted as the target."""
        assert self._attackers is not None
        rows = torch.isin(self._y, torch.tensor(list(source)))
        if not rows.any():
            return float("nan")
        features, logits = forward_batched(self.model, self._attackers.attack.trigger(self._x[rows]))
        head = self.model.head
        bias = None if head.bias is None else head.bias.detach()
        adjusted = calibration.adjust(Outputs(features, logits, head.weight.detach(), bias, counts))
        return float((adjusted.argmax(dim=1) == target).float().mean())

    def _by_domain(self, row: str, logits: torch.Tensor) -> dict[str, float]:
        """Recall by site or device; on the clients' rows if each client is a site."""
        federation = self._federation
        if not self.client_matrix:
            return self._domains.recalls(self._y, logits, federation.minority, self.hidden_of_sites)
        if not self.matrix_by_client or not federation.client_names:
            return {}
        return domain_recalls(self.of_clients(self.labels[row]), federation.client_names, federation.minority)

    def intervals(self, row: str, resamples: int, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of the scores last computed for ``row``, over the test rows.

        Stratified by class, or, if rows have several labels, by their primary one.
        """
        minority = self._federation.minority
        if self._y.ndim != 2:
            return bootstrap_scores(self.matrices[row], minority, resamples, rng)
        said = (self._logits[row] > 0).numpy()
        return bootstrap_labels(self._y.numpy(), said, self._strata(), minority, resamples, rng)

    def _strata(self) -> np.ndarray:
        """[n] int64, of test rows with several labels: the primary class; C of a row without a known positive."""
        primary = np.asarray(self._federation.store.y[self._federation.test])
        return np.where((self._y == 1).any(dim=1).numpy(), primary, self._federation.n_classes)

    def client_accuracies(self, row: str) -> np.ndarray:
        """Accuracy expected at each client from the classes it holds, float64 [K], of the scores last computed.

        NaN where it is undefined (`fedimb.evaluation.costs.client_accuracies`) or rows have several labels.
        """
        held, matrix = self._federation.counts, self.matrices[row]
        return client_accuracies(matrix, held) if matrix.ndim == 2 else np.full(len(held), np.nan)

    def probability(self, row: str) -> ProbabilityScores:
        """Scores of the probabilities behind the predictions last scored for ``row``, over the test rows."""
        return probability_scores(probabilities_of(self._logits[row], self._y.ndim == 2), self._y.numpy())

    def row_scores(self, row: str) -> RowScores | None:
        """The scores last computed for ``row``, of every test row; None if the test rows are not the server's."""
        federation = self._federation
        rows = federation.test
        if not len(rows):
            return None
        store = federation.store
        patients = None if store.patients is None else np.unique(store.patients[rows], return_inverse=True)[1]
        labels = store.y[rows] if store.targets is None else store.targets[rows]
        names = tuple(federation.class_names)
        return RowScores(rows, np.asarray(labels), self._logits[row].numpy(), patients, self._test_set, names)

    @cached_property
    def _test_set(self) -> str:
        return hash_of_rows(self._federation.store, self._federation.test)

    def _client_metrics(self, outcome: LaneOutcome | None) -> dict[str, float]:
        if outcome is None or outcome.total.confusion is None:
            return {}
        federation, replies = self._federation, outcome.replies
        matrix = outcome.total.confusion
        if self._attackers is not None:
            replies = [reply for reply in replies if reply.client not in self._attackers.clients]
            if (found := _recall_table(replies, matrix.ndim)) is None:
                return {}
            matrix = found
        metrics = named_scores(matrix, federation.minority, federation.class_names, prefix="client")
        kept = {k: v for k, v in metrics.items() if k in ("client/macro_recall", "client/minority_recall")}
        if self._of_subgroups is not None and self._of_subgroups.floor is not None:
            return kept  # the lowest is one site's own figure
        if not len(self._y):
            recalls = {k: v for k, v in metrics.items() if k.startswith("client/recall/")}
            rows = hits_and_support(matrix)[1].tolist()
            kept |= recalls | {k.replace("/recall/", TESTED, 1): float(n) for k, n in zip(recalls, rows, strict=True)}
        minority = list(federation.minority)
        worst = [
            float(np.mean(a.hits[held] / a.support[held]))
            for a in replies
            if a.hits is not None and a.support is not None and (held := [c for c in minority if a.support[c] > 0])
        ]
        return kept | {"client/worst_minority_recall": min(worst) if worst else float("nan")}


def _recall_table(replies: Sequence[ClientReply], ndim: int) -> np.ndarray | None:
    """A matrix, [C, C] or [C, 2, 2], with the recall of these clients' rows; which class a miss went to is not kept.

    None if none of them sent scores.
    """
    scored = [(reply.hits, reply.support) for reply in replies if reply.hits is not None and reply.support is not None]
    if not scored:
        return None
    hits, support = (np.sum(part, axis=0) for part in zip(*scored, strict=True))
    classes = np.arange(len(hits))
    if ndim == 3:
        table = np.zeros((len(hits), 2, 2), np.int64)
        table[:, 1, 1], table[:, 1, 0] = hits, support - hits
        return table
    table = np.zeros((len(hits), len(hits)), np.int64)
    table[classes, (classes + 1) % len(hits)] = support - hits
    table[classes, classes] += hits
    return table
