"""Reference rows that need no federation: the majority class, and every client training alone.

Local-only clients start from the federation's initial weights and make as many steps as in the federation, on their own
rows; each model is scored on the server's test set. The worst and the best client of ``local_mean`` are the clients
whose own model has the lowest and the highest expected accuracy at that client.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedimb.clientapp.local_training import weights_into
from fedimb.clientapp.resampling import resampled_rows
from fedimb.config.parts import build_model, resamples, spec_of_rows, with_pooled
from fedimb.config.validate import check_task
from fedimb.data.federation import Federation
from fedimb.data.prepare import prepare
from fedimb.data.views import to_tensors
from fedimb.errors import RunDiverged
from fedimb.evaluation.confusion import confusion_of, hits_and_support
from fedimb.evaluation.costs import client_accuracies
from fedimb.evaluation.metrics import scores
from fedimb.evaluation.ratios import ratio
from fedimb.models.base import Classifier
from fedimb.plain import JsonObject
from fedimb.rundir.identity import identity_of
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, torch_generator
from fedimb.training.forward import forward_batched
from fedimb.training.local import LocalResult, optimizer_of, train_locally
from fedimb.training.schedules import schedule_factor
from fedimb.training.stacked import Work, train_stacked, why_model_not_stackable, why_spec_not_stackable


def compute(kind: str, config: RunConfig) -> dict[str, object]:
    """Do one computation of `COMPUTED`; returns plain data for JSON.

    Returns:
        ``identity``: see `fedimb.rundir.identity`;
        ``rows``: label -> {"scores": {name: value}, "matrix": [[...]] or None, "recall": [C], "client_seconds",
        "steps", "labels"}; and ``train_counts``, ``class_names``, ``minority``.

    Raises:
        RunDiverged: training a client gave weights that are not finite.
    """
    torch.set_num_threads(1)
    federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    if federation.unknown_rule is not None or resamples(config):
        check_task(config, federation.task, federation.unknown_rule)
    config = with_pooled(config, federation)
    return {
        "rows": COMPUTED[kind](config, federation),
        "train_counts": federation.class_totals.tolist(),
        "class_names": list(federation.class_names),
        "minority": list(federation.minority),
        "identity": identity_of(config, federation, [f"study/{Path(__file__).name}"]).to_json(),
    }


def _majority(config: RunConfig, federation: Federation) -> dict[str, object]:
    counts = federation.class_totals.astype(np.float64)
    if federation.labels is not None and federation.unknown_labels is not None:  # few known cells make no class rare
        counts = federation.labels.full_counts(counts)
    _, y = to_tensors(federation.store, federation.test, federation.scaling)
    logits = torch.full((len(y), federation.n_classes), -1.0)
    if y.ndim == 2:  # several labels per row: those that most rows have
        logits[:, torch.from_numpy(counts > counts.max() / 2)] = 1.0
    else:
        logits[:, int(counts.argmax())] = 1.0
    matrix = confusion_of(y, logits)
    return {"majority": _row(matrix, federation, labels=int(federation.class_totals.sum()))}


def _local(config: RunConfig, federation: Federation) -> JsonObject:
    started = time.perf_counter()
    model = build_model(config, federation.n_classes, federation.input_shape)
    holders = [int(k) for k in np.flatnonzero(federation.train_sizes)]
    works = [_work(config, federation, k) for k in holders]
    test_x, test_y = to_tensors(federation.store, federation.test, federation.scaling)
    matrices, steps = [], []
    for result in _trained(config, model, works):
        if not all(torch.isfinite(p).all() for p in model.parameters()):
            raise RunDiverged("a client that trains alone diverged (its weights are not finite); lower local.lr")
        matrices.append(confusion_of(test_y, forward_batched(model, test_x)[1]))
        steps.append(result.steps)
    rows = [_row(matrix, federation) for matrix in matrices]
    best = max(range(len(rows)), key=lambda i: rows[i]["scores"]["macro_recall"])
    names = rows[0]["scores"]
    mean = {
        "scores": {name: float(np.mean([row["scores"][name] for row in rows])) for name in names},
        "matrix": None,
        "recall": np.mean([row["recall"] for row in rows], axis=0).tolist(),
    }
    at_home = [_at_clients(matrix, federation.counts[[k]])[0] for matrix, k in zip(matrices, holders, strict=True)]
    mean["scores"] |= _ends(np.array(at_home))
    cost = {
        "client_seconds": time.perf_counter() - started,
        "steps": sum(steps),
        "labels": int(federation.counts.sum()),
    }
    own = {"labels": int(federation.train_sizes[holders[best]]), "steps": steps[best], "client": holders[best]}
    return {"local_mean": mean | cost, "local_best": rows[best] | cost | own}


def _work(config: RunConfig, federation: Federation, client: int) -> Work:
    data = federation.client(client)
    x, y = data.tensors("train")
    steps = config.rounds * config.local.epochs * math.ceil(len(y) / config.local.batch_size)
    counts, sets, primary = data.full_counts("train"), data.label_sets, data.primary("train")
    if resamples(config):  # as many steps as without, as in a federation
        x, y = resampled_rows(config, data, client)
        primary = y
        if config.prior.view == "train":
            counts = np.bincount(y.numpy(), minlength=federation.n_classes).astype(np.float64)
    spec = spec_of_rows(config, counts, steps, federation.input_shape, config.rounds, sets)
    return Work(x, y, spec, torch_generator(config.seed, Stream.TRAIN, 0, client), primary)


def _trained(config: RunConfig, model: Classifier, works: list[Work]) -> Iterator[LocalResult]:
    """Train every client from the model's current weights; each result leaves that client's model in place."""
    scheduled = not config.local.schedule.constant
    stackable = not scheduled and why_model_not_stackable(model) is None
    if stackable and all(why_spec_not_stackable(work.spec) is None for work in works):
        for result, weights in train_stacked(model, works):
            weights_into(model, weights)
            yield result
        return
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for work in works:
        model.load_state_dict(initial)
        if not scheduled:
            yield train_locally(model, work.x, work.y, work.spec, work.generator, work.primary)
            continue
        yield _by_rounds(config, model, work)


def _by_rounds(config: RunConfig, model: Classifier, work: Work) -> LocalResult:
    """One training whose learning rate follows the schedule, for as many steps as a client takes in each round."""
    optimizer, steps, total = optimizer_of(model, work.spec), 0, 0.0
    for round in range(1, config.rounds + 1):
        factor = schedule_factor(config.local.schedule, round, config.rounds)
        spec = work.spec.change(steps=work.spec.steps // config.rounds, lr=config.local.lr * factor)
        done = train_locally(model, work.x, work.y, spec, work.generator, work.primary, optimizer)
        steps, total = steps + done.steps, total + (done.loss * done.steps if done.steps else 0.0)
    return LocalResult(steps=steps, loss=total / steps if steps else math.nan, examples=len(work.y))


def _row(matrix: np.ndarray, federation: Federation, **more: Any) -> JsonObject:
    recall = ratio(*hits_and_support(matrix))
    own = scores(matrix, federation.minority) | _ends(_at_clients(matrix, federation.counts))
    return {"scores": own, "matrix": matrix.tolist(), "recall": recall.tolist(), **more}


def _at_clients(matrix: np.ndarray, held: np.ndarray) -> np.ndarray:
    """The expected accuracy [K] at clients that hold ``held`` [K, C]; NaN if undefined."""
    return client_accuracies(matrix, held) if matrix.ndim == 2 else np.full(len(held), np.nan)


def _ends(at_clients: np.ndarray) -> dict[str, float]:
    """Worst and best client, in the format of runs."""
    defined = at_clients[~np.isnan(at_clients)]
    lowest, highest = (float(defined.min()), float(defined.max())) if defined.size else (math.nan, math.nan)
    return {"worst_client": lowest, "best_client": highest}


COMPUTED: dict[str, Callable[[RunConfig, Federation], dict[str, object]]] = {"majority": _majority, "local": _local}
