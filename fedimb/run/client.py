"""The client side of a run: one resident model, one answer per message. The same code in simulation and at a node."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from torch import Tensor

from fedimb import registry
from fedimb.config.schema import RunConfig
from fedimb.config.validate import GIVEN
from fedimb.contracts import platform as names
from fedimb.contracts.base import Contract
from fedimb.data.views import SETTABLE, ClientData
from fedimb.evaluation.confusion import confusion_of
from fedimb.models.base import Classifier, buffers_of, load_into, parameters_of
from fedimb.records import array_record, to_numpy
from fedimb.run import priors
from fedimb.run.context import ClientContext
from fedimb.run.parts import augmentation_makers, build_model, contracts_of, part_maker, resolved_weight, seeded
from fedimb.run.state import LOST, StateLost, StateStore, fingerprint
from fedimb.seeds import Stream, seed_int
from fedimb.training.local import LocalResult, forward_batched, train_locally
from fedimb.training.spec import TrainSpec

_CACHED_CLIENTS = 512


class ClientRuntime:
    """Answers the messages of one run's clients, one after another, with one model in memory.

    Args:
        config: resolved run configuration.
        data_of: client id -> its data.
        store: where client state lives.
        n_classes, input_shape: what the model is built for.
    """

    def __init__(
        self,
        config: RunConfig,
        data_of: Callable[[int], ClientData],
        store: StateStore,
        n_classes: int,
        input_shape: tuple[int, ...],
    ) -> None:
        self.config, self.store, self.n_classes = config, store, n_classes
        self._data_of = data_of
        self._data: OrderedDict[int, ClientData] = OrderedDict()
        self.model: Classifier = build_model(config, n_classes, input_shape)
        self.contracts = contracts_of(config)
        self._start_loss = bool(registry.flags("aggregator", config.aggregator["name"]).get("needs_start_loss"))
        self._decoded: dict[str, tuple[ArrayRecord, dict[str, Tensor]]] = {}
        # Parts are checked once here and built anew for every message: nothing may live on in them.
        self._make_loss = part_maker("loss", config.loss, GIVEN["loss"])
        self._make_sampler = part_maker("sampler", config.sampler)
        self._make_augmentations = augmentation_makers(config, input_shape)
        self._make_terms = [part_maker("term", term) for term in config.aggregator.get("terms") or []]
        self._make_halves = [
            (contract, registry.maker("client", name, **registry.accepted("client", name, args)))
            for contract, (name, args) in zip(self.contracts[1:], config.strategy.items(), strict=True)
        ]

    def data(self, client: int) -> ClientData:
        """The client's data, kept for the clients used last."""
        if client not in self._data:
            self._data[client] = self._data_of(client)
            if len(self._data) > _CACHED_CLIENTS:
                self._data.popitem(last=False)
        self._data.move_to_end(client)
        return self._data[client]

    def answer(self, message: Message, client: int) -> Message:
        """Handle one ``train`` or ``query.<name>`` message."""
        content = message.content
        step: dict[str, Any] = dict(content.config_records[names.STEP])
        base = int(step["state-base"])
        version = int(step["step"])
        try:
            state = self.store.load(client, base)
        except StateLost as error:
            return Message(Error(code=LOST, reason=str(error)), reply_to=message)
        before = fingerprint(state)
        data = self.data(client)
        for view in SETTABLE:  # a worker that served this client before must not know more than one that did not
            data.set_view(view, None)
        context = ClientContext(
            client=client,
            round=int(step["round"]),
            step=version,
            data=data,
            state=state,
            model=self.model,
            config=self.config,
            counts=content.array_records[names.PRIOR]["counts"].numpy() if names.PRIOR in content else None,
            content=content,
        )
        for key in (names.ARRAYS, names.BUFFERS):
            if key in content:
                load_into(self.model, self._tensors(key, content.array_records[key]))
        category, _, action = message.metadata.message_type.partition(".")
        # Layers such as dropout draw from torch's global generator: seed it for this client only.
        with seeded(seed_int(self.config.seed, Stream.TRAIN, context.round, client)):
            if category == "train":
                reply = self._train(context, evaluate=bool(step.get("evaluate", False)))
            else:
                reply = self._query(action, content, context)
        if fingerprint(state) != before:
            keep = (int(step["state-keep"]), base)
            self.store.save(client, version, state, keep)
            reply[names.STATE] = ConfigRecord({"version": version})
        return Message(reply, reply_to=message)

    def _tensors(self, key: str, record: ArrayRecord) -> dict[str, Tensor]:
        # All clients of a lane receive the same record object: decode it once.
        if key not in self._decoded or self._decoded[key][0] is not record:
            self._decoded[key] = (record, {name: torch.from_numpy(value) for name, value in to_numpy(record).items()})
        return self._decoded[key][1]

    def _halves(self) -> list[tuple[Contract, Any]]:
        return [(contract, make()) for contract, make in self._make_halves]

    def base_spec(self, context: ClientContext) -> TrainSpec:
        """Local training as configured, before any method changes it."""
        local = self.config.local
        original = len(context.data.rows("train"))
        return TrainSpec(
            view="train",
            steps=local.epochs * math.ceil(original / local.batch_size),
            batch_size=local.batch_size,
            optimizer=local.optimizer,
            lr=local.lr,
            momentum=local.momentum,
            weight_decay=local.weight_decay,
            loss=self._make_loss(
                n_classes=self.n_classes,
                prior=self._prior(context),
                local_counts=context.data.counts("train"),
                round=context.round,
                rounds=self.config.rounds,
            ),
            sampler=self._make_sampler(),
            terms=tuple(make() for make in self._make_terms),
            augmentations=tuple(make() for make in self._make_augmentations),
        )

    def _prior(self, context: ClientContext) -> np.ndarray | None:
        if self.config.prior.provenance == "local":
            return context.data.counts(self.config.prior.view)
        return context.counts

    def _train(self, context: ClientContext, evaluate: bool) -> RecordDict:
        started = time.perf_counter()
        reply = RecordDict()
        if evaluate and len(context.data.rows("validation")):
            x, y = context.data.tensors("validation")
            reply[names.CONFUSION] = array_record({"matrix": confusion_of(y, forward_batched(self.model, x)[1])})
        spec, halves = self.base_spec(context), self._halves()
        for _, half in reversed(halves):  # innermost first, so an outer method has the last word
            spec = half.train_spec(spec, context)
        x, y = context.data.tensors(spec.view)
        metrics: dict[str, float] = {}
        if self._start_loss:
            with torch.no_grad():
                metrics["start_loss"] = float(spec.loss(forward_batched(self.model, x)[1], y)) if len(y) else 0.0
        for term in spec.terms:
            term.receive(context.content, context.state)
        generator = context.generator(Stream.TRAIN)
        result = train_locally(self.model, x, y, spec, generator, context.data.primary(spec.view))
        for term in spec.terms:
            term.keep(context.state)
        metrics |= {
            "num-examples": self._weight(context, result),
            "train_loss": result.loss,
            "steps": float(result.steps),
            "examples": float(result.examples),
            "seconds": time.perf_counter() - started,
        }
        reply[names.ARRAYS] = array_record(parameters_of(self.model))
        reply[names.METRICS] = MetricRecord(metrics)  # type: ignore[arg-type]
        if buffers := buffers_of(self.model):
            reply[names.BUFFERS] = array_record(buffers)
        for key, arrays in result.records.items():
            reply[key] = array_record(arrays)
        for _, half in reversed(halves):
            for key, record in half.after_training(result, context).items():
                reply[key] = record
        return reply

    def _weight(self, context: ClientContext, result: LocalResult) -> float:
        match resolved_weight(self.config, self.contracts):
            case "uniform":
                return 1.0 if result.examples else 0.0
            case "original":
                return float(len(context.data.rows("train")))
            case _:  # "view", and "real" until a method adds rows that are not real
                return float(result.examples)

    def _query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        if name in priors.QUERIES:
            return priors.answer(name, content, context)
        for contract, half in self._halves():
            if name in contract.queries:
                answer: RecordDict = half.query(name, content, context)
                return answer
        raise KeyError(f"no method of this run answers query '{name}'")


def client_id(context: Context) -> int:
    """The stable client id of the node a message is handled for."""
    return int(context.node_config["partition-id"])
