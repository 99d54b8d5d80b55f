"""A head from class statistics: clients add up their rows once, the server solves a small linear system.

No gradient, no learning rate, no round after the first; the result does not depend on how rows are dealt to clients.
The heads and their papers are in `fedimb.discriminant.heads`. Three messages at most: counts (and how many clients hold
a class), sums, and, to choose the shrinkage, how well each row is predicted without itself. With ``epsilon`` there is
one, whose noise covers all that is sent.
"""

import json
import logging
import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.contracts import oneround as names
from fedimb.contracts.oneround import OneRoundSettings
from fedimb.discriminant import heads
from fedimb.discriminant.estimates import freedom_of, means_of, oas, within_of
from fedimb.discriminant.fisher import fisher_mix, mix_steps
from fedimb.discriminant.heads import Scores
from fedimb.discriminant.leave_one_out import GRID, TEMPERATURES, Choice, chosen
from fedimb.discriminant.statistics import Floats, Integers, Statistics, Units, opened, squared_length, symmetric
from fedimb.errors import ConfigError, RunFailed
from fedimb.models.base import parameters_of
from fedimb.privacy.gaussian import sigma_of
from fedimb.privacy.secure_sum import from_fixed, unmasked_sum
from fedimb.records import Arrays, array_record, arrays_of, to_numpy
from fedimb.registry import register
from fedimb.seeds import Stream, torch_generator
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Replace, Reply, ServerWork, Step, masked_request
from fedimb.strategies.base import Method, Program

log = logging.getLogger("fedimb")

NEVER = -1e30
"""Bias, in the model file, of a class that is never predicted: finite, since weights that are not are refused."""
MATRIX_ROWS = 20
"""Rows of all clients that a class needs for a matrix of its own: with two, both rows follow from it."""
WIDEST = 3072
"""Features up to which a matrix over pairs of them is added up: a colour image of 32 x 32."""
_KEPT = "weights/"
_FALL_BACK = 0.5


@dataclass
class _Found:
    """What was learnt of the federation, until the head is made.

    Attributes:
        statistics: of all classes; those left out have no rows.
        left_out: why, by class id.
        rows, clients: rows used, and clients that replied.
        per_client: (counts [K, C], sums [K, C, d]), where the head reads them.
        noise: standard deviation of the noise on each sum, in the statistics' units.
        choice: what leave-one-out chose.
    """

    statistics: Statistics
    left_out: dict[int, str]
    rows: int
    clients: int
    per_client: tuple[Floats, Floats] | None = None
    noise: float = 0.0
    choice: Choice | None = None


@register(
    "strategy",
    "oneround",
    adjusts_logits=True,
    builds_head=True,
    trains_no_client="use=alone",
    unknown_labels=("coarse",),
    when={
        ("use", "init"): {"adjusts_logits": False, "trains_no_client": "", "trains_nothing": ""},
        ("use", "post"): {"trains_no_client": "", "trains_nothing": ""},
        ("prior", "data"): {"adjusts_logits": False},
    },
    trains_nothing="use=alone",
    read_with={
        "metric": ("head", ("ncm",)),
        "correct_means": ("head", ("lda", "ncm", "qda")),
        "shrinkage": ("head", ("lda", "qda", "fishermix")),
        "penalty": ("head", ("ridge", "fed3r")),
        "gamma": ("head", ("fedcof",)),
        "draws": ("head", ("fishermix",)),
    },
    unread_with={"delta": ("epsilon", (None,)), "clip": ("epsilon", (None,))},
)
class OneRound(Method):
    """A head from class statistics, which clients send once.

    Args:
        inner: the aggregator or method that trains before (post) or after (init); unused with use=alone.
        settings: a `OneRoundSettings`; or give its fields by name: ``OneRound(FedAvg(), head="ncm")``.

    Raises:
        ConfigError: a value out of range, or settings that contradict each other.
    """

    def __init__(self, inner: Strategy, settings: OneRoundSettings | None = None, **fields: object) -> None:
        super().__init__(inner)
        self.settings = OneRoundSettings.of(settings, fields)
        if self.settings.use == "alone" and isinstance(inner, Method):
            raise ConfigError(
                "strategy.oneround.use=alone trains no client, so another method has no effect: remove it"
            )

    def check_server(self, server: Server) -> None:
        """Refuse a model whose head cannot be set, features that are too many, and a secure sum over one client."""
        if server.clips():
            raise ConfigError(
                "strategy=oneround: privacy.clip bounds what an update shows, and sums of features are beside it, "
                "which its noise and epsilon do not cover: set privacy.clip=null privacy.noise=0, and "
                "strategy.oneround.epsilon for noise on the sums"
            )
        settings, model = self.settings, server.model()
        own = parameters_of(model)
        _check_head(settings, type(model.head).__name__, own)
        body = sorted(own.keys() - {"head.weight", "head.bias", "head.precision"})
        if body and settings.use != "post":
            remedy = "model=logistic (the inputs themselves) or model=encoded (an encoder)"
            raise ConfigError(
                f"strategy.oneround.use={settings.use}: this model's features ({body[0]}) are random until it is "
                f"trained; use {remedy}, or use=post"
            )
        width = model.head.in_features
        if width > WIDEST and set(settings.fields) - {"squares", "by_class"}:
            raise ConfigError(
                f"strategy.oneround.head={settings.head} adds up products of all pairs of {width} features, "
                f"{width * (width + 1) // 2 * 8 / 2**20:,.0f} MB from each client, more than the {WIDEST} features it "
                "is for; use model=encoded with an encoder, smaller images, or head=ncm"
            )
        if settings.prevalence is not None and len(settings.prevalence) != len(server.class_names()):
            raise ConfigError(
                f"strategy.oneround.prevalence has {len(settings.prevalence)} shares for {len(server.class_names())} "
                "classes; give one for each"
            )
        if settings.secure and len(server.holders()) < 2:
            raise ConfigError(
                "strategy.oneround.secure=true hides nothing with one client: its sum is that client's; set "
                "strategy.oneround.secure=false"
            )
        if settings.epsilon is not None and server.deployed():
            raise ConfigError(
                "strategy.oneround.epsilon is for simulations: a site's privacy budget does not count it; set "
                "epsilon=null"
            )

    def program(self, run: RunContext) -> Program:
        """Train if ``use`` says so, ask, set the head; or set it and train."""
        if run.server is None:
            raise ConfigError(
                "strategy=oneround builds a model at the server: run it with fedimb, not in a plain ServerApp"
            )
        if self.settings.use == "post":
            yield from self.inner_program(run)
        found = yield from (self._noised(run) if self.settings.epsilon is not None else self._asked(run))
        server = run.server
        made = yield ServerWork("oneround_head", lambda: self._weights(run, server, found))
        yield Replace(arrays_of(made, "weights"))
        if self.settings.use == "init":
            yield from self.inner_program(run)

    def _asked(self, run: RunContext) -> Generator[Step, Any, _Found]:
        """Counts, sums and, if wanted, held-out scores."""
        replies = yield from self._query(run, names.COUNTS_OF, names.MASKED_COUNTS_OF, RecordDict())
        first = self._total(replies)
        kept, left_out = self._kept(run, first["counts"], first["holders"])
        rows = int(first["counts"].sum())
        weights = None
        if "weighted" in self.settings.fields:
            weights = np.zeros(run.n_classes)
            weights[kept] = first["counts"][kept].sum() / (len(kept) * first["counts"][kept])
        heaviest = 1.0 if weights is None else float(weights.max(initial=1.0))
        units = Units.of(squared_length(first["scale"], rows), rows, heaviest)
        several = [c for c in kept if first["counts"][c] >= MATRIX_ROWS] if "scatter" in self.settings.fields else []
        request = {"exponent": units.exponent, "bits": units.bits, "kept": kept, "matrices": several}
        content = RecordDict({names.REQUEST: ConfigRecord(request)})  # type: ignore[arg-type]
        if weights is not None:
            content[names.WEIGHTS] = array_record({"weights": weights})
        replies = yield from self._query(run, names.SUMS_OF, names.MASKED_SUMS_OF, content)
        total = self._total(replies)
        found = _Found(opened(total, units, weights), left_out, int(total["counts"].sum()), len(replies))
        for c in kept:
            if total["counts"][c] == 0:  # the clients that hold it did not reply a second time
                left_out[c] = "its clients did not reply"
        if self.settings.head == "fedcof":
            parts = [opened(_arrays(reply), units) for reply in replies]
            found.per_client = np.stack([p.counts for p in parts]), np.stack([p.sums for p in parts])
        if self.settings.resolved_shrinkage == "loo":
            found.choice = yield from self._choice(run, found.statistics)
        return found

    def _choice(self, run: RunContext, statistics: Statistics) -> Generator[Step, Any, Choice | None]:
        """The shrinkage by leave-one-out; None where no row can be left out."""
        held, ids = statistics.in_order()
        within = within_of(held)
        if within.freedom < 2 or len(ids) < 2:
            return None
        fitted = {
            "classes": ids,
            "counts": held.counts,
            "means": means_of(held),
            "values": within.values,
            "basis": within.basis,
            "freedom": np.array([within.freedom]),
            "log_prior": self._log_prior(run, held, ids),
        }
        content = RecordDict({names.FITTED: array_record(fitted)})
        replies = yield from self._query(run, names.HELD_OUT_OF, names.MASKED_HELD_OUT_OF, content)
        total = self._total(replies)
        temperatures = TEMPERATURES if self.settings.use == "init" else TEMPERATURES[:1]
        return chosen(total["rows"], total["hits"], total["losses"], GRID, temperatures)

    def _noised(self, run: RunContext) -> Generator[Step, Any, _Found]:
        """The one message of a run with noise: counts, sums and products of clipped rows."""
        settings, server = self.settings, run.server
        assert settings.epsilon is not None
        assert server is not None
        clients, pairs = self._among(run)
        model = "global" if settings.use == "post" else None
        content = masked_request("trained_on", clients, pairs)
        replies = yield Query(names.NOISY_SUMS_OF, content, model=model, everyone=True)
        sent = np.stack([arrays_of(reply.content, names.NOISY)["values"] for reply in replies])
        values, n = from_fixed(unmasked_sum(sent)), run.n_classes
        width = server.model().head.in_features
        counts, sums, rest = values[:n], values[n : n * (width + 1)].reshape(n, width), values[n * (width + 1) :]
        few = {c: f"{counts[c]:.1f} rows with noise" for c in range(n) if counts[c] < max(settings.min_count, 1)}
        noise = sigma_of(settings.epsilon, settings.delta, math.sqrt(3)) * settings.clip
        squares = float(rest[0]) * settings.clip**2 if "squares" in settings.fields else None
        second = symmetric(rest, width) * settings.clip**2 if squares is None else None
        statistics = Statistics(np.where(counts >= 1, counts, 0.0), sums * settings.clip, squares, second)
        return _Found(statistics, few, round(float(counts.sum())), len(replies), noise=noise)

    def _query(
        self, run: RunContext, clear: str, masked: str, content: RecordDict
    ) -> Generator[Step, Any, list[Reply]]:
        """Ask all clients, openly or masked as the settings say; with the model only if it was trained."""
        model = "global" if self.settings.use == "post" else None
        if not self.settings.secure:
            replies: list[Reply] = yield Query(clear, content, model=model)
            return replies
        clients, pairs = self._among(run)
        content = RecordDict({**content, **masked_request("trained_on", clients, pairs)})
        replies = yield Query(masked, content, model=model, everyone=True)
        return replies

    def _among(self, run: RunContext) -> tuple[list[int], Mapping[int, str]]:
        """The clients whose masks cancel, and their public keys."""
        assert run.server is not None
        aside = run.aside()
        return [client for client in run.server.holders() if client not in aside], run.server.pairs()

    def _total(self, replies: Sequence[Reply]) -> dict[str, Integers]:
        """The sum over clients by array name, opened."""
        if not replies:
            raise RunFailed("strategy=oneround: no client replied")
        sent = [_arrays(reply) for reply in replies]
        if self.settings.secure:
            return {
                name: unmasked_sum(np.stack([one[name].ravel() for one in sent])).reshape(value.shape)
                for name, value in sent[0].items()
            }
        return {name: np.sum([one[name] for one in sent], axis=0, dtype=np.int64) for name in sent[0]}

    def _kept(self, run: RunContext, counts: Integers, holders: Integers) -> tuple[list[int], dict[int, str]]:
        """The classes with enough rows and holders, and why others are left out."""
        settings = self.settings
        assert run.server is not None
        fewest = settings.min_holders or (2 if run.server.deployed() else 1)
        left_out = {}
        for c in range(run.n_classes):
            if counts[c] < settings.min_count:
                left_out[c] = "no rows" if not counts[c] else f"fewer than min_count={settings.min_count} rows"
            elif holders[c] < fewest:
                left_out[c] = f"fewer than min_holders={fewest} clients hold it"
        kept = [c for c in range(run.n_classes) if c not in left_out]
        if not kept:
            raise RunFailed(
                f"strategy=oneround: no class has min_count={settings.min_count} rows at min_holders={fewest} clients; "
                "lower one of them"
            )
        return kept, left_out

    def _log_prior(self, run: RunContext, statistics: Statistics, ids: Integers) -> Floats:
        """log of the class prior of the classes ``ids``; zeros: uniform.

        That of the data is of the rows at the clients that annotate a class: elsewhere its rows are not counted.
        """
        match self.settings.resolved_prior:
            case "data":
                assert run.server is not None
                counted = np.zeros(run.n_classes)
                counted[ids] = statistics.counts
                counts = run.server.full_counts(counted)[ids]
                return np.log(counts / counts.sum())
            case "deployment":
                assert self.settings.prevalence is not None
                share = np.array(self.settings.prevalence)
                return np.log(share / share.sum())[ids]
        return np.zeros(len(ids))

    def _weights(self, run: RunContext, server: Server, found: _Found) -> RecordDict:
        """The model's weights with the head, and what was found as an artifact."""
        scores, facts = self._head(run, found)
        named = {str(run.class_names[c]): why for c, why in sorted(found.left_out.items())}
        if named:
            shown = "; ".join(f"{name}: {why}" for name, why in named.items())
            log.warning("oneround: %d of %d classes are never predicted (%s)", len(named), run.n_classes, shown)
        temperature = 1.0
        if self.settings.use == "init" and found.choice is not None:
            temperature = found.choice.temperature
        facts |= {"temperature": temperature, "left_out": named, "rows": found.rows, "clients": found.clients}
        run.artifact("oneround.json", (json.dumps(facts, indent=1) + "\n").encode())
        start = self._trained(run, server)
        return RecordDict({"weights": array_record(start | _as_weights(scores, start, temperature))})

    def _head(self, run: RunContext, found: _Found) -> tuple[Scores, dict[str, Any]]:
        settings = self.settings
        everything, _ = found.statistics.in_order()
        known = found.statistics.counts > 0
        known[list(found.left_out)] = False
        counts = np.where(known, found.statistics.counts, 0.0)
        if not known.any():
            raise RunFailed("strategy=oneround: no class is left; lower min_count, or add less noise")
        held, ids = Statistics(**{**vars(found.statistics), "counts": counts}).in_order()
        facts: dict[str, Any] = {
            "head": settings.head,
            "use": settings.use,
            "prior": settings.resolved_prior,
            "features": held.sums.shape[1],
            "classes": {str(run.class_names[c]): float(counts[c]) for c in sorted(ids.tolist())},
        }
        single = [str(run.class_names[c]) for c in sorted(ids.tolist()) if counts[c] == 1]
        if single:
            log.warning("oneround: one row of %s (n_c = 1): its mean is that row", ", ".join(single))
            facts["single_rows"] = single
        if len(ids) == 1:
            log.warning("oneround: one class has rows (%s): it is always predicted", run.class_names[int(ids[0])])
            return Scores(np.zeros_like(held.sums), np.zeros(1)).spread(ids, run.n_classes), facts
        # with noise, B holds the rows of all classes, so their means are subtracted from it
        pooled = everything if settings.epsilon is not None else held
        scores = self._scores(run, found, held, pooled, ids, facts)
        return scores.spread(ids, run.n_classes), facts

    def _scores(
        self,
        run: RunContext,
        found: _Found,
        held: Statistics,
        pooled: Statistics,
        ids: Integers,
        facts: dict[str, Any],
    ) -> Scores:
        """The head over the classes ``ids``; notes how in ``facts``."""
        settings, log_prior = self.settings, self._log_prior(run, held, ids)
        if settings.head == "ncm":
            return heads.ncm(held, settings.correct_means, settings.metric, found.noise)
        if settings.head == "nb":
            return heads.naive_bayes(held, log_prior)
        if settings.head == "fedcof":
            assert found.per_client is not None
            counts, sums = found.per_client
            return heads.fedcof(counts[:, ids], sums[:, ids], settings.gamma)
        if settings.head == "fedcgs":
            return heads.fedcgs(held, log_prior)
        if settings.head == "fed3r":
            return heads.fed3r(held, settings.penalty)
        if settings.head == "ridge":
            balanced = settings.resolved_prior == "uniform"
            matrix = held.weighted if balanced else held.second
            assert matrix is not None
            facts["penalty"] = penalty = settings.penalty * float(np.trace(matrix)) / len(matrix)
            return heads.ridge(held, penalty, balanced)
        within = within_of(pooled)
        if freedom_of(held) == 0:
            log.warning("oneround: every class has one row, so there is no covariance: the nearest mean is used")
        shrinkage = settings.resolved_shrinkage
        if shrinkage == "oas":
            shrinkage = oas(within)
        elif shrinkage == "loo":
            if found.choice is None:
                log.warning("oneround: too few rows to leave one out; shrinkage is %g", _FALL_BACK)
            else:
                facts["held_out"] = {"log_loss": found.choice.log_loss, "macro_recall": found.choice.macro_recall}
            shrinkage = _FALL_BACK if found.choice is None else found.choice.shrinkage
        facts["shrinkage"] = shrinkage = float(shrinkage)
        facts["freedom"], facts["effective_width"] = within.freedom, within.effective_width(shrinkage)
        if settings.head == "qda":
            return heads.qda(held, shrinkage, log_prior, settings.correct_means, within=within)
        if settings.head == "fishermix":
            generator = torch_generator(run.seed, Stream.METHOD, 4)
            assert run.server is not None
            run.server.count_steps(mix_steps(len(ids), settings.draws))
            return fisher_mix(held, log_prior, generator, shrinkage, settings.draws)
        return heads.lda(held, shrinkage, log_prior, settings.correct_means, within, found.noise)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Flower's hook: remembers the weights whose head is replaced after training."""
        merged, metrics = super().aggregate_train(server_round, replies)
        if self.settings.use == "post" and merged is not None:
            self.memory |= {_KEPT + name: value for name, value in to_numpy(merged).items()}
        return merged, metrics

    def _trained(self, run: RunContext, server: Server) -> Arrays:
        """The global model's parameters as last aggregated, or its initial ones if no round had a reply."""
        start = parameters_of(server.model(run.initial or None))
        return {name: np.asarray(self.memory.get(_KEPT + name, value), value.dtype) for name, value in start.items()}


def _arrays(reply: Reply) -> dict[str, Any]:
    """All arrays of a reply by name."""
    found: dict[str, Any] = {}
    for key in reply.content.array_records:
        found |= arrays_of(reply.content, key)
    return found


def _check_head(settings: OneRoundSettings, head: str, parameters: Mapping[str, np.ndarray]) -> None:
    """Refuse a model whose last layer cannot hold the head."""
    wanted = {"qda": "quadratic", "nb": "diagonal"}.get(settings.head, "linear")
    has = {"QuadraticHead": "quadratic", "DiagonalHead": "diagonal", "Linear": "linear"}.get(head, "another")
    if wanted != has:
        raise ConfigError(
            f"strategy.oneround.head={settings.head} gives a {wanted} head, and this model's is {head}; set "
            f"model.head={wanted}"
        )
    if missing := [name for name in ("head.weight", "head.bias") if name not in parameters]:
        raise ConfigError(f"strategy.oneround: the model has no trainable {missing[0]} to set; use another model")


def _as_weights(scores: Scores, like: Arrays, temperature: float) -> Arrays:
    """The head's parameters in the model's precision.

    What all classes have in common changes neither a prediction nor a probability and is taken off, so that float32
    keeps the digits in which classes differ.
    """
    chosen_from = np.isfinite(scores.bias)
    weight, bias = scores.weight.copy(), scores.bias.copy()
    weight[chosen_from] -= scores.weight[chosen_from].mean(axis=0)
    bias[chosen_from] -= scores.bias[chosen_from].mean()
    bias[~chosen_from] = NEVER
    made = {"head.weight": weight / temperature, "head.bias": np.where(chosen_from, bias / temperature, NEVER)}
    if scores.precision is not None:
        made["head.precision"] = scores.precision / temperature
    for name, value in made.items():
        with np.errstate(over="ignore"):
            made[name] = value.astype(like[name].dtype)
        if not np.isfinite(made[name]).all():
            raise RunFailed(f"strategy=oneround: {name} is not finite: the features cannot be told apart; scale them")
    return made
