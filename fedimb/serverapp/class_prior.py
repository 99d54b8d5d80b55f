"""Where the server gets the class counts of the prior, by ``prior.provenance``.

- ``clear_sum``: each client sends its counts; 8 C bytes up.
- ``secure_sum``: each sends its counts under masks that cancel (`fedimb.privacy.secure_sum`); 8 C bytes up.
- ``dp_sum``: as ``secure_sum``, each with its share of Gaussian noise, so that the sum is differentially private.
- ``oracle``: read from the partition; no message. For upper bounds in simulation only.
- ``estimated``: from the norms of the global head's rows (`fedimb.training.prior.prior_of_head`), no message. It
  follows the server's weights: uniform before the first round, then estimated before and after each round
  (`fedimb.serverapp.loop`), so clients and calibrations use the estimate of the model they get.
- ``local`` (the client's own counts) and ``none`` need nothing here.
"""

import logging
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import RecordDict

from fedimb import registry
from fedimb.config.parts import build_model, contracts_of, resamples, resolved_weight
from fedimb.contracts import platform as names
from fedimb.data.federation import Federation
from fedimb.data.virtual_federation import VirtualFederation
from fedimb.engine.admission import check_total
from fedimb.engine.record_checks import TIMES_NOISE
from fedimb.errors import ConfigError, RunFailed
from fedimb.models.base import Classifier
from fedimb.models.heads import CosineHead
from fedimb.privacy.gaussian import sigma_of
from fedimb.privacy.secure_sum import from_fixed
from fedimb.records import Arrays, arrays_of
from fedimb.schema import RunConfig
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.influence import capped, capped_counts
from fedimb.serverapp.masked_sum import masked_sum
from fedimb.serverapp.steps import Query, Step, counts_by_client
from fedimb.training.prior import prior_of_head

if TYPE_CHECKING:
    pass

log = logging.getLogger("fedimb")

_FLOOR = 1.0


def check_prior(config: RunConfig, federation: Federation) -> None:
    """Refuse a provenance that cannot work with these data or this model, before anything runs.

    Raises:
        ConfigError: the reason, and what to set instead.
    """
    prior = config.prior
    open_counts = [name for name in config.strategy if registry.flags("strategy", name).get("reveals_counts")]
    if open_counts and prior.provenance in ("secure_sum", "dp_sum"):
        raise ConfigError(
            f"prior.provenance={prior.provenance} hides the class counts of every client, but strategy "
            f"'{open_counts[0]}' sends them in the clear; set prior.provenance=clear_sum"
        )
    if prior.provenance == "secure_sum" and len(_holders(federation)) < 2:
        raise ConfigError(
            "prior.provenance=secure_sum hides nothing with one client: its sum is that client's counts; "
            "set prior.provenance=dp_sum (or clear_sum)"
        )
    if prior.provenance == "dp_sum" and prior.clip is not None and not federation.store.names_patients:
        raise ConfigError(
            f"prior.clip={prior.clip} protects patients, but the source has no patient ids; set prior.clip=null "
            "(each row is protected)"
        )
    if prior.provenance == "estimated":
        head_counts(build_model(config, federation.n_classes, federation.input_shape), 1)


def _holders(federation: Federation) -> list[int]:
    return [client for client, rows in enumerate(federation.train) if len(rows)]


def gather_prior(config: RunConfig, federation: Federation, context: RunContext) -> Generator[Step, object, None]:
    """Set ``context.counts`` [C] float64 as configured (and ``context.estimate``, if it changes with the model).

    Clients count only what their labels say. Where rows with unknown labels are trained on, a class's count is
    therefore divided by the share of all rows that is at clients which annotate it: those are the rows that the model
    learns it from. Where such rows are left out, the counts are those of the rows trained on, as always.
    """
    yield from _gathered(config, federation, context)
    spaces = federation.labels if federation.unknown_labels is not None else None
    if spaces is not None and context.counts is not None and context.estimate is None:
        context.counts = spaces.full_counts(context.counts)


def _gathered(config: RunConfig, federation: Federation, context: RunContext) -> Generator[Step, object, None]:
    holders = [] if federation.virtual else _holders(federation)
    match config.prior.provenance:
        case "clear_sum":
            found, partial = yield from counts_by_client(counted_view(config), federation.regions)
            replies = np.stack(list(found.values()))
            everyone = len(replies) == len(holders) and not partial
            _check_minority(replies.sum(axis=0), federation, complete=everyone)
            rows = federation.train_sizes[list(found)] if resamples(config) else None
            context.counts = prior_from_counts(replies.astype(np.float64), config, rows)
        case "oracle":
            if isinstance(federation, VirtualFederation):  # what they hold is not in the shares of the rows drawn from
                counts = federation.drawn_counts
                _check_minority(counts.sum(axis=0), federation, complete=False)
            else:
                counts = federation.counts[holders]
            context.counts = prior_from_counts(counts.astype(np.float64), config)
        case "secure_sum":
            total, own = yield from _masked_counts(
                names.MASKED_COUNTS, holders, federation, context, counted_view(config)
            )
            many = federation.n_classes if resamples(config) else 1
            check_total(names.MASKED_COUNTS, total, _most(federation, own) * many)
            _check_minority(total, federation, complete=len(own) == len(holders))
            context.counts = total.astype(np.float64)
        case "dp_sum":
            total, own = yield from _masked_counts(names.NOISY_COUNTS, holders, federation, context)
            noisy = from_fixed(total)
            wide = TIMES_NOISE * sigma_of(config.prior.epsilon, config.prior.delta, float(config.prior.clip or 1))
            check_total(names.NOISY_COUNTS, noisy, _most(federation, own) + wide * noisy.size, -wide)
            # A noisy count may be below 0, which a prior cannot be: the class then counts as one row.
            context.counts = np.maximum(noisy, _FLOOR)
        case "estimated":
            model = build_model(config, federation.n_classes, federation.input_shape)
            context.estimate = head_counts(model, federation.n_train_rows)
            context.counts = np.full(federation.n_classes, federation.n_train_rows / federation.n_classes)


def _check_minority(counts: np.ndarray, federation: Federation, complete: bool) -> None:
    """Refuse counts [C] over all clients without a row of a minority class, before the first round.

    A simulation refuses such a minority when it cuts the data; between hospitals only the counts show it.

    Args:
        complete: whether all clients are counted; otherwise it is only logged.

    Raises:
        RunFailed: names the classes.
    """
    if none := [federation.class_names[c] for c in federation.minority if not counts[c]]:
        text = f"no client has a training row of {', '.join(none)}, which is among the minority"
        if complete:
            raise RunFailed(f"{text}: nothing can be learned or said about it; make a plan with another minority")
        log.warning("%s, as far as is known: not all clients were counted", text)


def _most(federation: Federation, holders: list[int]) -> float:
    """The most that class counts over these clients add up to."""
    rows = float(sum(len(federation.train[client]) for client in holders))
    return rows * (federation.n_classes if federation.task == "multilabel" else 1)


def _masked_counts(
    query: str, holders: list[int], federation: Federation, context: RunContext, view: str = "train"
) -> Generator[Step, Any, tuple[np.ndarray, list[int]]]:
    """The sum of the holders' integers [C] int64, and the clients in it."""

    def figures(content: RecordDict) -> np.ndarray:
        return arrays_of(content, names.COUNTS)["counts"]

    return (yield from masked_sum(Query(query), view, holders, federation, context, figures))


def counted_view(config: RunConfig) -> str:
    """The view whose rows clients count: after their resampler, if there is one and ``prior.view`` is train."""
    return "resampled" if resamples(config) and config.prior.view == "train" else "train"


def prior_from_counts(counts: np.ndarray, config: RunConfig, rows: np.ndarray | None = None) -> np.ndarray:
    """Client counts [K, C] -> counts [C]: their sum, or the priors with the aggregator's client weights.

    A client above ``clients.max_weight_share`` of all rows counts with that share. Where clients resample, both of
    these are measured as follows: ``prior.weighting=data`` adds counts up, so a client is cut to the share of what is
    added; ``effective`` weighs each client's prior by the rows that its model is weighted by, cut as there.

    Args:
        rows: [K] real rows of each client, at least 1, if the counts are of rows after a resampler; None: of real rows.
    """
    share = config.clients.max_weight_share
    effective = config.prior.weighting == "effective"
    uniform = effective and resolved_weight(config, contracts_of(config)) == "uniform"
    if effective and not uniform and rows is not None:
        weights = np.array(capped(rows.astype(np.float64).tolist(), share))
        priors = counts / counts.sum(axis=1, keepdims=True)
        weighed: np.ndarray = (weights / weights.sum()) @ priors * counts.sum()
        return weighed
    counts = capped_counts(counts, share)
    if uniform:
        sizes = counts.sum(axis=1, keepdims=True)
        mean: np.ndarray = (counts / sizes).mean(axis=0) * sizes.sum()
        return mean
    total: np.ndarray = counts.sum(axis=0)
    return total


def head_counts(model: Classifier, rows: int) -> Callable[[Arrays], np.ndarray]:
    """A function from the global weights to estimated counts [C] float64 that sum to ``rows``.

    ``rows`` is the federation's size, which the server knows anyway from FedAvg's weights.

    Raises:
        ConfigError: the model's head is not trained or ignores the length of its rows, so norms carry no information.
    """
    head = model.head.weight
    key = next((name for name, p in model.named_parameters() if p is head and p.requires_grad), None)
    if key is None or isinstance(model.head, CosineHead):
        why = "is fixed" if key is None else "ignores them (head: cosine)"
        raise ConfigError(
            f"prior.provenance=estimated reads the row norms of a trained head, and {type(model).__name__}'s {why}; "
            "set prior.provenance=clear_sum"
        )
    name = key
    return lambda weights: prior_of_head(weights[name]) * rows
