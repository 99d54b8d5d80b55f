"""The class counts a client sends for the prior: in plain numbers, masked, or masked with its share of the noise."""

import math
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext
from fedimb.clientapp.resampling import counts_of_view
from fedimb.contracts import platform as names
from fedimb.data.views import ClientData
from fedimb.privacy.gaussian import sigma_of
from fedimb.privacy.secrets import clients_in_sum, masked_figures
from fedimb.privacy.secure_sum import to_fixed
from fedimb.records import array_record
from fedimb.seeds import Stream

QUERIES = (names.CLASS_COUNTS, names.MASKED_COUNTS, names.NOISY_COUNTS)


def answer_query(name: str, content: RecordDict, context: ClientContext) -> RecordDict:
    """The client's reply to one of `QUERIES`: ``x.counts`` [C], int64 or (masked) uint64."""
    request: dict[str, Any] = dict(content.config_records["view"])
    view = str(request["name"])
    if name == names.CLASS_COUNTS:
        return _reply(context.claimed(counts_of_view(context, view)).astype(np.int64))
    clients = clients_in_sum(content)
    if name == names.NOISY_COUNTS:
        own = to_fixed(noisy_share(context, view, len(clients)))
    else:
        own = context.claimed(counts_of_view(context, view)).astype(np.int64)

    sent, more = masked_figures(own, context, clients, context.secrets)
    return RecordDict({**_reply(sent), **more})


def _reply(counts: np.ndarray) -> RecordDict:
    return RecordDict({names.COUNTS: array_record({"counts": counts})})


def noisy_share(context: ClientContext, view: str, clients: int) -> np.ndarray:
    """The client's counts [C] float64 plus N(0, sigma^2 / clients): over all clients the noise is N(0, sigma^2).

    One row changes one count by 1 (L2 sensitivity 1); with ``prior.clip`` at most that many rows of a patient count
    (sensitivity ``clip``, reached when all are of one class). The guarantee is about adding or removing one row, or
    one patient, and holds against anyone who sees the sum; the masks keep single shares, with their little noise, from
    the server. In a simulation the noise comes from the run's seed and hides nothing from anyone who knows the seed; a
    hospital draws its own noise (`ClientContext.secrets`).
    """
    prior = context.config.prior
    own = context.data.counts(view) if prior.clip is None else clipped_counts(context.data, view, prior.clip)
    counts = context.claimed(own)
    sigma = sigma_of(prior.epsilon, prior.delta, float(prior.clip or 1)) / math.sqrt(clients)
    noisy: np.ndarray = counts + sigma * context.secrets.normal(context, Stream.PRIOR_NOISE, len(counts))
    return noisy


def clipped_counts(data: ClientData, view: str, clip: int) -> np.ndarray:
    """Class counts [C] int64 of each patient's first ``clip`` rows of the view; an unknown label counts for none."""
    rows, store = data.rows(view), data.store
    patients = np.asarray(store.patients)[rows]
    order = np.argsort(patients, kind="stable")
    _, first, sizes = np.unique(patients[order], return_index=True, return_counts=True)
    rank = np.arange(len(rows)) - np.repeat(first, sizes)
    y = data.primary(view).cpu().numpy()[order[rank < clip]]
    return np.bincount(y[(y >= 0) & (y < store.n_classes)], minlength=store.n_classes).astype(np.int64)
