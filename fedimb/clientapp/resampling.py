"""A client's rows after its resampler: what it trains on and, with prior.view=train, what its class counts are of.

The made rows live in this process until the message is answered. They are the same in every round and for every
message, as if the rows had been resampled once before the run.
"""

import numpy as np
import torch
from torch import Tensor

from fedimb.clientapp.context import ClientContext
from fedimb.config.parts import resampler_of, resamples
from fedimb.data.views import ClientData
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, seed_int

RESAMPLED = "resampled"
"""The view of a query for class counts that counts rows after the resampler; it has no rows in the store."""


def resampled(context: ClientContext) -> tuple[Tensor, Tensor]:
    """The rows x [m, d] float32 and classes y [m] int64 that the client trains on, on its device.

    Raises:
        ConfigError: the rule cannot work on the client's data.
    """
    if context.resampled is None:
        context.resampled = resampled_rows(context.config, context.data, context.client)
    return context.resampled


def resampled_rows(config: RunConfig, data: ClientData, client: int) -> tuple[Tensor, Tensor]:
    """A client's training rows after the run's resampler, as `resampled`; the same wherever the client trains.

    Raises:
        ConfigError: the rule cannot work on the client's data.
    """
    x, y = data.tensors("train")
    columns = data.store.columns
    rule = resampler_of(config, None if columns is None else columns.one_hot, tuple(x.shape[1:]))
    seed = seed_int(config.seed, Stream.RESAMPLE, 0, client) % 2**32
    made_x, made_y = rule.resample(x.cpu().numpy(), y.cpu().numpy(), seed)
    return (
        torch.from_numpy(np.array(made_x, dtype=np.float32)).to(x.device),
        torch.from_numpy(np.array(made_y, dtype=np.int64)).to(y.device),
    )


def counts_of_view(context: ClientContext, view: str) -> np.ndarray:
    """Class counts [C] int64 of a view of `fedimb.data.views`, or of the rows after the resampler (`RESAMPLED`)."""
    if view == RESAMPLED:
        labels = resampled(context)[1].cpu().numpy()
        return np.bincount(labels, minlength=context.data.store.n_classes).astype(np.int64)
    return context.data.counts(view)


def trained_counts(context: ClientContext) -> np.ndarray:
    """Class counts [C] int64 of the rows the client trains on, or of the real ones if ``prior.view`` says so."""
    return counts_of_view(context, _trained_view(context))


def local_prior(context: ClientContext) -> np.ndarray:
    """The counts [C] float64 of the client's own prior: `trained_counts`, where cells are unknown as if all were known
    (`fedimb.data.views.ClientData.full_counts`)."""
    view = _trained_view(context)
    if view == RESAMPLED:  # no resampler takes unknown cells
        return counts_of_view(context, view).astype(np.float64)
    return context.data.full_counts(view)


def _trained_view(context: ClientContext) -> str:
    changed = resamples(context.config) and context.config.prior.view == "train"
    return RESAMPLED if changed else "trained_on"
