"""A client's confusion matrices on its validation rows, for a server that has no test rows."""

from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor

from fedimb import registry
from fedimb.clientapp.context import ClientContext
from fedimb.clientapp.private_weights import own_counts
from fedimb.config.parts import corrects_by_own_counts
from fedimb.contracts import platform as names
from fedimb.data.subgroups import Subgroup, parse_subgroups, subgroups_of
from fedimb.data.views import Rows, known_classes
from fedimb.evaluation.confusion import confusion_of
from fedimb.evaluation.probabilities import probabilities_of
from fedimb.evaluation.subgroups import SCORED as SCORED_ARRAYS
from fedimb.evaluation.subgroups import SHARED, count_subgroups
from fedimb.privacy.secrets import clients_in_sum, masked_figures
from fedimb.records import array_record
from fedimb.schema import calibration_part
from fedimb.training.calibrations.base import Outputs

QUERIES = (names.SCORED, names.MASKED_SCORES)


def answer_query(query: str, content: RecordDict, context: ClientContext) -> RecordDict:
    """The client's reply to one of `QUERIES`: ``x.scores``, one matrix per calibration of the run, int64 or masked.

    With ``data.subgroups`` also ``x.subgroups``. A client whose own part of the model was never trained counts no row:
    predictions of an initial head are no score, and zeros leave a masked sum as it is.
    """
    y, rows = context.data.tensors("validation")[1], context.data.rows("validation")
    if context.untrained:
        y, rows = y[:0], rows[:0]
        logits = dict.fromkeys(context.config.calibration, torch.zeros(0, context.data.store.n_classes))
    else:
        logits = _logits(context)
    if (known := known_classes(y, context.data.store.n_classes)) is not None:
        y, logits = y[known], {name: adjusted[known] for name, adjusted in logits.items()}
        rows = rows[known.cpu().numpy()]
    records = {names.SCORES: {name: confusion_of(y, adjusted) for name, adjusted in logits.items()}}
    if subgroups := parse_subgroups(context.config.data.get("subgroups")):
        records[names.SUBGROUPS] = _by_subgroup(context, subgroups, rows, y, logits)
    if query == names.SCORED:
        return RecordDict({key: array_record(arrays) for key, arrays in records.items()})
    clients = clients_in_sum(content)
    flat = [array for arrays in records.values() for array in arrays.values()]
    plain = np.concatenate([array.ravel() for array in flat])
    sent, more = masked_figures(plain, context, clients, context.secrets)
    parts = iter(np.split(sent, np.cumsum([array.size for array in flat])[:-1]))
    hidden = {
        key: {name: next(parts).reshape(array.shape) for name, array in arrays.items()}
        for key, arrays in records.items()
    }
    return RecordDict({**{key: array_record(arrays) for key, arrays in hidden.items()}, **more})


def _by_subgroup(
    context: ClientContext, subgroups: tuple[Subgroup, ...], rows: Rows, y: Tensor, logits: dict[str, Tensor]
) -> dict[str, np.ndarray]:
    store = context.data.store
    groups = subgroups_of(store, subgroups)
    people = None if store.patients is None else store.patients[rows]
    found: dict[str, np.ndarray] = {}
    for name, adjusted in logits.items():
        shares = probabilities_of(adjusted.cpu(), several=False)
        counted = count_subgroups(shares, y.cpu().numpy(), groups.of_row[:, rows], groups.most, people)
        found |= counted.arrays(SHARED)  # the same for every calibration
        found |= {f"{name}/{what}": array for what, array in counted.arrays(SCORED_ARRAYS).items()}
    return found


def _logits(context: ClientContext) -> dict[str, Tensor]:
    """Calibrated logits [n, C] of the validation rows, by calibration.

    A calibration corrects by the counts in the message or, of a client's own head, by those it was trained on.
    """
    features, logits = context.forward("validation")
    head = context.model.head
    bias = None if head.bias is None else head.bias.detach()
    counts = own_counts(context.state) if corrects_by_own_counts(context.config) else context.counts
    outputs = Outputs(features, logits, head.weight.detach(), bias, counts)
    taus: dict[str, Any] = dict(context.content.config_records.get(names.TAUS) or {})
    found = {name: {"tau": float(tau)} for name, tau in taus.items()}
    given = {"seed": context.config.seed}
    return {
        name: registry.build("calibration", calibration_part(name), given, **(args or {}) | found.get(name, {})).adjust(
            outputs
        )
        for name, args in context.config.calibration.items()
    }
