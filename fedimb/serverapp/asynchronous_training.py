"""Training without rounds: each version of the model is made of the updates that arrive, and counts as one round.

The schedule follows from the configuration alone, so a resumed run makes the same one again; what is in flight is in
the checkpoint.
"""

import math
import time
from collections.abc import Sequence

from flwr.app import Message

from fedimb.engine.lanes import Instruction, Place
from fedimb.errors import RunDiverged, RunFailed
from fedimb.paces.schedule import DROPPED, Training, Version, as_csv
from fedimb.privacy.ledger import add_round
from fedimb.serverapp.aggregator import Aggregator, check_complete
from fedimb.serverapp.monitor import NOT_FINITE
from fedimb.serverapp.pacing import Pacing
from fedimb.serverapp.pending import Arrived, Pending, mean_staleness
from fedimb.serverapp.steps import Rounds
from fedimb.serverapp.training_rounds import TrainingRounds


def make_version(
    rounds: TrainingRounds,
    model: Aggregator,
    arrived: Arrived,
    request: Message | None,
    arrivals: Sequence[Training],
    asked: Sequence[int],
) -> dict[str, float]:
    """Make the next version of the model of what has arrived, and return its metrics.

    Args:
        rounds: shows and counts what arrived.
        request: any train message of this version; None: nobody was asked, and nothing has arrived.
        arrivals: the trainings that it is made of.
        asked: clients that began with the version before it.

    Raises:
        RunFailed, RunDiverged: see `Aggregator.apply_update`.
    """
    server_round, pacing = rounds.progress.server_round, rounds.pacing
    replies = rounds.show(server_round, arrived.replies)
    aggregated: dict[str, float] = {}
    if arrived.replies:
        assert pacing is not None
        assert request is not None, "what arrives was asked for"
        pace = pacing.asynchronous
        update = arrived.mean_update(model.parameters, pace.mixes, pace.rate)
        aggregated = model.apply_update(server_round, update, arrived.mean_buffers(), arrived.replies, request)
    metrics = rounds.add_arrived(aggregated, arrived.replies)
    metrics |= mean_staleness(arrivals, rounds.arrivals.counts, rounds.context.class_names)
    if wrong := sum(math.isinf(a.metrics.get("train_loss", 0.0)) for a in arrived.replies) + len(arrived.diverged):
        metrics[NOT_FINITE] = float(wrong)
    metrics |= add_round(None, rounds.progress.privacy, asked, [a.metrics for a in arrived.replies])
    rounds.method_metrics = rounds.notify_methods(server_round, replies)
    return metrics | rounds.method_metrics


class AsynchronousTraining:
    """Trains one version of the model at a time.

    Args:
        rounds: sends the messages, and shows and counts what arrived.
        pending: the updates that were trained and have not arrived.
        pacing: the schedule.
    """

    def __init__(self, rounds: TrainingRounds, pending: Pending, pacing: Pacing) -> None:
        self._rounds, self._pending, self._pacing = rounds, pending, pacing
        self._versions: list[Version] = []

    def begin(self, step: Rounds) -> None:
        """Plan the versions of a step, from its first one, and store them as ``trainings.csv``."""
        progress = self._rounds.progress
        before = progress.server_round - progress.round_in_step
        self._versions = self._pacing.versions(step.n, before)
        name = "trainings.csv" if not before else f"trainings_from_{before}.csv"
        self._rounds.context.artifact(name, as_csv(self._versions, self._pacing.asynchronous.discount).encode())

    def end(self) -> None:
        """Abandon the work in flight: it is never trained, and its steps are counted."""
        self._pending.clear()

    def train(self, model: Aggregator, name: str, number: int) -> dict[str, float]:
        """Train what begins with a version of the model, and make the next, ``number`` of its step, of what arrives.

        Raises:
            RunFailed: too few of the last replies are usable, or weights do not match the model's.
        """
        started = time.monotonic()
        rounds, version = self._rounds, self._versions[number - 1]
        rounds.progress.virtual_ns += version.ends_ns - (self._versions[number - 2].ends_ns if number > 1 else 0)
        server_round = rounds.next_round()
        metrics = {"data/participants": float(len(version.starts)), **rounds.context.learning_rates(server_round)}
        concerned = [one.client for one in version.starts or version.arrivals]
        instructions = rounds.messages(model, name, concerned, version=number - 1) if concerned else []
        if version.starts:
            self._train_starts(model, version, instructions)
        arrived = self._pending.take(number)
        self._check_recent(arrived)
        request = instructions[0][1] if instructions else None
        metrics |= make_version(rounds, model, arrived, request, version.arrivals, concerned)
        metrics |= rounds.clock_metrics([one.client for one in version.starts if one.makes is None])
        metrics["async/version"] = float(number)
        metrics["async/in_flight"] = float(version.in_flight)
        return metrics | {"time/round_s": time.monotonic() - started}

    def _train_starts(self, model: Aggregator, version: Version, instructions: Sequence[Instruction]) -> None:
        """Train the clients that begin with this version and will arrive; their updates are then pending."""
        by_client = {one.client: one for one in version.starts}
        coming = {c: one for c, one in by_client.items() if one.makes is not None}
        lost = {c: f"{DROPPED} (simulated)" for c, one in by_client.items() if one.lost == DROPPED}
        rounds, discount = self._rounds, self._pacing.asynchronous.discount
        places = {c: Place(str(one.makes), one.weight, discount(one.staleness)) for c, one in coming.items()}
        limits = rounds.exchange.weight_limits(coming, {c: one.weight for c, one in coming.items()})
        sent = [instruction for instruction in instructions if instruction[0] in coming or instruction[0] in lost]
        left = [
            instruction for instruction in instructions if instruction[0] not in coming and instruction[0] not in lost
        ]
        where = f"round {rounds.progress.server_round}"
        reduce = model.reduction(limits, places)
        outcome = rounds.exchange.send("train", sent, lost, reduce, where, unanswered=left, least=0.0)
        check_complete(rounds.progress.server_round, outcome.total, [a for a in outcome.replies if a.usable])
        self._pending.add(outcome, model.parameters, by_client)
        rounds.last_outcome = outcome

    def _check_recent(self, arrived: Arrived) -> None:
        """Check the usable share of the last replies, as many as clients train at a time: one version has few."""
        progress, concurrency, least = self._rounds.progress, self._pacing.concurrency, self._rounds.exchange.least
        recent = progress.recent
        recent += ["" for _ in arrived.replies] + [f"client {client}: {why}" for client, why in arrived.failed.items()]
        del recent[:-concurrency]
        failed = [why for why in recent if why]
        if len(recent) == concurrency and len(recent) - len(failed) < least * len(recent):
            failure = RunDiverged if all("diverged" in why for why in failed) else RunFailed
            raise failure(
                f"round {progress.server_round}: only {len(recent) - len(failed)} of the last {len(recent)} "
                f"replies are usable (clients.min_reply_fraction={least:g}). {'; '.join(failed[:3])}"
            )
