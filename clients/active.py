"""Active learning at a site: which rows to label next, which are labelled, and which are left in the pool."""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from flwr.app import RecordDict
from numpy.typing import NDArray
from torch import Tensor

from fedimb import registry
from fedimb.annotation.oracles import check_oracle, open_oracle
from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.active_models import compensated, distilled_model, keep_updated, local_model, updated_model
from fedimb.clients.base import Client
from fedimb.contracts.active import BALANCE, CHOICE, CYCLE, LABELLED, PROTOTYPES, SUMS, ActiveSettings
from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.selection.prototypes import class_prototypes, prototype_sums, pseudo_labels
from fedimb.selection.queries.base import Model, ModelOutputs, QueryInput, QueryRule
from fedimb.selection.queries.local_priors import (
    adaptive_model,
    balanced_positions,
    class_balance,
    mean_softmax,
    model_distance,
)
from fedimb.training.forward import forward_batched
from fedimb.training.local import LocalResult
from fedimb.training.spec import TrainSpec

Rows = NDArray[np.int64]
_OVER_ALL_ROWS = ("balance", "prototypes", "choose")


@register("client", "active")
class ActiveClient(Client):
    """Active learning at a site.

    Args:
        settings: an `ActiveSettings`; or give its fields by name.
    """

    name: ClassVar[str] = "active"

    def __init__(self, settings: ActiveSettings | None = None, **fields: object) -> None:
        self.settings = ActiveSettings.of(settings, fields)
        rule, args = self.settings.part("query")
        self.rule: QueryRule = registry.build("query", rule, **args)
        self.forwards = {f"{self.name}_{what}": (self.settings.query_view,) for what in _OVER_ALL_ROWS}

    def check(self, site: Site) -> None:
        """Refuse several labels per row, or an oracle that cannot work here."""
        if site.task != "multiclass":
            raise ConfigError("active learning asks for one class per row; these rows have several labels")
        view, oracle = self.settings.query_view, self.settings.oracle
        if view != "train" and oracle.get("name") != "simulated":
            raise ConfigError(
                f"strategy.{self.name}.query_view={view} shows rows of other clients in place of a client's own, which "
                f"is possible only in a simulation; set query_view=train or oracle={{name: simulated}}"
            )
        check_oracle(oracle, site)

    def labels(self, context: ClientContext) -> None:
        """Hide all labels but those queried so far; set the views ``labelled`` and ``pool``."""
        data, state = context.data, context.state
        rows, labels, unjudged = np.zeros((3, 0), np.int64)
        if "labels" in state:
            kept = arrays_of(state, "labels")
            rows, labels, unjudged = kept["rows"], kept["labels"], kept["unjudged"]
        data.set_labels(rows, labels)
        data.set_view("labelled", rows)
        data.set_view("pool", np.setdiff1d(data.rows("train"), np.union1d(rows, unjudged)))

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """Train for the configured epochs over the labelled rows: every rule has the same number of labels and of
        steps.

        If an inner method chose some of these rows, it has set the number of steps.
        """
        if not context.data.has("coreset"):
            spec = spec.change(steps=context.steps_over("trained_on"))
        if not self.settings.kcfu:
            return spec
        # In the first round there is nothing to distil from: the received weights are untrained.
        first = (context.round - 1) % self._rounds(context) == 0 if self.settings.restart else context.round == 1
        return compensated(spec, context, getattr(self.rule, "floor", 1.0), distils=not first)

    def after_training(self, result: LocalResult, context: ClientContext) -> RecordDict:
        """Send no extra records; keep the client's trained weights for a rule that reads them at the next query."""
        if "updated" in self.rule.optional and context.round % self._rounds(context) == 0 and result.steps:
            keep_updated(context)
        return RecordDict()

    def _rounds(self, context: ClientContext) -> int:
        return context.config.rounds // self.settings.cycles

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Answer one of the five queries of the contract."""
        asked: dict[str, Any] = dict(content.config_records[CYCLE])
        match name.rpartition("_")[2]:
            case "start":
                return self._start(asked, context)
            case "balance":
                return RecordDict({BALANCE: array_record({"balance": np.array([self._balance(context)], np.float32)})})
            case "prototypes":
                return self._prototypes(context)
            case "choose":
                return self._choose(asked, content, context)
            case _:
                return self._collect(asked, context)

    def _start(self, asked: dict[str, Any], context: ClientContext) -> RecordDict:
        pool = context.data.rows("pool")
        order = torch.randperm(len(pool), generator=context.generator())[: asked["rows"]].numpy()
        return self._have_labelled(np.sort(pool[order]), asked, context, False, math.nan)

    def _have_labelled(
        self,
        rows: Rows,
        asked: dict[str, Any],
        context: ClientContext,
        local: bool,
        distance: float,
        predictions: Rows | None = None,
    ) -> RecordDict:
        open_oracle(self.settings.oracle, context).ask(rows, asked["cycle"], predictions)
        choice = {
            "asked": np.array([len(rows)], np.int32),
            "local": np.array([local], np.int32),
            "distance": np.array([distance], np.float32),
        }
        return RecordDict({CHOICE: array_record(choice)})

    def _outputs(self, context: ClientContext) -> tuple[ModelOutputs, ModelOutputs, Tensor]:
        """(pool, labelled) under the received model, and the labels."""
        features, logits = (values.cpu() for values in context.forward(self.settings.query_view))
        pool, labelled = self._positions(context)
        labels = context.data.tensors("labelled")[1].cpu()
        return ModelOutputs(features[pool], logits[pool]), ModelOutputs(features[labelled], logits[labelled]), labels

    def _positions(self, context: ClientContext) -> tuple[Tensor, Tensor]:
        train = context.data.rows("train")
        pool, labelled = (torch.from_numpy(np.searchsorted(train, context.data.rows(v))) for v in ("pool", "labelled"))
        return pool, labelled

    def _balance(self, context: ClientContext) -> float:
        _, labelled, labels = self._outputs(context)
        shown = balanced_positions(labels, context.generator())
        return class_balance(mean_softmax(labelled.logits[shown]), labels)

    def _prototypes(self, context: ClientContext) -> RecordDict:
        _, labelled, labels = self._outputs(context)
        sums = prototype_sums(labelled.features, labels, len(context.data.store.class_names))
        return RecordDict({SUMS: array_record({"sums": sums.float().numpy()})})

    def _choose(self, asked: dict[str, Any], content: RecordDict, context: ClientContext) -> RecordDict:
        classes, generator = len(context.data.store.class_names), context.generator()
        pool, labelled, labels = self._outputs(context)
        gamma = asked.get("gamma")
        seen: dict[str, dict[Model, ModelOutputs]] = {"pool": {"global": pool}, "labelled": {"global": labelled}}
        which, distance = "global" if self.settings.which == "adaptive" else self.settings.which, math.nan
        if len(labels) and (self.settings.which == "adaptive" or "local" in self.rule.reads(which)):
            x = context.data.tensors(self.settings.query_view)[0]
            for name, model in self._own_models(asked["cycle"], context).items():
                for view, rows in zip(seen, self._positions(context), strict=True):
                    seen[view][name] = ModelOutputs(*(v.cpu() for v in forward_batched(model, x[rows.to(x.device)])))
            shown = balanced_positions(labels, generator)
            priors = [mean_softmax(seen["labelled"][m].logits[shown]) for m in ("global", "local")]
            distance = model_distance(*priors)
            if self.settings.which == "adaptive" and gamma is not None:
                which = adaptive_model(distance, float(gamma), getattr(self.rule, "delta", 0.75))
        elif "local" in self.rule.reads(which):  # without labels there is no local model: use the global one
            which = "global"
            seen = {view: {"global": models["global"], "local": models["global"]} for view, models in seen.items()}
        vectors = torch.from_numpy(arrays_of(content, PROTOTYPES)["vectors"]) if PROTOTYPES in content else None
        question = QueryInput(
            budget=asked["rows"], n_classes=classes, labels=labels, pool=seen["pool"], labelled=seen["labelled"],
            generator=generator, which=which, gamma=gamma, prototypes=vectors,
            hidden=torch.from_numpy(open_oracle(self.settings.oracle, context).peek(context.data.rows("pool")))
            if self.rule.oracle else None,
        )  # fmt: skip
        chosen = self.rule.select(question)
        picked = context.data.rows("pool")[chosen.numpy()]
        own = class_prototypes(labelled.features, labels, classes) if vectors is None else vectors
        guesses = pseudo_labels(pool.features[chosen], own).numpy()
        order = np.argsort(picked)
        context.state["guesses"] = array_record({"rows": picked[order], "guesses": guesses[order]})
        predictions = pool.logits[chosen].argmax(1).numpy()
        return self._have_labelled(picked, asked, context, which == "local", distance, predictions)

    def _own_models(self, cycle: int, context: ClientContext) -> dict[Model, Classifier]:
        """The local model, and the client's weights after its last round if the rule reads them."""
        models: dict[Model, Classifier] = {}
        if "updated" in self.rule.optional:
            model = updated_model(cycle, context, (cycle - 1) * self._rounds(context))
            if model is not None:
                models["updated"] = model
        if self.rule.distilled is not None:
            models["local"] = distilled_model(cycle, context, self.rule.distilled)
        else:
            models["local"] = local_model(cycle, context, self.settings.local_epochs, self.settings.local_stop)
        return models

    def _collect(self, asked: dict[str, Any], context: ClientContext) -> RecordDict:
        data, classes = context.data, len(context.data.store.class_names)
        answers = open_oracle(self.settings.oracle, context).collect(asked["cycle"])
        guessed = judged = np.zeros(classes, np.int32)
        if answers is not None:
            rows = np.concatenate([data.rows("labelled"), answers.rows])
            labels = np.concatenate([data.tensors("labelled")[1].cpu().numpy(), answers.labels])
            order = np.argsort(rows)
            before = arrays_of(context.state, "labels")["unjudged"] if "labels" in context.state else rows[:0]
            kept = {"rows": rows[order], "labels": labels[order], "unjudged": np.union1d(before, answers.unjudged)}
            context.state["labels"] = array_record(kept)
            if "guesses" in context.state:
                made = arrays_of(context.state, "guesses")
                right = made["guesses"][np.searchsorted(made["rows"], answers.rows)] == answers.labels
                judged = np.bincount(answers.labels, minlength=classes).astype(np.int32)
                guessed = np.bincount(answers.labels[right], minlength=classes).astype(np.int32)
                del context.state["guesses"]
            self.labels(context)
        counts = {
            "labelled": data.counts("labelled").astype(np.int32),
            "pool": np.array([len(data.rows("pool"))], np.int32),
            "ready": np.array([answers is not None], np.int32),
            "guessed": guessed,
            "judged": judged,
        }
        return RecordDict({LABELLED: array_record(counts)})
