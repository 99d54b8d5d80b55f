"""Feature selection at a site: count rows in bins, and train on the columns that stay."""

import numpy as np
import torch
from flwr.app import RecordDict
from numpy.typing import NDArray
from torch import Tensor

from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client, masked
from fedimb.contracts.feature_select import (
    BINS,
    COUNTS,
    COUNTS_OF,
    KEEP,
    KEPT,
    MASKED_COUNTS_OF,
    MASKED_SUMS_OF,
    SCALE,
    SUMS,
    SUMS_OF,
    FeatureSelectSettings,
)
from fedimb.errors import ConfigError, DataError
from fedimb.privacy.secure_sum import to_fixed
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.selection.mutual_information import bin_counts
from fedimb.training.spec import TrainSpec

VIEW = "trained_on"
_MOST = 2.0**40  # of a sum: in units of 2**-20 many clients' sums fit 63 bits


class KeptColumns:
    """An augmentation that sets the columns that were dropped to 0, in every batch.

    Args:
        kept: [F] bool.
    """

    def __init__(self, kept: Tensor) -> None:
        self.kept = kept

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Rows [b, ...] of F values -> the same shape; see `fedimb.training.spec.Augmentation`."""
        return x * self.kept.to(x).view(x.shape[1:])


@register("client", "feature_select")
class FeatureSelectClient(Client):
    """Feature selection at a site.

    Args:
        settings: a `FeatureSelectSettings`; or give its fields by name.
    """

    def __init__(self, settings: FeatureSelectSettings | None = None, **fields: object) -> None:
        self.settings = FeatureSelectSettings.of(settings, fields)

    def check(self, site: Site) -> None:
        """Refuse several labels per row."""
        if site.task != "multiclass":
            raise ConfigError(
                "strategy=feature_select compares columns with one class per row, but these rows have several labels; "
                "use another strategy"
            )

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """Train with the dropped columns at 0, once they are known."""
        if KEPT not in context.state:
            return spec
        kept = torch.from_numpy(arrays_of(context.state, KEPT)["kept"].astype(bool))
        return spec.change(augmentations=(*spec.augmentations, KeptColumns(kept)))

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Counts, masked counts, or the columns that stay."""
        if name == KEEP:
            context.state[KEPT] = array_record(arrays_of(content, KEPT))
            return RecordDict()
        x, y = (part.cpu().numpy() for part in context.data.tensors(VIEW))
        x, classes = x.reshape(len(x), -1), context.data.store.n_classes
        if name in (SUMS_OF, MASKED_SUMS_OF):
            sums = _sums(x.astype(np.float64))
            sent = sums if name == SUMS_OF else masked(sums, content, context)
            return RecordDict({SUMS: array_record({"sums": sent})})
        scale, known = arrays_of(content, SCALE), y < classes  # coarse labels name no class
        found = bin_counts((x[known] - scale["mean"]) / scale["deviation"], y[known], classes, BINS)
        assert name in (COUNTS_OF, MASKED_COUNTS_OF), name
        if name == COUNTS_OF:
            found[np.bincount(y[known], minlength=classes) < self.settings.min_count] = 0
        hidden = found if name == COUNTS_OF else masked(found, content, context)
        return RecordDict({COUNTS: array_record({"counts": hidden})})


def _sums(x: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows, sums and sums of squares of columns [n, F] -> [3, F] in units of 2**-20."""
    sums = np.stack([np.full(x.shape[1], float(len(x))), x.sum(axis=0), (x * x).sum(axis=0)])
    if not (np.abs(sums) < _MOST).all():
        column = int((~(np.abs(sums) < _MOST)).any(axis=0).argmax())
        raise DataError(
            f"strategy=feature_select: the values of column {column} are too large to be added up: scale the columns"
        )
    return to_fixed(sums)
