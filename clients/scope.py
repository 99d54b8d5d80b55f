"""SCOPE at a site: score the rows, report moments per class, prune by the consensus, keep the coreset."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor

from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client, coreset_record, set_coreset
from fedimb.contracts.scope import (
    CLASS_SUMS,
    CONSENSUS,
    KEPT,
    PROFILE,
    PROFILES,
    PROTOTYPES,
    PRUNE,
    SUMS,
    ScopeSettings,
)
from fedimb.encoders.base import Encoder
from fedimb.encoders.checks import unit_rows
from fedimb.encoders.embed import embed, open_encoder
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.seeds import Stream
from fedimb.selection.checks import rows_not_dead
from fedimb.selection.moments import add_noise, class_moments, suppress
from fedimb.selection.profile import Profile
from fedimb.selection.projections import project
from fedimb.selection.prototypes import prototype_sums
from fedimb.selection.scope import prune
from fedimb.training.spec import TrainSpec

_PRUNE_SETTINGS = ("p_f", "p_l", "beta", "gamma", "eps", "gate", "variant", "choice", "min_rows")
"""The settings that `fedimb.selection.scope.prune` takes."""


@register("client", "scope")
class ScopeClient(Client):
    """SCOPE at a site.

    Args:
        settings: a `ScopeSettings`; or give its fields by name.
    """

    forwards: Mapping[str, tuple[str, ...]] = MappingProxyType({SUMS: ("train",), PROFILES: ("train",)})

    def __init__(self, settings: ScopeSettings | None = None, **fields: object) -> None:
        self.settings = ScopeSettings.of(settings, fields)

    def check(self, site: Site) -> None:
        """Refuse what cannot work here before anything is run.

        Raises:
            ConfigError: one class only, several labels per row, or an encoder that cannot work here.
        """
        if site.task != "multiclass":
            raise ConfigError(
                "strategy=scope scores rows by class, but these have several labels; use another strategy"
            )
        if len(site.class_names) < 2:
            raise ConfigError(
                "strategy=scope needs at least two classes: with one class there is nothing to confuse it with"
            )
        encoder = open_encoder(self.settings.encoder, site.store)
        encoder.class_vectors(site.class_names)

    def views(self, context: ClientContext) -> None:
        """Set the coreset, once it is chosen and until more rows are labelled."""
        if "coreset" in context.state:
            set_coreset(arrays_of(context.state, "coreset"), context)

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """Train for as many steps as without pruning (``steps: equal``) or for epochs over the coreset (``native``)."""
        if self.settings.steps == "equal" or not context.data.has("coreset"):
            return spec
        return spec.change(steps=context.steps_over("trained_on"))

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Answer one of the three queries of the contract."""
        labels = context.data.tensors(context.data.known_view)[1].cpu()
        if name == SUMS:
            return self._sums(labels, context)
        if name == PROFILES:
            return self._profile(content, labels, context)
        assert name == PRUNE, name
        return self._prune(content, labels, context)

    def _embeddings(self, context: ClientContext) -> Tensor:
        data, encoder = context.data, open_encoder(self.settings.encoder, context.data.store)
        if encoder.uses_model:
            return unit_rows(context.forward(data.known_view)[0].cpu())
        return unit_rows(embed(encoder, data.store, data.rows(data.known_view), data.scaling))

    def _sums(self, labels: Tensor, context: ClientContext) -> RecordDict:
        classes = len(context.data.store.class_names)
        sums = prototype_sums(self._embeddings(context), labels, classes)
        sums[torch.bincount(labels, minlength=classes) < self.settings.min_count] = 0.0
        return RecordDict({CLASS_SUMS: array_record({"sums": sums.float().numpy()})})

    def _class_vectors(self, content: RecordDict, context: ClientContext) -> Tensor:
        if PROTOTYPES in content:
            return torch.from_numpy(arrays_of(content, PROTOTYPES)["vectors"])
        encoder: Encoder = open_encoder(self.settings.encoder, context.data.store)
        text = encoder.class_vectors(tuple(context.data.store.class_names))
        assert text is not None  # the server sends vectors to every other encoder
        return unit_rows(text)

    def _profile(self, content: RecordDict, labels: Tensor, context: ClientContext) -> RecordDict:
        vectors = self._class_vectors(content, context)
        embeddings = self._embeddings(context)
        if open_encoder(self.settings.encoder, context.data.store).uses_model:
            rows_not_dead(embeddings)
        scores = project(embeddings, labels, vectors)
        context.state["scores"] = array_record({"scores": scores.numpy()})
        moments = class_moments(scores, labels, len(vectors))
        normals = partial(context.secrets.normals, context, Stream.METHOD)
        moments = suppress(add_noise(moments, self.settings.sigma, normals), self.settings.min_count)
        return RecordDict(
            {
                PROFILE: array_record(
                    {
                        "counts": np.round(moments.counts).astype(np.int32),
                        "mean": moments.mean.astype(np.float32),
                        "variance": moments.variance.astype(np.float32),
                    }
                )
            }
        )

    def _prune(self, content: RecordDict, labels: Tensor, context: ClientContext) -> RecordDict:
        scores = torch.from_numpy(arrays_of(context.state, "scores")["scores"])
        consensus = {name: value.astype(np.float64) for name, value in arrays_of(content, CONSENSUS).items()}
        pruning: dict[str, Any] = {name: getattr(self.settings, name) for name in _PRUNE_SETTINGS}
        found = prune(scores, labels, Profile(**consensus), generator=context.generator(), **pruning)
        context.state["coreset"] = coreset_record(found.kept, context)
        del context.state["scores"]
        parts = {"kept": found.kept, "anomalous": found.anomalous, "redundant": found.redundant}
        classes = len(consensus["counts"])
        counts = {k: torch.bincount(labels[v], minlength=classes).int().numpy() for k, v in parts.items()}
        return RecordDict({KEPT: array_record(counts)})
