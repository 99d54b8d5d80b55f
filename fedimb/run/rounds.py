"""One training round of a model of the run's kind: cohort, messages, aggregation, and what is said about it."""

import logging
import time
from typing import TYPE_CHECKING, Any

from flwr.app import RecordDict

from fedimb.privacy.ledger import entered
from fedimb.run.aggregator import Aggregator
from fedimb.run.steps import Reply

if TYPE_CHECKING:
    from fedimb.run.loop import Loop

log = logging.getLogger("fedimb")


def train_round(loop: "Loop", model: Aggregator, name: str) -> dict[str, float]:
    """Ask a cohort to train ``model`` and let its aggregator take in what is usable.

    Args:
        name: of the model, as in ``run.models``.

    Returns:
        what is logged of the round: losses, participants, steps, seconds, and what the methods said of it.

    Raises:
        RunFailed: fewer usable replies than configured, or other weights than the model's.
    """
    started = time.monotonic()
    loop.estimate()
    loop.progress.server_round += 1
    server_round = loop.progress.server_round
    cohort = loop.exchange.roster.cohort(server_round)
    loop.progress.virtual_s += cohort.virtual_s
    metrics: dict[str, float] = {"data/participants": float(len(cohort.asked))}
    if not cohort.asked:
        log.warning("round %d: no client is available; the model stays as it is", server_round)
        return metrics | {"time/round_s": time.monotonic() - started}
    loop.exchange.versions.message += 1
    nodes = {loop.exchange.roster.node(c): c for c in cohort.asked}
    orders = model.configure(server_round, nodes)
    about = {"evaluate": loop.evaluate_clients, "model": name, "resets": loop.progress.resets}
    about |= {} if loop.view.ledger is None else {"cohort": len(cohort.asked)}
    orders = loop.exchange.complete(orders, server_round, model.buffers, loop.sent_counts(), **about)
    outcome = loop.exchange.send("train", orders, cohort.lost, model.linear, f"round {server_round}")
    aggregated = model.aggregate(server_round, outcome, orders)
    loop.estimate()
    if "train_loss" in aggregated:
        metrics["train/loss"] = aggregated["train_loss"]
    usable = [a for a in outcome.answers if a.usable]
    metrics["data/replies"] = float(len(usable))
    metrics["train/steps"] = sum(a.metrics.get("steps", 0.0) for a in usable)
    metrics |= entered(loop.view.ledger, loop.progress.privacy, cohort.asked, [a.metrics for a in usable])
    metrics["time/client_s"] = sum(a.metrics.get("seconds", 0.0) for a in usable)
    if cohort.virtual_s:
        metrics["time/simulated_wait_s"] = cohort.virtual_s
    extras = [Reply(a.client, RecordDict({k: v for k, v in a.content.items() if k.startswith("x.")})) for a in usable]
    loop.method_metrics = {}
    strategy: Any = loop.method
    while hasattr(strategy, "on_train_replies"):
        loop.method_metrics |= strategy.on_train_replies(server_round, extras)
        strategy = strategy.inner
    metrics |= loop.method_metrics
    loop.last_outcome = outcome
    return metrics | {"time/round_s": time.monotonic() - started}
