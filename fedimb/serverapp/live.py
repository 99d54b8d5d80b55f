"""A training without rounds at clients whose arrivals nobody knows before: sites, or the record of a run at sites.

Which client begins, and which version of the model a reply goes into, follow from the order of arrivals alone
(`fedimb.paces.schedule.Dispatch`). Each reply is judged, written to the journal and only then used, and no message is
sent before all that came earlier is in the journal. So a run that was killed at any point goes on from its checkpoint,
takes the arrivals behind it from the journal, sends every message that is still open again, the same to the byte, and
comes to the weights that the order of arrivals gives.

Within a version, updates are added by the version that they began with, each of these an exact sum: the order within
one buffer changes no bit.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Error, Message, RecordDict

from fedimb.contracts import platform as names
from fedimb.engine.channel import Channel, Received
from fedimb.engine.grid import CLIENT_FAILED
from fedimb.engine.lanes import ClientReply, Instruction, LaneOutcome, LaneSum, Place, Reduce
from fedimb.engine.record_checks import Refusal
from fedimb.errors import RunDiverged, RunFailed
from fedimb.paces.schedule import FAILED, LARGEST_FACTOR, Training, trainings_csv
from fedimb.plain import JsonObject
from fedimb.records import Arrays, arrays_of, note_of, pack, unpack
from fedimb.rundir.arrival_journal import Arrival, ArrivalJournal
from fedimb.rundir.seal import Damaged
from fedimb.serverapp.aggregator import Aggregator, check_complete
from fedimb.serverapp.asynchronous_training import make_version
from fedimb.serverapp.loop import Loop
from fedimb.serverapp.monitor import UNMOVED, unmoved
from fedimb.serverapp.pacing import Pacing
from fedimb.serverapp.pending import Arrived
from fedimb.serverapp.steps import Rounds

log = logging.getLogger("fedimb")


@dataclass(frozen=True)
class Begun:
    """What clients that begin with one version of the model are sent, and how their updates are summed.

    Attributes:
        weights, buffers: of the model.
        reduce: the sums' scales.
        messages: by client id, without the record of the step; empty for versions that no client can begin with any
            more.
    """

    weights: Arrays
    buffers: Arrays
    reduce: Reduce
    messages: dict[int, Message]


class Live:
    """What outlives one step of a training without rounds: the journal, and what is open at a checkpoint.

    Args:
        journal: of the run.
        channel: to the clients.
    """

    def __init__(self, journal: ArrivalJournal, channel: Channel) -> None:
        self.journal, self.channel = journal, channel
        self.saved: tuple[Arrays, JsonObject] = {}, {}
        self._running: LiveRounds | None = None
        self._taken: list[int] = []  # arrivals in each of the last two checkpoints that differ in them

    def run(self, loop: Loop, model: Aggregator, step: Rounds, pacing: Pacing) -> None:
        """Execute a step from the loop's progress."""
        self._running = LiveRounds(self, loop, model, step, pacing)
        self._running.run()
        self._running = None
        self.saved = {}, {}

    def state(self) -> tuple[Arrays, JsonObject]:
        """Arrays and plain values for a checkpoint: the messages that are open, and how many have arrived."""
        arrays, info = self.saved if self._running is None else self._running.state()
        taken = int(info.get("forgets", len(self.journal.arrivals)))
        if not self._taken or self._taken[-1] != taken:
            self._taken = [*self._taken[-1:], taken]
        return arrays, info

    def load(self, arrays: Arrays, info: JsonObject) -> None:
        """Inverse of `state`; the step goes on from it."""
        self.saved = dict(arrays), dict(info)

    def forget(self) -> None:
        """After a checkpoint: remove replies that neither it nor the one before it needs any more."""
        self.journal.forget_before(self._taken[0] if len(self._taken) > 1 else 0)


class LiveRounds:
    """One step of a training without rounds.

    Args:
        live: the journal and the channel.
        loop: whose model and progress change.
        model: that is trained.
        step: of the program.
        pacing: what dispatch follows.
    """

    def __init__(self, live: Live, loop: Loop, model: Aggregator, step: Rounds, pacing: Pacing) -> None:
        self.live, self.loop, self.model, self.step, self.pacing = live, loop, model, step, pacing
        self.first = loop.progress.server_round - loop.progress.round_in_step
        self.dispatch = pacing.dispatch(self.first)
        self.lines = [one for one in live.journal.arrivals if one.first == self.first]
        self.taken = 0
        self.now = 0
        self.open: dict[int, Instruction] = {}  # by the number of the training
        self.unsent: set[int] = set()  # of these, numbers of those that are not in the channel
        self.begun: dict[int, Begun] = {}  # by version
        self.last: dict[int, str] = {}  # why the client's last reply was not usable, or an empty text
        self._base, self._started = 0, time.monotonic_ns()
        self._offset = sum(one.first < self.first for one in live.journal.arrivals)
        clients = [int(client) for client in pacing.rules().clients]
        corrected = pacing.asynchronous.settings.correction != "uniform"
        factors = dict.fromkeys(clients, LARGEST_FACTOR if corrected else 1.0)
        self._limits = loop.exchange.weight_limits(clients, factors)  # whoever arrives: the scale must not depend on it
        self._sums: dict[int, tuple[LaneSum, list[ClientReply]]] = {}  # by the version that they began with
        self._failed: list[ClientReply] = []
        self._aside: deque[Received] = deque()  # in place of replies of clients that are set aside
        self._not_asked: set[int] = set()  # numbers of their trainings

    def run(self) -> None:
        """Make the step's versions, from the loop's progress."""
        loop, done = self.loop, self.loop.progress.round_in_step
        self._rebuild(done)
        self._base = self.lines[-1].ns if self.lines else 0
        for number in range(done + 1, self.step.n + 1):
            weights = self.model.parameters
            metrics = self._version(number)
            if unmoved(weights, self.model.parameters):
                metrics[UNMOVED] = 1.0
            loop.round_done(number)
            loop.checkpointer.after_round(loop, metrics, last=number == self.step.n)
        self.live.channel.close()
        name = "trainings.csv" if not self.first else f"trainings_from_{self.first}.csv"
        trainings = self.dispatch.finished(range(len(self.dispatch.trainings)))
        loop.context.artifact(name, trainings_csv(trainings, self.pacing.asynchronous.discount).encode())

    def _version(self, number: int) -> dict[str, float]:
        """Let clients begin with the newest version, and make the next one, ``number``, of what arrives."""
        started, loop = time.monotonic(), self.loop
        server_round = loop.rounds.next_round()
        self._sums, self._failed = {}, []
        newest = self._new_version(number - 1, server_round)
        before = len(self.dispatch.trainings)
        self.dispatch.next_version()
        self._send(self.dispatch.begin(number - 1, self.now))
        arrivals: list[Training] = []
        while len(arrivals) < self.pacing.buffer and self.dispatch.in_flight:
            training = self._arrival(number)
            arrivals += [training] if training.makes else []
            if len(arrivals) < self.pacing.buffer:
                self._send(self.dispatch.begin(number - 1, self.now))
        self._check_last(server_round)
        asked = [one.client for one in self.dispatch.trainings[before:]]
        metrics = {"data/participants": float(len(asked)), **loop.context.learning_rates(server_round)}
        request = next(iter(newest.messages.values()))
        metrics |= make_version(loop.rounds, self.model, self._arrived(number), request, arrivals, asked)
        metrics["async/version"] = float(number)
        metrics["async/in_flight"] = float(len(self.dispatch.in_flight))
        needed = {self.dispatch.trainings[one].version for one in self.dispatch.in_flight}
        self.begun = {version: replace(one, messages={}) for version, one in self.begun.items() if version in needed}
        return metrics | {"time/round_s": time.monotonic() - started}

    def _new_version(self, version: int, server_round: int) -> Begun:
        """The messages to clients that begin with the newest version: one configuration, whoever begins when."""
        model, sampler = self.model, self.loop.exchange.client_sampler
        nodes = {sampler.node(int(client)): int(client) for client in self.pacing.rules().clients}
        reduce = model.reduction(self._limits, {})
        assert isinstance(reduce, Reduce), "refused by fedimb.config.combinations"
        messages = dict(model.configure(server_round, nodes))
        self.begun[version] = Begun(model.parameters, model.buffers, reduce, messages)
        return self.begun[version]

    def _send(self, trainings: Sequence[Training]) -> None:
        """Make the messages of trainings that begin; they leave when the journal has nothing more to say."""
        loop = self.loop
        for training in trainings:
            instruction = training.client, self.begun[training.version].messages[training.client]
            about: dict[str, Any] = {"evaluate": False, "model": self.step.model, "resets": loop.progress.resets}
            about["version"] = training.version
            loop.exchange.versions.message += 1
            [instruction] = loop.exchange.complete(
                [instruction],
                loop.progress.server_round,
                self.model.common_buffers,
                loop.context.counts_sent,
                **about,
            )
            loop.exchange.begin(instruction)
            self.open[training.number] = instruction
            self.unsent.add(training.number)

    def _arrival(self, number: int) -> Training:
        """Take the next reply, from the journal or from the channel, into version ``number``."""
        where = f"round {self.loop.progress.server_round}"
        if self.taken < len(self.lines):
            line = self.lines[self.taken]
            training = self._training_of(line)
            sent = self.open[training.number][1]
            reply, refused = _unpacked(self.live.journal.reply(line.number), sent)
            outcome, lost = self._judge(training, number, Received(line.client, reply, line.ns, refused), where)
            if bool(lost) != bool(line.failed):
                raise RunFailed(
                    f"{where}: the reply of client {line.client} was {'not ' if line.failed else ''}used when it "
                    "arrived, and now is otherwise: resume with the code that the run was started with"
                )
        else:
            self._leave()
            received = self._aside.popleft() if self._aside else self.live.channel.receive()
            ns = self._base + time.monotonic_ns() - self._started if received.ns is None else received.ns
            training = self.dispatch.training_of(received.client)
            data = _packed(received)
            outcome, lost = self._judge(training, number, received, where)
            own = (training.number, training.client, training.version, max(self.now, ns), lost)
            self.live.journal.append(data, self.first, *own)
            self.lines.append(self.live.journal.arrivals[-1])
            if lost and training.number not in self._not_asked:
                self.live.channel.note(training.client, lost)
        return self._take(training, number, outcome, where)

    def _leave(self) -> None:
        """Send what is open and not sent: all that came before is in the journal.

        A client that is set aside is not asked, and has failed at once.
        """
        exchange = self.loop.exchange
        aside = exchange.left_out.aside(exchange.versions.message + 1) if self.unsent else {}
        for number in sorted(self.unsent):
            client, message = self.open[number]
            if client in aside:
                self._not_asked.add(number)
                error = Error(code=CLIENT_FAILED, reason=aside[client])
                self._aside.append(Received(client, Message(error, reply_to=message)))
            else:
                self.live.channel.send(client, message)
        self.unsent.clear()

    def _judge(self, training: Training, number: int, received: Received, where: str) -> tuple[LaneOutcome, str]:
        """A reply as it is added, and why it cannot be."""
        client, begun = training.client, self.begun[training.version]
        staleness = number - 1 - training.version
        place = Place(str(number), self.dispatch.factor(client), self.pacing.asynchronous.discount(staleness))
        reduce = replace(begun.reduce, places={client: place})
        sent = self.open[training.number][1]
        outcome = self.loop.exchange.read(client, sent, received.reply, reduce, where)
        [reply] = outcome.replies
        reply.refused = reply.refused or received.refused
        return outcome, "" if reply.usable else (reply.error or FAILED)

    def _take(self, training: Training, number: int, outcome: LaneOutcome, where: str) -> Training:
        """Count an arrival that is in the journal, and add its update to the version."""
        line, [reply] = self.lines[self.taken], outcome.replies
        self._count(line)
        _, sent = self.open.pop(training.number)
        self.unsent.discard(training.number)
        self.loop.exchange.settle(sent, reply, where)
        ended = self.dispatch.arrive(training.number, number - 1, line.ns, FAILED if line.failed else "")
        if not reply.usable:
            self._failed.append(reply)
        elif ended.makes:
            total, replies = self._sums.get(training.version, (None, []))
            if total is None:
                total = outcome.total
            else:
                total.add(outcome.total)
            self._sums[training.version] = total, [*replies, reply]
        return ended

    def _count(self, line: Arrival) -> None:
        self.taken += 1
        self.now = line.ns
        self.last[line.client] = line.failed

    def _arrived(self, number: int) -> Arrived:
        """What version ``number`` is made of."""
        pending = self.loop.pending
        for version in sorted(self._sums):
            total, replies = self._sums[version]
            check_complete(self.loop.progress.server_round, total, replies)
            trainings = {r.client: Training(0, r.client, version, 0, 0, makes=number) for r in replies}
            pending.add(LaneOutcome(replies, total), self.begun[version].weights, trainings)
        arrived = pending.take(number)
        arrived.failed = {reply.client: str(reply.error) for reply in self._failed}
        arrived.diverged = [reply.client for reply in self._failed if reply.diverged]
        return arrived

    def _check_last(self, server_round: int) -> None:
        """Check how many clients' last replies are usable; a client that fails at once would be many of all replies.

        Raises:
            RunFailed, RunDiverged: too few.
        """
        failed = [f"client {client}: {why}" for client, why in sorted(self.last.items()) if why]
        good, least = len(self.last) - len(failed), self.loop.exchange.least
        if len(self.last) >= self.pacing.concurrency and good < least * len(self.last):
            failure = RunDiverged if all("diverged" in why for why in failed) else RunFailed
            raise failure(
                f"round {server_round}: only {good} of {len(self.last)} clients' last replies are usable "
                f"(clients.min_reply_fraction={least:g}). {'; '.join(failed[:3])}"
            )

    def _training_of(self, line: Arrival) -> Training:
        """The training that a line of the journal is about.

        Raises:
            Damaged: it is none that is in flight.
        """
        flying = {self.dispatch.trainings[one].client for one in self.dispatch.in_flight}
        training = self.dispatch.training_of(line.client) if line.client in flying else None
        if training is None or (training.number, training.version) != (line.training, line.version):
            raise Damaged(
                f"arrivals.jsonl, line {line.number + 1}: training {line.training} of client {line.client} does not "
                "follow from the arrivals before it: the file is of another run, or of other settings"
            )
        return training

    def _rebuild(self, done: int) -> None:
        """Go through the arrivals of the versions that are made, and take what is open from the checkpoint.

        Raises:
            Damaged: the journal has fewer arrivals than the checkpoint, or other ones.
        """
        if not done:
            return
        arrays, info = self.live.saved
        for number in range(1, done + 1):
            self.dispatch.next_version()
            self.dispatch.begin(number - 1, self.now)
            made = 0
            while made < self.pacing.buffer and self.dispatch.in_flight:
                if self.taken >= len(self.lines):
                    raise Damaged(
                        f"arrivals.jsonl has {len(self.lines)} arrivals, fewer than the checkpoint: put back a copy of "
                        "the file from a backup, or start a new run"
                    )
                line = self.lines[self.taken]
                failed = FAILED if line.failed else ""
                ended = self.dispatch.arrive(self._training_of(line).number, number - 1, line.ns, failed)
                self._count(line)
                made += bool(ended.makes)
                if made < self.pacing.buffer:
                    self.dispatch.begin(number - 1, self.now)
        held = [int(one["training"]) for one in info.get("open", [])]
        if self.taken != info.get("taken") or held != self.dispatch.in_flight:
            raise Damaged(
                "arrivals.jsonl does not fit the checkpoint: put back a copy of the file from a backup, or start a new "
                "run"
            )
        for version in {self.dispatch.trainings[one].version for one in self.dispatch.in_flight}:
            content = unpack(arrays[str(version)].tobytes())
            weights = arrays_of(content, names.ARRAYS)
            buffers = arrays_of(content, names.BUFFERS) if names.BUFFERS in content else {}
            reduce = self.model.reduction(self._limits, {}, (weights, buffers))
            assert isinstance(reduce, Reduce)
            self.begun[version] = Begun(weights, buffers, reduce, {})
            for one in info["open"]:
                if one["version"] == version:
                    own = RecordDict({**content, names.STEP: ConfigRecord(one["step"])})
                    node = self.loop.exchange.client_sampler.node(int(one["client"]))
                    instruction = int(one["client"]), Message(own, node, str(one["type"]))
                    self.open[int(one["training"])] = instruction
        self.unsent = set(self.open)

    def state(self) -> tuple[Arrays, JsonObject]:
        """See `Live.state`. A version's content is kept once; messages that begin with it differ in their step only."""
        arrays: Arrays = {}
        listed = []
        for number in sorted(self.open):
            client, message = self.open[number]
            version = self.dispatch.trainings[number].version
            if str(version) not in arrays:
                content = RecordDict({key: own for key, own in message.content.items() if key != names.STEP})
                arrays[str(version)] = np.frombuffer(pack(content), np.uint8)
            step = dict(message.content.config_records[names.STEP])
            own = {"training": number, "client": client, "version": version, "type": message.metadata.message_type}
            listed.append({**own, "step": step})
        return arrays, {"taken": self.taken, "forgets": self._offset + self.taken, "open": listed}


def _packed(received: Received) -> bytes:
    """A reply as the journal keeps it: its records, or its error, and what in it was refused."""
    reply, refused = received.reply, received.refused
    about: JsonObject = {}
    if reply.has_error():
        about["error"] = [reply.error.code, reply.error.reason or ""]
    if refused is not None:
        about["refused"] = vars(refused)
    return pack(RecordDict() if reply.has_error() else reply.content, json.dumps(about))


def _unpacked(data: bytes, request: Message) -> tuple[Message, Refusal | None]:
    """Inverse of `_packed`."""
    about: JsonObject = json.loads(note_of(data) or "{}")
    refused = Refusal(**about["refused"]) if "refused" in about else None
    if "error" in about:
        code, reason = about["error"]
        return Message(Error(int(code), str(reason)), reply_to=request), refused
    return Message(unpack(data), reply_to=request), refused
