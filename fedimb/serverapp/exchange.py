"""One exchange with clients: complete and send the messages, count bytes and errors, check that enough replied."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedimb.contracts import platform as names
from fedimb.contracts.region import REGION
from fedimb.engine.admission import Admission, Told
from fedimb.engine.grid import exchange
from fedimb.engine.lanes import ClientReply, Instruction, LaneOutcome, Reduce, Reduction, gather, sum_replies
from fedimb.engine.region import limits_record
from fedimb.errors import RunDiverged, RunFailed
from fedimb.records import array_record, arrays_of, payload_bytes
from fedimb.schema import ClientsConfig
from fedimb.serverapp.attackers import Attackers
from fedimb.serverapp.client_sampler import ClientSampler
from fedimb.serverapp.influence import bound, bounds_influence
from fedimb.serverapp.left_out import LeftOut
from fedimb.serverapp.sums_by_kind import SumsByKind
from fedimb.sums import WeightLimits

log = logging.getLogger("fedimb")


@dataclass
class Traffic:
    """Payload bytes by message type, since they were last logged and in total."""

    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)
    total_up: int = 0
    total_down: int = 0

    def add(self, kind: str, up: int, down: int) -> None:
        """Count one exchange."""
        self.up[kind] += up
        self.down[kind] += down
        self.total_up += up
        self.total_down += down

    def drain(self) -> dict[str, float]:
        """Metrics of the bytes counted since the last call: totals, and by message type."""
        metrics = {"comm/up_bytes": float(sum(self.up.values())), "comm/down_bytes": float(sum(self.down.values()))}
        for way, counter in (("up", self.up), ("down", self.down)):
            metrics |= {f"comm/{way}_bytes/{kind}": float(n) for kind, n in counter.items()}
            counter.clear()
        return metrics


@dataclass
class Versions:
    """The state version each client holds: after the last message, and at the last checkpoint."""

    message: int = 0
    current: dict[int, int] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)

    def commit(self) -> None:
        """Record that a checkpoint now has the current versions."""
        self.committed = dict(self.current)


class StateGone(RunFailed):
    """A client lacks the state that a message builds on: without it the result would be another one.

    Attributes:
        at_checkpoint: whether it is a state that the last checkpoint names, so that a resume from it would fail again.
    """

    def __init__(self, text: str, at_checkpoint: bool) -> None:
        super().__init__(text)
        self.at_checkpoint = at_checkpoint


class Exchange:
    """Sends a step's messages and returns the replies.

    Args:
        grid: any Flower Grid.
        client_sampler: samples the clients.
        min_reply_fraction: a step with fewer usable replies fails the run.
        admission: checks every reply before it is used; None: only what sums need is checked.
        left_out: what it refused; None keeps it in memory.
        influence: bounds on single clients; None: none.
        attackers: the simulated clients that attack; None: nobody.
        kinds: the kind of network of each client, by id, which messages then name; None: all train the same one.
    """

    def __init__(
        self,
        grid: Grid,
        client_sampler: ClientSampler,
        min_reply_fraction: float,
        admission: Admission | None = None,
        left_out: LeftOut | None = None,
        influence: ClientsConfig | None = None,
        attackers: Attackers | None = None,
        kinds: Sequence[str] | None = None,
    ) -> None:
        self.kinds = kinds
        self.grid, self.client_sampler, self.least = grid, client_sampler, min_reply_fraction
        self._admission, self.left_out = admission, left_out or LeftOut()
        self._influence = influence if influence is not None and bounds_influence(influence) else None
        self.attackers = attackers
        self.traffic, self.versions = Traffic(), Versions()
        self.errors = 0

    def complete(
        self,
        instructions: Sequence[Instruction],
        server_round: int,
        buffers: Mapping[str, np.ndarray],
        counts: np.ndarray | None,
        **step: Any,
    ) -> list[Instruction]:
        """Add what every fedimb client needs to a strategy's messages: step, state versions, buffers, prior."""
        extra = RecordDict()
        if buffers:
            extra[names.BUFFERS] = array_record(buffers)
        if counts is not None:
            extra[names.PRIOR] = array_record({"counts": np.asarray(counts)})
        cached: dict[tuple[Any, ...], ConfigRecord] = {}  # clients with equal versions share one record object
        completed = []
        for client, message in instructions:
            versions = (self.versions.current.get(client, 0), self.versions.committed.get(client, 0))
            order = {} if self.attackers is None else self.attackers.order(client, server_round)
            kind = {} if self.kinds is None else {names.KIND: self.kinds[client]}
            if (key := (*versions, bool(order), *kind.values())) not in cached:
                cached[key] = ConfigRecord(
                    {
                        "round": server_round,
                        "step": self.versions.message,
                        "state-base": versions[0],
                        "state-keep": versions[1],
                        **step,
                        **order,
                        **kind,
                    }
                )
            message.content = RecordDict({**message.content, **extra, names.STEP: cached[key]})
            completed.append((client, message))
        return completed

    def send(
        self,
        kind: str,
        instructions: Sequence[Instruction],
        lost: Mapping[int, str],
        reduce: Reduction | SumsByKind,
        where: str,
        everyone: bool = False,
        at_least: int = 0,
        unanswered: Sequence[Instruction] = (),
        least: float | None = None,
    ) -> LaneOutcome:
        """Send and receive; ``lost`` clients get no message, and their reply is an error.

        Args:
            unanswered: messages that clients get and whose replies nobody waits for; only their bytes are counted.
            least: the fraction of usable replies below which the step fails; None: as configured.

        Raises:
            RunFailed: fewer usable replies than configured, or than ``at_least``, with the first errors; with
                ``everyone``, if any is missing.
            StateGone: a client's state is lost or damaged, however many replies are usable.
        """
        aside = self.left_out.aside(self.versions.message)
        lost = dict(lost) | {c: aside[c] for c, _ in instructions if c in aside}
        sent = [(c, m) for c, m in instructions if c not in lost]
        costs = [float(self.client_sampler.sizes[c]) for c, _ in sent]
        if kind == "train" and isinstance(reduce, Reduce) and self._admission is not None and self._admission.regions:
            limits = limits_record(reduce.weights.limits)
            for _, message in sent:
                message.content[REGION] = limits
        if kind == "train" and (self._influence is not None or self.attackers is not None):
            assert not isinstance(reduce, SumsByKind), "refused by fedimb.config.combinations"
            outcome = self._whole(sent, reduce, costs, where)
        elif isinstance(reduce, SumsByKind):
            kept = exchange(self.grid, sent, False, costs, self._admission)
            outcome = reduce.sum(kept, dict(sent))
        else:
            outcome = exchange(self.grid, sent, reduce, costs, self._admission)
        self._remember(kind, outcome.replies, dict(sent))
        self._note_members(outcome.replies, where)
        self._count_down(kind, (*instructions, *unanswered))
        self.traffic.add(kind, sum(a.up_bytes for a in outcome.replies), 0)
        for client, reason in lost.items():
            outcome.replies.append(ClientReply(client, error=reason, usable=False))
        outcome.replies.sort(key=lambda a: a.client)
        self._take_states(outcome.replies)
        self._check_states(outcome.replies, where)
        self._check_replies(outcome.replies, where, self.least if least is None else least)
        if everyone and (missing := [a for a in outcome.replies if not a.usable and a.client not in aside]):
            raise RunFailed(
                f"{where}: {self.left_out.name(missing[0].client)} sent nothing "
                f"({str(missing[0].error).splitlines()[0]}), and "
                "masks cancel only in the sum over all clients; fix that client and resume: all are asked again"
            )
        usable = sum(a.usable for a in outcome.replies)
        if usable < at_least:
            shown = "; ".join(f"{self.left_out.name(a.client)}: {a.error}" for a in outcome.replies if not a.usable)
            raise RunFailed(
                f"{where}: {usable} of {len(outcome.replies)} replied, and {at_least} are needed to open a masked sum; "
                f"fix the others and resume: all are asked again. {shown}"
            )
        return outcome

    def begin(self, instruction: Instruction) -> None:
        """Count a train message whose reply is waited for by `read`, not by `send`."""
        self._count_down("train", (instruction,))

    def read(self, client: int, sent: Message, reply: Message, reduce: Reduction, where: str) -> LaneOutcome:
        """Check the reply to a train message, and sum it; nothing is counted yet.

        Raises:
            StateGone: the client's state is lost or damaged.
        """
        outcome = gather([(client, reply)], reduce, {client: sent}, self._admission)
        self._check_states(outcome.replies, where)
        return outcome

    def settle(self, sent: Message, reply: ClientReply, where: str) -> None:
        """Count a reply that was read: its bytes, what it says of its client, and why it is not used."""
        self._remember("train", [reply], {reply.client: sent})
        self.traffic.add("train", reply.up_bytes, 0)
        self._take_states([reply])
        self._check_replies([reply], where, 0.0)

    def _count_down(self, kind: str, instructions: Sequence[Instruction]) -> None:
        sizes: dict[int, int] = {}
        self.traffic.add(kind, 0, sum(_message_bytes(message, sizes) for _, message in instructions))

    def _take_states(self, replies: Sequence[ClientReply]) -> None:
        """Note which state the clients now keep; the record is not a method's."""
        for reply in replies:
            if names.STATE in reply.content:
                version = reply.content.config_records[names.STATE]["version"]
                self.versions.current[reply.client] = int(version)  # type: ignore[arg-type]
                del reply.content[names.STATE]

    def weight_limits(self, clients: Iterable[int], factors: Mapping[int, float] | None = None) -> WeightLimits:
        """Limits on the weights of these clients' replies; unknown ones for clients that nothing is known of.

        Args:
            factors: on their weights, by client id; None: none.
        """
        if self._admission is None:
            return WeightLimits.of(math.inf for _ in clients)
        return self._admission.weight_limits(clients, factors)

    @property
    def told(self) -> Told:
        """What clients have said of their rows, which later replies must agree with."""
        return Told() if self._admission is None else self._admission.told

    def _remember(self, kind: str, replies: Sequence[ClientReply], sent: Mapping[int, Message]) -> None:
        """Keep what replies that were not refused say of their clients' rows."""
        told = self.told
        for reply in replies:
            if reply.refused is not None:
                continue
            if reply.support is not None:
                told.validation[reply.client] = reply.support
            if kind == names.CLASS_COUNTS and names.COUNTS in reply.content:
                about = sent[reply.client].content.config_records["view"]
                if about["name"] == "train":
                    told.train[reply.client] = arrays_of(reply.content, names.COUNTS)["counts"]

    def _note_members(self, replies: Sequence[ClientReply], where: str) -> None:
        """Tell which regions' sums are over fewer sites than they have: nothing else at the root shows it."""
        regions = {} if self._admission is None else self._admission.regions
        for reply in replies:
            if reply.usable and reply.members is not None and reply.client in regions:
                sites = regions[reply.client].sites
                if reply.members < sites:
                    self.left_out.add_partial(where, reply.client, reply.members, sites)

    def _whole(self, sent: Sequence[Instruction], reduce: Reduction, costs: Sequence[float], where: str) -> LaneOutcome:
        """An exchange whose replies are all here before any is summed: attackers collude, then bounds apply."""
        outcome = exchange(self.grid, sent, False, costs, self._admission)
        messages = dict(sent)
        if self.attackers is not None:
            self.attackers.collude(outcome, messages)
        if self._influence is None:
            return sum_replies(outcome, reduce, messages)
        outcome, cut = bound(outcome, messages, reduce, self._influence)
        for client, what in cut.items():
            self.left_out.add_cut(where, client, what)
        return outcome

    def _check_states(self, replies: Sequence[ClientReply], where: str) -> None:
        versions = self.versions
        for reply in replies:
            if "state_lost: " in (reply.error or ""):
                base, saved = (each.get(reply.client, 0) for each in (versions.current, versions.committed))
                raise StateGone(f"{where}: client {reply.client}: {str(reply.error).splitlines()[0]}", base == saved)

    def _check_replies(self, replies: Sequence[ClientReply], where: str, least: float) -> None:
        failed = [a for a in replies if not a.usable and not (a.error or "").startswith("empty")]
        self.errors += len(failed)
        for reply in failed:
            who = self.left_out.name(reply.client)
            text = str(reply.error).removeprefix(f"{who}: ")
            log.warning("%s: no usable reply of %s: %s", where, who, text)
            if reply.refused is not None:
                signed = self._admission is not None and self._admission.signed
                self.left_out.add(self.versions.message, where, reply.client, reply.refused, signed)
        if replies and len(replies) - len(failed) < least * len(replies):
            shown = "; ".join(f"client {a.client}: {a.error}" for a in failed[:3])
            failure = RunDiverged if all(a.diverged for a in failed) else RunFailed
            raise failure(
                f"{where}: only {len(replies) - len(failed)} of {len(replies)} clients gave a usable reply "
                f"(clients.min_reply_fraction={least:g}). {shown}"
            )


def _message_bytes(message: Message, sizes: dict[int, int]) -> int:
    total = 0
    for key, record in message.content.items():
        if id(record) not in sizes:
            sizes[id(record)] = payload_bytes(RecordDict({key: record}))
        total += sizes[id(record)]
    return total
