"""Updates that were trained and have not arrived yet on the clock: one sum for each version of the model to come."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedimb.engine.lanes import WEIGHT, ClientReply, LaneOutcome
from fedimb.paces.schedule import Training
from fedimb.plain import JsonObject
from fedimb.records import Arrays


@dataclass
class Arrived:
    """What one version of the model is made of.

    Attributes:
        update: weighted sum of the trained weights, or of the differences to the version that a client began with, by
            parameter name, float64.
        buffers: weighted sum of the buffers, likewise.
        added: sum of the weights times discounts in these sums.
        whole: sum of the weights without discounts.
        replies: the usable replies, with their metrics only.
        failed: why the others are not usable, by client.
        diverged: those of them whose values are not finite, or too large.
    """

    update: Arrays = field(default_factory=dict)
    buffers: Arrays = field(default_factory=dict)
    added: float = 0.0
    whole: float = 0.0
    replies: list[ClientReply] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    diverged: list[int] = field(default_factory=list)

    def mean_update(self, current: Arrays, mixes: bool, rate: float) -> Arrays:
        """The mean update of the model, float64: the sum over the weights without discounts, times ``rate``.

        Args:
            current: the model's weights, from which those of the clients differ, where they are mixed.
        """
        found = {}
        for name, total in self.update.items():
            summed = total - self.added * current[name].astype(np.float64) if mixes else total
            found[name] = summed * (rate / self.whole)
        return found

    def mean_buffers(self) -> Arrays:
        """The weighted mean of the buffers, float64."""
        return {name: total / self.added for name, total in self.buffers.items()}


class Pending:
    """The sums of all versions to come.

    An exchange gives one exact sum for each version that its trainings go into. These are added here in the order of
    the exchanges, so the result depends on the schedule alone.

    Args:
        mixes: whether weights are added, not differences (`fedimb.paces.asynchronous.AsynchronousPace`).
    """

    def __init__(self, mixes: bool = False) -> None:
        self._mixes = mixes
        self._versions: dict[int, Arrived] = {}

    def add(self, outcome: LaneOutcome, received: Arrays, trainings: Mapping[int, Training]) -> None:
        """Add an exchange.

        Args:
            outcome: its sums are named by the versions (`fedimb.engine.lanes.Place`).
            received: the weights that all its clients began with.
            trainings: by client id.
        """
        for name, total in outcome.total.means.items():
            mine, mean = self._of(int(name)), total.mean()
            mine.added += total.weight
            for key, value in mean.items():
                own = value if self._mixes else value - received[key]
                mine.update[key] = mine.update.get(key, 0.0) + total.weight * own
        for name, total in outcome.total.buffers_of.items():
            mine = self._of(int(name))
            for key, value in total.mean().items():
                mine.buffers[key] = mine.buffers.get(key, 0.0) + total.weight * value
        for reply in sorted(outcome.replies, key=lambda one: one.client):
            makes = trainings[reply.client].makes
            if makes is None:
                continue
            mine = self._of(makes)
            if reply.usable:
                mine.whole += reply.metrics[WEIGHT]
                mine.replies.append(ClientReply(reply.client, metrics=reply.metrics))
            else:
                mine.failed[reply.client] = str(reply.error)
                mine.diverged += [reply.client] if reply.diverged else []

    def _of(self, version: int) -> Arrived:
        return self._versions.setdefault(version, Arrived())

    def take(self, version: int) -> Arrived:
        """What a version is made of; its sum is forgotten."""
        found = self._versions.pop(version, Arrived())
        found.replies.sort(key=lambda one: one.client)
        return found

    def clear(self) -> None:
        """Forget everything: the work in flight is abandoned."""
        self._versions.clear()

    def state(self) -> tuple[Arrays, JsonObject]:
        """Arrays and plain values for a checkpoint."""
        arrays: Arrays = {}
        info: JsonObject = {}
        for version, own in self._versions.items():
            for kind, sums in (("u", own.update), ("b", own.buffers)):  # a sum of 0-d arrays is a NumPy scalar
                arrays |= {f"{version}/{kind}/{key}": np.asarray(value) for key, value in sums.items()}
            replies = [{"client": one.client, "metrics": one.metrics} for one in own.replies]
            failed = {str(client): why for client, why in own.failed.items()}
            info[str(version)] = {"added": own.added, "whole": own.whole, "replies": replies, "failed": failed}
            info[str(version)]["diverged"] = own.diverged
        return arrays, info

    def load(self, arrays: Mapping[str, np.ndarray], info: JsonObject) -> None:
        """Inverse of `state`."""
        self._versions = {}
        for name, own in info.items():
            found = self._of(int(name))
            found.added, found.whole = float(own["added"]), float(own["whole"])
            found.replies = [ClientReply(int(one["client"]), metrics=dict(one["metrics"])) for one in own["replies"]]
            found.failed = {int(client): why for client, why in own["failed"].items()}
            found.diverged = [int(client) for client in own["diverged"]]
            for kind, into in (("u", found.update), ("b", found.buffers)):
                prefix = f"{name}/{kind}/"
                into.update({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})


def mean_staleness(
    arrivals: Iterable[Training], counts: np.ndarray | None, class_names: Iterable[str]
) -> dict[str, float]:
    """Metrics of a version: how late its updates are, in versions; per class the mean by the clients' rows of it.

    Args:
        arrivals: the trainings that make it.
        counts: rows of each class [K, C] by client; None: unknown.
    """
    late = [(one.client, one.staleness) for one in arrivals]
    if not late:
        return {}
    clients, staleness = (np.array(each) for each in zip(*late, strict=True))
    found = {"async/staleness_mean": float(staleness.mean()), "async/staleness_max": float(staleness.max())}
    if counts is not None:
        rows = counts[clients].astype(np.float64)
        for name, held, own in zip(class_names, rows.sum(axis=0), staleness @ rows, strict=True):
            if held:
                found[f"async/staleness/{name}"] = float(own / held)
    return found
