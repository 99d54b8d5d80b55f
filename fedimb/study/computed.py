"""Reference rows that need no federation: the majority class, and every client training alone.

Local-only clients start from the federation's initial weights and make as many steps as they would make in it, on
their own rows; each model is scored on the server's test set. Source: ours.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fedimb.config.schema import RunConfig
from fedimb.config.validate import GIVEN
from fedimb.data.federation import Federation
from fedimb.data.prepare import prepare
from fedimb.data.views import to_tensors
from fedimb.errors import RunFailed
from fedimb.evaluation.confusion import confusion_of, hits_and_support
from fedimb.evaluation.metrics import scores
from fedimb.evaluation.ratios import ratio
from fedimb.models.base import Classifier
from fedimb.run.local_training import weights_into
from fedimb.run.parts import build_model, part_maker
from fedimb.seeds import Stream, torch_generator
from fedimb.training.forward import forward_batched
from fedimb.training.local import train_locally
from fedimb.training.spec import TrainSpec
from fedimb.training.stacked import Work, train_stacked, why_no_stack, why_not


def compute(kind: str, config: RunConfig) -> dict[str, Any]:
    """One computation of `COMPUTED` as plain data, ready for JSON.

    Returns:
        ``rows``: label -> {"scores": {name: value}, "matrix": [[...]] or None, "recall": [C], "client_seconds",
        "steps", "labels"}; and ``train_counts``, ``class_names``, ``minority``.

    Raises:
        RunFailed: training a client ended in weights that are not finite.
    """
    torch.set_num_threads(1)
    federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    return {
        "rows": COMPUTED[kind](config, federation),
        "train_counts": federation.counts.sum(axis=0).tolist(),
        "class_names": list(federation.class_names),
        "minority": list(federation.minority),
    }


def _majority(config: RunConfig, federation: Federation) -> dict[str, Any]:
    counts = federation.counts.sum(axis=0)
    _, y = to_tensors(federation.store, federation.test, federation.scaling)
    logits = torch.full((len(y), federation.n_classes), -1.0)
    if y.ndim == 2:  # several labels per row: those that most rows have
        logits[:, torch.from_numpy(counts > counts.max() / 2)] = 1.0
    else:
        logits[:, int(counts.argmax())] = 1.0
    matrix = confusion_of(y, logits)
    return {"majority": _row(matrix, federation, labels=int(counts.sum()))}


def _local(config: RunConfig, federation: Federation) -> dict[str, Any]:
    started = time.perf_counter()
    model = build_model(config, federation.n_classes, federation.input_shape)
    holders = [int(k) for k in np.flatnonzero(federation.train_sizes)]
    works = [_work(config, federation, k) for k in holders]
    test_x, test_y = to_tensors(federation.store, federation.test, federation.scaling)
    matrices, steps = [], 0
    for trained in _trained(model, works):
        if not all(torch.isfinite(p).all() for p in trained):
            raise RunFailed("a client that trains alone reaches weights that are not finite; lower local.lr")
        weights_into(model, trained)
        matrices.append(confusion_of(test_y, forward_batched(model, test_x)[1]))
    steps = sum(work.spec.steps for work in works)
    rows = [_row(matrix, federation) for matrix in matrices]
    best = max(range(len(rows)), key=lambda i: rows[i]["scores"]["macro_recall"])
    names = rows[0]["scores"]
    mean = {
        "scores": {name: float(np.mean([row["scores"][name] for row in rows])) for name in names},
        "matrix": None,
        "recall": np.mean([row["recall"] for row in rows], axis=0).tolist(),
    }
    spread = {"worst_client": min, "best_client": max}
    mean["scores"] |= {key: pick(row["scores"]["macro_recall"] for row in rows) for key, pick in spread.items()}
    cost = {"client_seconds": time.perf_counter() - started, "steps": steps, "labels": int(federation.counts.sum())}
    own = {"labels": len(works[best].y), "steps": works[best].spec.steps, "client": holders[best]}
    return {"local_mean": mean | cost, "local_best": rows[best] | cost | own}


def _work(config: RunConfig, federation: Federation, client: int) -> Work:
    data = federation.client(client)
    x, y = data.tensors("train")
    local, counts = config.local, data.counts("train")
    loss = part_maker("loss", config.loss, GIVEN["loss"])(
        n_classes=federation.n_classes, prior=counts, local_counts=counts, round=config.rounds, rounds=config.rounds
    )
    spec = TrainSpec(
        view="train",
        steps=config.rounds * local.epochs * math.ceil(len(y) / local.batch_size),
        batch_size=local.batch_size,
        optimizer=local.optimizer,
        lr=local.lr,
        momentum=local.momentum,
        weight_decay=local.weight_decay,
        loss=loss,
        sampler=part_maker("sampler", config.sampler)(),
    )
    return Work(x, y, spec, torch_generator(config.seed, Stream.TRAIN, 0, client), data.primary("train"))


def _trained(model: Classifier, works: list[Work]) -> list[list[torch.Tensor]]:
    """Every client's weights, all trained from the model's present ones."""
    if why_no_stack(model) is None and all(why_not(work.spec) is None for work in works):
        return [weights for _, weights in train_stacked(model, works)]
    initial = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    found = []
    for work in works:
        weights_into(model, initial)
        train_locally(model, work.x, work.y, work.spec, work.generator, work.primary)
        found.append([p.detach().clone() for p in model.parameters() if p.requires_grad])
    return found


def _row(matrix: np.ndarray, federation: Federation, **more: Any) -> dict[str, Any]:
    recall = ratio(*hits_and_support(matrix))
    own = scores(matrix, federation.minority)
    return {"scores": own, "matrix": matrix.tolist(), "recall": recall.tolist(), **more}


COMPUTED: dict[str, Callable[[RunConfig, Federation], dict[str, Any]]] = {"majority": _majority, "local": _local}
