"""SCOPE: choose once, before training, which rows each client trains on, given statistics of the whole federation.

Semantic Coreset using Orthogonal Projection Embeddings (Hossen, Tallent, Guo, Jannesari, arXiv 2603.12976, 2026). A
frozen encoder describes every row relative to its class's vector t_c: RS = <v, t_c> (typical), DS = |v - RS t_c|
(novel), Sneg = max_{j != c} <v, t_j> (confusable). Each client reports count, mean and variance of the three per class;
the server pools them exactly (law of total variance) and adds a rarity weight W_c ~ (1 / (F_c + eps))^gamma; each
client then drops the p_l of its rows with the largest AS = z_sneg - z_rs, and, in classes it has plenty of (gate beta
on T_c = f_c / W_c), the p_f with the largest R = z_rs - z_sneg - z_ds, where z-scores use global class statistics.
Training follows with any aggregator, loss and calibration.

Known from secondary notes: the scores, the pooling, both stages, p_l = .1, beta = .5. Inferred: the relative gate. Not
from the paper: gamma = 1 and eps = 1e-6; class vectors as means of all clients' embeddings if the encoder does not read
text; the federated warm-up that trains `global_features` first; suppression of small cells, noise, and guards;
recounting the prior over the coreset. Details and the evidence for each are in `fedimb.selection.scope`.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb import registry
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
from fedimb.encoders.embed import GIVEN
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.selection.moments import Moments, pool
from fedimb.selection.profile import Profile, global_profile
from fedimb.selection.prototypes import shared_prototypes
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.panels import kept_panel
from fedimb.serverapp.steps import Query, Reply, Rounds
from fedimb.strategies.base import Method, Program

_REPORTED_SETTINGS = ("p_f", "p_l", "beta", "gate", "variant", "choice", "min_count", "sigma")
"""The settings that scope.json repeats next to what was kept."""


@register("strategy", "scope", prior_view="coreset", reveals_counts=True, reads_labels=True, chooses_rows=True)
class Scope(Method):
    """SCOPE: choose once, before training, which rows each client trains on, given statistics of the whole federation.

    Args:
        inner: the aggregator or method trained on the coresets.
        settings: a `ScopeSettings`; or give its fields by name: ``Scope(FedAvg(), warmup=3)``.

    Raises:
        ConfigError: a value out of range, or a warm-up that does not fit the encoder.
    """

    def __init__(self, inner: Strategy, settings: ScopeSettings | None = None, **fields: object) -> None:
        super().__init__(inner)
        self.settings = ScopeSettings.of(settings, fields)
        encoder, args = self.settings.part("encoder")
        kind: Any = registry.get("encoder", encoder).factory
        self._uses_model, self._reads_text = bool(kind.uses_model), kind.class_vectors is not Encoder.class_vectors
        registry.check_args("encoder", encoder, args, given=GIVEN)
        warmup = self.settings.warmup
        if self._uses_model != (warmup > 0):
            raise ConfigError(
                "strategy.scope: the federation's own features are useful only after some rounds: set "
                "e.g. strategy.scope.warmup=5, or use another encoder"
                if self._uses_model
                else f"strategy.scope.warmup={warmup} is only for encoder global_features: set it to 0"
            )

    def check(self, rounds: int) -> None:
        """Refuse a warm-up that leaves no rounds for training."""
        if self.settings.warmup >= rounds:
            raise ConfigError(
                f"strategy.scope.warmup={self.settings.warmup} uses up all rounds={rounds}: lower it, or "
                "run more rounds"
            )

    def inner_rounds(self, rounds: int) -> int:
        """The rounds after the warm-up."""
        return rounds - self.settings.warmup

    def shortest(self) -> int:
        """The warm-up and the shortest inner run."""
        return self.settings.warmup + super().shortest()

    def program(self, run: RunContext) -> Program:
        """Warm up, agree on class vectors and on a profile, prune, then train."""
        self.check(run.rounds)
        model = "global" if self._uses_model else None
        if self.settings.warmup:
            yield Rounds(self.settings.warmup)
            run.next_part()
        content = RecordDict()
        if not self._reads_text:
            replies = yield Query(SUMS, model=model)
            sums = np.stack([arrays_of(reply.content, CLASS_SUMS)["sums"] for reply in replies])
            vectors = shared_prototypes(torch.from_numpy(sums))
            content[PROTOTYPES] = array_record({"vectors": vectors.numpy()})
        replies = yield Query(PROFILES, content, model=model)
        profile = global_profile(pool([_moments(reply) for reply in replies]), self.settings.gamma, self.settings.eps)
        kept = yield Query(PRUNE, RecordDict({CONSENSUS: _consensus(profile)}))
        self._note(run, kept)
        run.rounds -= self.settings.warmup
        yield from self.inner_program(run)
        run.rounds += self.settings.warmup  # for the next labelling cycle, if there is one

    def _note(self, run: RunContext, replies: list[Reply]) -> None:
        """Recompute the prior, and report what every client kept."""
        found = {reply.client: arrays_of(reply.content, KEPT) for reply in replies}
        kept = np.stack([found[client]["kept"] for client in sorted(found)])
        held = kept + sum(np.stack([found[c][part] for c in sorted(found)]) for part in ("anomalous", "redundant"))
        if run.method_sets_prior:
            run.counts = run.prior_from_counts(kept)
        self.memory["kept"], self.memory["held"] = float(kept.sum()), float(held.sum())
        table = {
            "settings": {name: getattr(self.settings, name) for name in _REPORTED_SETTINGS},
            "kept_fraction": float(kept.sum() / held.sum()),
            "by_client": {
                str(c): float(k.sum() / h.sum()) if h.any() else None
                for c, k, h in zip(sorted(found), kept, held, strict=True)
            },
            "by_class": [None if not h else float(k / h) for k, h in zip(kept.sum(0), held.sum(0), strict=True)],
            "kept": kept.tolist(),
            "held": held.tolist(),
            "anomalous": np.stack([found[c]["anomalous"] for c in sorted(found)]).tolist(),
        }
        run.artifact("scope.json", (json.dumps(table, indent=1) + "\n").encode())
        panel = kept_panel("SCOPE: rows kept", kept.sum(0), held.sum(0), run.class_names)
        run.artifact("panels/scope.json", panel)

    def on_train_replies(self, server_round: int, replies: Sequence[Reply]) -> dict[str, float]:
        """The share of rows trained on, with every round after the choice."""
        if "held" not in self.memory:
            return {}
        return {"data/kept_fraction": float(self.memory["kept"] / self.memory["held"])}


def _moments(reply: Reply) -> Moments:
    found = {name: value.astype(np.float64) for name, value in arrays_of(reply.content, PROFILE).items()}
    return Moments(found["counts"], found["mean"], found["variance"], np.zeros(0, np.int64))


def _consensus(profile: Profile) -> Any:
    arrays = {"counts": profile.counts, "mean": profile.mean, "std": profile.std, "rarity": profile.rarity}
    return array_record({name: value.astype(np.float32) for name, value in arrays.items()})
