"""Scores on the clients' validation rows at the end, if the server has no test rows (``data.test={name: none}``).

Each client sends the final model's confusion matrix on its validation view, one per calibration; all scores are
computed from their sum. During the run, ``client/*`` are the same for the model at the start of each round. With
``evaluation.secure`` those are not sent, and the final matrices are masked, with masks that cancel in the sum over all
clients (`fedimb.privacy.secure_sum`): nobody can read the matrix of one client.
"""

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import RecordDict

from fedimb.contracts import platform as names
from fedimb.data.federation import Federation
from fedimb.engine.admission import check_total
from fedimb.errors import ConfigError
from fedimb.privacy.secure_sum import unmasked_sum
from fedimb.records import array_record, arrays_of
from fedimb.schema import RunConfig
from fedimb.serverapp.influence import capped_counts
from fedimb.serverapp.steps import Query, Step, masked_request

if TYPE_CHECKING:
    from fedimb.rundir.folder import RunFolder
    from fedimb.serverapp.context import RunContext
    from fedimb.serverapp.evaluate import Evaluator
    from fedimb.serverapp.loop import Loop


def check_scores(config: RunConfig, task: str) -> None:
    """Refuse a run that cannot be scored. Raises ConfigError."""
    if config.data["test"]["name"] != "none":
        return
    if not config.data.get("validation"):
        raise ConfigError(
            "data.test={name: none} leaves scoring to the clients' validation rows: set e.g. data.validation=0.2"
        )
    if task != "multiclass":
        raise ConfigError(
            "data.test={name: none} needs one class per row, but these rows have several labels; use another data.test"
        )
    if config.evaluation.secure and config.clients.count < 2:
        raise ConfigError("evaluation.secure=true hides nothing with one client: its sum is that client's matrix")


def gather_scores(
    context: "RunContext", config: RunConfig, federation: Federation
) -> Generator[Step, Any, tuple[dict[str, np.ndarray], dict[str, dict[int, np.ndarray]]]]:
    """Sub-program: score the final model on the clients' validation rows.

    Returns:
        calibration name -> confusion matrix [C, C] int64 over all clients; and calibration name -> the matrix of each
        client by client id, empty if they are masked. A client above ``clients.max_weight_share`` of all rows counts
        with that share.
    """
    content = RecordDict()
    if context.counts is not None:
        content[names.PRIOR] = array_record({"counts": np.asarray(context.counts)})
    if not config.evaluation.secure:
        replies = yield Query(names.SCORED, content, model="global")
        lying = set(context.attackers)  # of a simulated attack: their scores judge nothing
        found = {r.client: arrays_of(r.content, names.SCORES) for r in replies if r.client not in lying}
        own = {name: {client: one[name] for client, one in found.items()} for name in config.calibration}
        sums = {}
        for name, matrices in own.items():
            sums[name] = capped_counts(np.stack(list(matrices.values())), config.clients.max_weight_share).sum(axis=0)
        return sums, own
    aside = context.aside()
    clients = [int(client) for client in np.flatnonzero(federation.train_sizes) if int(client) not in aside]
    content.update(masked_request("validation", clients, federation.pairs))
    replies = yield Query(names.MASKED_SCORES, content, model="global", everyone=True)
    sent = [arrays_of(reply.content, names.SCORES) for reply in replies]
    side = context.n_classes
    sums = {name: unmasked_sum(np.stack([one[name].ravel() for one in sent])).reshape(side, side) for name in sent[0]}
    for name, total in sums.items():
        held = federation.validation.sizes[clients].sum()
        check_total(f"{names.MASKED_SCORES} ({name})", total, float(held))
    return sums, {}


def keep_scores(folder: "RunFolder", evaluator: "Evaluator", loop: "Loop") -> None:
    """Write the clients' matrices as the scores of the last round, the only evaluation of such a run."""
    if not evaluator.client_matrix:
        return
    model = loop.model()
    scores = evaluator(model.parameters, model.buffers, loop.context.counts, None)
    about = {"step": loop.progress.server_round, "time": int(time.time() * 1000)}
    folder.append_metrics(
        [
            {"row": row, **about, "metrics": {k: v if np.isfinite(v) else None for k, v in found.items()}}
            for row, found in scores.items()
        ]
    )
