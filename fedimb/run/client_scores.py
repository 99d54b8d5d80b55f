"""Scores where the server holds no test rows (``data.test={name: none}``): of the clients' validation rows, at the end.

Each client sends the final model's confusion matrix on its validation view, one per calibration; the sum is what every
score is computed from. During the run ``client/*`` are the same of the model each round began with. With
``evaluation.secure`` they are not sent, and the final matrices leave under masks that cancel in the sum over all
clients (`fedimb.privacy.secure_sum`): nobody reads one client's. Source: ours.
"""

import time
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import RecordDict

from fedimb import registry
from fedimb.config.schema import RunConfig
from fedimb.contracts import platform as names
from fedimb.errors import ConfigError
from fedimb.evaluation.confusion import confusion_of
from fedimb.privacy.secure_sum import masked, unmasked_sum
from fedimb.records import array_record, arrays_of
from fedimb.run.steps import Query, Step, masked_request
from fedimb.training.calibrations.base import Outputs

if TYPE_CHECKING:
    from fedimb.run.context import ClientContext
    from fedimb.run.evaluate import Evaluator
    from fedimb.run.folder import RunFolder
    from fedimb.run.loop import Loop
    from fedimb.run.view import RunView

QUERIES = (names.SCORED, names.MASKED_SCORES)


def check_scores(config: RunConfig, task: str) -> None:
    """Refuse a run that nobody could score. Raises ConfigError."""
    if config.data["test"]["name"] != "none":
        return
    if not config.data.get("validation"):
        raise ConfigError(
            "data.test={name: none} leaves scoring to the clients' validation rows: set data.validation=0.2, say"
        )
    if task != "multiclass":
        raise ConfigError("data.test={name: none} is for rows with one class each; these have several labels")
    if config.evaluation.secure and config.clients.count < 2:
        raise ConfigError("evaluation.secure=true hides nothing with one client: its sum is that client's matrix")


def gather_scores(
    view: "RunView", config: RunConfig, clients: list[int], pairs: dict[int, str]
) -> Generator[Step, Any, tuple[dict[str, np.ndarray], dict[str, dict[int, np.ndarray]]]]:
    """Sub-program: what the clients' validation rows say of the final model.

    Returns:
        calibration name -> confusion matrix [C, C] int64 over all clients; and calibration name -> each client's own
        by client id, empty where they leave under masks.

    Args:
        clients: those that hold data, sorted; masks cancel in the sum over all of them alone.
        pairs: their public keys, where masks come from keys (`fedimb.data.federation.Federation.pairs`).
    """
    content = RecordDict()
    if view.counts is not None:
        content[names.PRIOR] = array_record({"counts": np.asarray(view.counts)})
    if not config.evaluation.secure:
        replies = yield Query(names.SCORED, content, model="global")
        found = {reply.client: arrays_of(reply.content, names.SCORES) for reply in replies}
        own = {name: {client: one[name] for client, one in found.items()} for name in config.calibration}
        return {name: np.sum(list(matrices.values()), axis=0) for name, matrices in own.items()}, own
    content.update(masked_request("validation", clients, pairs))
    replies = yield Query(names.MASKED_SCORES, content, model="global", everyone=True)
    sent = [arrays_of(reply.content, names.SCORES) for reply in replies]
    side = view.n_classes
    sums = {name: unmasked_sum(np.stack([one[name].ravel() for one in sent])).reshape(side, side) for name in sent[0]}
    return sums, {}


def keep_scores(folder: "RunFolder", evaluator: "Evaluator", loop: "Loop") -> None:
    """Write what the clients found as the last round's scores: the one evaluation such a run has."""
    if not evaluator.heard:
        return
    model = loop.model()
    scores = evaluator(model.parameters, model.buffers, loop.view.counts, None)
    about = {"step": loop.progress.server_round, "time": int(time.time() * 1000)}
    folder.append_metrics(
        [
            {"row": row, **about, "metrics": {k: v if np.isfinite(v) else None for k, v in found.items()}}
            for row, found in scores.items()
        ]
    )


def answer(query: str, content: RecordDict, context: "ClientContext") -> RecordDict:
    """The client's reply to one of `QUERIES`: ``x.scores``, one matrix per calibration of the run, int64 or masked."""
    matrices = _matrices(context)
    if query == names.SCORED:
        return RecordDict({names.SCORES: array_record(matrices)})
    asked: dict[str, Any] = dict(content.config_records["view"])
    clients = [int(client) for client in asked["clients"]]
    plain = np.concatenate([matrix.ravel() for matrix in matrices.values()])
    sent = masked(plain, context.client, clients, partial(context.secrets.mask, context, clients))
    parts = np.split(sent, len(matrices))
    hidden = {name: part.reshape(matrices[name].shape) for name, part in zip(matrices, parts, strict=True)}
    return RecordDict({names.SCORES: array_record(hidden)})


def _matrices(context: "ClientContext") -> dict[str, np.ndarray]:
    _, y = context.data.tensors("validation")
    features, logits = context.forward("validation")
    head = context.model.head
    bias = None if head.bias is None else head.bias.detach()
    outputs = Outputs(features, logits, head.weight.detach(), bias, context.counts)
    return {
        name: confusion_of(y, registry.build("calibration", name, **(args or {})).adjust(outputs))
        for name, args in context.config.calibration.items()
    }
