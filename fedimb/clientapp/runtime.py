"""The client side of a run: one resident model, one reply per message. The same code in simulation and at a node."""

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from torch import Tensor

from fedimb.attacks.base import Attack, Known
from fedimb.clientapp import class_prior, explanations, held_out, scores
from fedimb.clientapp.context import ClientContext
from fedimb.clientapp.local_training import LocalTraining, Prepared, set_views, weights_into
from fedimb.clientapp.private_weights import PrivateWeights
from fedimb.clientapp.state import LOST, StateLost, StateStore, fingerprint
from fedimb.config.parts import build_model, contracts_of, device_of, part_maker, seeded
from fedimb.config.site_models import private_rule
from fedimb.config.validate import GIVEN
from fedimb.contracts import platform as names
from fedimb.data.views import SETTABLE, ClientData
from fedimb.models.base import Classifier, Resident, head_arrays
from fedimb.privacy.secrets import SIMULATED, Secrets
from fedimb.records import to_numpy
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, seed_int
from fedimb.training.forward import forward_many
from fedimb.training.stacked import Trained

_CACHED_CLIENTS = 512
log = logging.getLogger("fedimb")


@dataclass
class PendingMessage:
    """A message being handled: what the client sees, and which version of its state it builds on."""

    context: ClientContext
    before: tuple[Any, ...]
    keep: tuple[int, int]


@dataclass
class PrefetchedReply:
    """Training done before its message is handled; ``random`` is the state of torch's generator to continue from."""

    message: Message
    pending: PendingMessage
    prepared: Prepared
    trained: Trained
    random: Tensor


class ClientRuntime:
    """Handles the messages of one run's clients, one after another, with one model in memory.

    Args:
        config: resolved run configuration.
        data_of: function from a client id to its data.
        store: where client state is kept.
        n_classes, input_shape: what the model is built for.
        secrets: source of masks and noise.
    """

    def __init__(
        self,
        config: RunConfig,
        data_of: Callable[[int], ClientData],
        store: StateStore,
        n_classes: int,
        input_shape: tuple[int, ...],
        secrets: Secrets = SIMULATED,
    ) -> None:
        self.config, self.store, self._secrets = config, store, secrets
        self._data_of = data_of
        self._data: OrderedDict[int, ClientData] = OrderedDict()
        self.device = device_of(config.engine)
        self.model: Classifier = build_model(config, n_classes, input_shape).to(self.device)
        self.contracts = contracts_of(config, at_sites=True)
        self._n_classes, self._input_shape = n_classes, input_shape
        attacked = config.attack["name"] != "none"
        self._make_attack = part_maker("attack", config.attack, GIVEN["attack"]) if attacked else None
        self._resident = Resident(self.model, private_rule(config.clients.private))
        self._private_weights = PrivateWeights(self._resident)
        self.training = LocalTraining(
            config, self.contracts, self._resident, n_classes, input_shape, self._private_weights
        )
        self._decoded: dict[str, tuple[ArrayRecord, dict[str, Tensor]]] = {}
        self._prefetched: dict[str, PrefetchedReply] = {}
        self._pending: dict[str, tuple[Message, PendingMessage]] = {}
        self._query_views = {
            query: views
            for _, client_method in self.training.client_methods()
            for query, views in client_method.forwards.items()
        }

    def data(self, client: int) -> ClientData:
        """The client's data, cached for the most recently used clients."""
        if client not in self._data:
            self._data[client] = self._data_of(client)
            self._data[client].device = str(self.device)
            if len(self._data) > _CACHED_CLIENTS:
                self._data.popitem(last=False)
        self._data.move_to_end(client)
        return self._data[client]

    def _on_device(self) -> contextlib.AbstractContextManager[object]:
        """Context in which new tensors are created on the model's device."""
        return self.device if self.device.type != "cpu" else contextlib.nullcontext()

    def handle(self, message: Message, client: int) -> Message:
        """Handle one ``train`` or ``query.<name>`` message."""
        with self._on_device():
            return self._handle(message, client)

    def _handle(self, message: Message, client: int) -> Message:
        done = self._prefetched.pop(message.metadata.message_id, None)
        category, _, action = message.metadata.message_type.partition(".")
        if done is not None and done.message is message:
            pending = done.pending
            weights_into(self.model, done.trained[1])
            with seeded(done.random):
                reply = self.training.reply(done.prepared, done.trained[0])
        else:
            before, ahead = self._pending.pop(message.metadata.message_id, (None, None))
            try:
                pending = ahead if ahead is not None and before is message else self._pend(message, client)
            except StateLost as error:
                return Message(Error(code=LOST, reason=str(error)), reply_to=message)
            self._load(message)
            sent = message.content.array_records.get(names.ARRAYS, ()) if self.config.clients.private else ()
            self._private_weights.load(pending.context.state, sent)
            pending.context.untrained = self._private_weights.never_trained(pending.context.state, sent)
            with seeded(self._seed(pending.context)):
                if category == "train":
                    prepared = self.training.prepare(pending.context, _evaluate(message))
                    reply = self.training.reply(prepared, self.training.train(prepared))
                else:
                    with torch.device("cpu"):  # methods choose rows on the CPU; what they train says where
                        reply = self._query(action, message.content, pending.context)
        context = pending.context
        if fingerprint(context.state) != pending.before:
            self.store.save(client, context.step, context.state, pending.keep)
            reply[names.STATE] = ConfigRecord({"version": context.step})
        return Message(reply, reply_to=message)

    def ahead_clients(self) -> int:
        """How many clients to train at once, so that the weights that wait in memory take at most about 64 MB."""
        return max(1, min(256, 64 * 1024**2 // sum(p.nbytes for p in self.model.parameters())))

    def work_ahead(self, instructions: Sequence[tuple[int, Message]]) -> None:
        """Train the clients of these messages, or pass their rows forward, at once; `handle` then uses the results.

        A client that fails here fails again in `handle`, where it is reported.
        """
        with self._on_device():
            self._work_ahead(instructions)

    def _work_ahead(self, instructions: Sequence[tuple[int, Message]]) -> None:
        self._prefetched, self._pending = {}, {}
        ready = []
        for message, one in self._load_pending(instructions):
            if message.metadata.message_type.partition(".")[0] != "train":
                self._pending[message.metadata.message_id] = (message, one)
                continue
            self._load(message)
            with seeded(self._seed(one.context)):
                try:
                    prepared = self.training.prepare(one.context, _evaluate(message))
                except Exception:  # not lost: `handle` raises it again
                    continue
                ready.append((message, one, prepared, torch.default_generator.get_state()))
        if not ready:
            return
        self._load(ready[0][0])  # a method may have changed the resident model
        try:
            trained = self.training.train_together([prepared for _, _, prepared, _ in ready])
        except Exception as error:  # e.g. from one client's sampler: `handle` trains each alone and reports the client
            log.warning("round %d: stacked training failed (%s); trained one by one", ready[0][1].context.round, error)
            return
        for i, result in trained.items():
            message, one, prepared, random = ready[i]
            self._prefetched[message.metadata.message_id] = PrefetchedReply(message, one, prepared, result, random)

    def _load_pending(self, instructions: Sequence[tuple[int, Message]]) -> list[tuple[Message, PendingMessage]]:
        """Load the messages that carry the same weights as the first, and run the forward passes their replies need.

        Queries are included only if their replies need a forward pass.
        """
        opened = []
        for client, message in instructions:
            content = message.content
            alike = names.ARRAYS in content and content[names.ARRAYS] is instructions[0][1].content.get(names.ARRAYS)
            if alike and (message.metadata.message_type.partition(".")[0] == "train" or self._views(message)):
                try:
                    opened.append((message, self._pend(message, client)))
                except StateLost:  # `handle` reports it
                    continue
        if opened:
            self._load(opened[0][0])
        asked = [(one.context, view) for message, one in opened for view in self._views(message)]
        inputs = [context.data.tensors(view)[0] for context, view in asked]
        for (context, view), outputs in zip(asked, forward_many(self.model, inputs), strict=True):
            context.outputs[view] = context.data.rows(view), outputs
        return opened

    def _views(self, message: Message) -> tuple[str, ...]:
        """The views whose rows go through the model for this message's reply."""
        category, _, action = message.metadata.message_type.partition(".")
        if category == "train":
            return ("validation",) if _evaluate(message) else ()
        return self._query_views.get(action, ())

    def _pend(self, message: Message, client: int) -> PendingMessage:
        """Load the client's state and data."""
        content = message.content
        step: dict[str, Any] = dict(content[names.STEP])  # content.config_records builds a dict at every access
        base = int(step["state-base"])
        state = self.store.load(client, base)
        data = self.data(client)
        for view in SETTABLE:  # a worker that served this client before must know no more than one that did not
            data.set_view(view, None)
        context = ClientContext(
            client=client,
            round=int(step["round"]),
            step=int(step["step"]),
            data=data,
            state=state,
            model=self.model,
            config=self.config,
            counts=cast(ArrayRecord, content[names.PRIOR])["counts"].numpy() if names.PRIOR in content else None,
            content=content,
            training=self.training.base_spec,
            secrets=self._secrets,
            attack=self._attack_in(step),
        )
        return PendingMessage(context, fingerprint(state), (int(step["state-keep"]), base))

    def _attack_in(self, step: Mapping[str, Any]) -> Attack | None:
        """What the client does in this message, if the configuration has an attack and the client is an attacker."""
        if self._make_attack is None or names.COMMON not in step:
            return None
        rare = tuple(int(c) for c in step[names.RARE])
        known = Known(self._n_classes, rare, int(step[names.COMMON]), self._input_shape, head_arrays(self.model))
        attack: Attack = self._make_attack(known=known)
        return attack

    def _load(self, message: Message) -> None:
        for key in (names.ARRAYS, names.BUFFERS):
            if key in message.content:
                self._resident.load(self._tensors(key, cast(ArrayRecord, message.content[key])))

    def _seed(self, context: ClientContext) -> int:
        """Seed for torch's global generator, which layers such as dropout draw from, for this client only."""
        return seed_int(self.config.seed, Stream.TRAIN, context.round, context.client)

    def _tensors(self, key: str, record: ArrayRecord) -> dict[str, Tensor]:
        # All clients of a lane receive the same record object: decode it once.
        if key not in self._decoded or self._decoded[key][0] is not record:
            self._decoded[key] = (record, {n: torch.from_numpy(v).to(self.device) for n, v in to_numpy(record).items()})
        return self._decoded[key][1]

    def _query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        client_methods = self.training.client_methods()
        set_views(client_methods, context)
        for contract, client_method in client_methods:
            if name in contract.queries:
                reply: RecordDict = client_method.query(name, content, context)
                return reply
        if name in class_prior.QUERIES:
            return class_prior.answer_query(name, content, context)
        if name in scores.QUERIES:
            return scores.answer_query(name, content, context)
        if name in held_out.QUERIES:
            return held_out.answer_query(name, content, context)
        if name in explanations.QUERIES:
            return explanations.answer_query(name, content, context, self.store.folder(context.client))
        raise KeyError(f"no method of this run answers query '{name}'")


def _evaluate(message: Message) -> bool:
    """Whether the client should score the model it received."""
    return bool(cast(ConfigRecord, message.content[names.STEP]).get("evaluate", False))
