"""What the server's own labelled rows (D_0) are worth without generating anything: FedSSG's controls.

Generated samples have to do better than these, which use the same rows: trained on alone (``only``: no
federation), as FedAvg's start (``init``: FedSSG's "global pretraining initialisation", arXiv 2604.26324), as one more
client (``client``), given to every client (``share``: Zhao et al., "Federated Learning with Non-IID Data", 2018), or to
retrain the head afterwards (``head``). ``ccvr`` retrains the head with no such rows, on virtual features from the
clients' class Gaussians (Luo et al., NeurIPS 2021; `fedimb.generation.ccvr`).

Post-hoc corrections get the counts of what the head was trained on (D_0 for ``only`` and ``head``, even counts for
``ccvr``; with ``client`` and ``share`` D_0's counts are added to the clients'). The server's update of ``client`` is
plain local training, without the aggregator's local terms, and leaves buffers (BatchNorm) to the clients.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedimb.contracts import platform as names
from fedimb.contracts.public import GAUSSIANS, GAUSSIANS_OF, ROWS, SHARE, PublicSettings
from fedimb.engine.lanes import WEIGHT
from fedimb.errors import ConfigError
from fedimb.generation.ccvr import HEAD_BATCH, ClassGaussians, pool, retrain_head, virtual_features
from fedimb.models.base import buffers_of, parameters_of
from fedimb.records import Arrays, array_record, arrays_of, to_numpy
from fedimb.registry import register
from fedimb.seeds import Stream, torch_generator
from fedimb.serverapp.aggregator import chain
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Replace, Reply, ServerWork
from fedimb.strategies.base import Method, Program

_KEPT = "weights/"


@register(
    "strategy",
    "public",
    reveals_counts=True,
    when={("use", "only"): {"trains_no_client": "use=only", "sets_prior": True}},
    read_with={
        "epochs": ("use", ("only", "init")),
        "local_epochs": ("use", ("client",)),
        "weight": ("use", ("client",)),
        "steps": ("use", ("share",)),
        "head_epochs": ("use", ("head", "ccvr")),
        "head_lr": ("use", ("head", "ccvr")),
        "per_class": ("use", ("ccvr",)),
        "nonnegative": ("use", ("ccvr",)),
        "min_count": ("use", ("ccvr",)),
    },
)
class Public(Method):
    """What the server's own labelled rows are worth without generating anything: FedSSG's controls.

    Args:
        inner: the aggregator or method to train.
        settings: a `PublicSettings`; or give its fields by name: ``Public(FedAvg(), use="share")``.

    Raises:
        ConfigError: a value out of range, or a use that does not fit the inner method.
    """

    transient = ("_sent",)  # passed from configure_train to aggregate_train within one round

    def __init__(self, inner: Strategy, settings: PublicSettings | None = None, **fields: object) -> None:
        super().__init__(inner)
        self.settings = PublicSettings.of(settings, fields)
        if self.settings.use == "only" and isinstance(inner, Method):
            raise ConfigError("strategy.public.use=only trains no client, so another method has no effect: remove it")
        if self.settings.use == "client" and getattr(chain(inner)[-1], "reads", None):
            raise ConfigError(
                "strategy.public.use=client: this aggregator reads records that only clients send; use e.g. fedavg"
            )
        self._server: Server | None = None
        self._sent: Message | None = None

    def check_server(self, server: Server) -> None:
        """Refuse a server without the rows that ``use`` needs, or a model whose head cannot be retrained."""
        if self.settings.use != "ccvr":
            server.public()
        if self.settings.use in ("head", "ccvr"):
            _refuse_buffers(server)

    def program(self, run: RunContext) -> Program:
        """Before, around or after the inner program, as ``use`` says."""
        if run.server is None:
            raise ConfigError(
                "strategy=public needs a server that trains: run it with fedimb, not in a plain ServerApp"
            )
        self._server = server = run.server
        if self.settings.use == "ccvr":
            yield from self._calibrated(run, server)
            return
        rows = server.public()
        counts = np.bincount(rows.y.numpy(), minlength=run.n_classes).astype(np.float64)
        if self.settings.use in ("only", "init"):
            made = yield ServerWork("public_pretrain", lambda: self._pretrained(server))
            run.initial = arrays_of(made, "weights")
        if self.settings.use == "only":
            run.trained_on(counts)
            yield Replace({name: run.initial[name] for name in parameters_of(server.model())})
            return
        if self.settings.use == "share":
            content = {"x": rows.x.numpy(), "y": rows.y.numpy()}
            holders = yield Query(SHARE, RecordDict({ROWS: array_record(content)}))
            if run.counts is not None:
                run.trained_on(run.counts + len(holders) * counts)
        if self.settings.use == "client" and run.counts is not None:
            weight = self.settings.weight
            run.trained_on(run.counts + (1.0 if weight is None else weight / counts.sum()) * counts)
        yield from self.inner_program(run)
        if self.settings.use == "head":
            made = yield ServerWork("public_head", lambda: self._head_on_rows(run, server))
            run.trained_on(counts)
            yield Replace(arrays_of(made, "weights"))

    def _calibrated(self, run: RunContext, server: Server) -> Program:
        yield from self.inner_program(run)
        replies = yield Query(GAUSSIANS_OF, model="global")
        made = yield ServerWork("public_ccvr", lambda: self._head_on_gaussians(run, server, replies))
        run.trained_on(np.ones(run.n_classes))
        yield Replace(arrays_of(made, "weights"))

    def _pretrained(self, server: Server) -> RecordDict:
        rows = server.public()
        return RecordDict({"weights": array_record(server.train(server.model(), rows.x, rows.y, self.settings.epochs))})

    def _head_on_rows(self, run: RunContext, server: Server) -> RecordDict:
        rows, weights = server.public(), self._trained(server)
        features = server.outputs(server.model(weights), rows.x)[0].cpu()
        return self._with_head(run, server, weights, features, rows.y)

    def _head_on_gaussians(self, run: RunContext, server: Server, replies: list[Reply]) -> RecordDict:
        found = [arrays_of(reply.content, GAUSSIANS) for reply in replies]
        parts = [ClassGaussians(*(torch.from_numpy(one[k]) for k in ("counts", "mean", "covariance"))) for one in found]
        generator = torch_generator(run.seed, Stream.METHOD, 2)
        features, classes = virtual_features(pool(parts), self.settings.per_class, generator, self.settings.nonnegative)
        return self._with_head(run, server, self._trained(server), features, classes)

    def _with_head(
        self, run: RunContext, server: Server, weights: Arrays, features: torch.Tensor, y: torch.Tensor
    ) -> RecordDict:
        """All weights, with the head retrained."""
        epochs, lr = self.settings.head_epochs, self.settings.head_lr
        weight = torch.from_numpy(weights["head.weight"])
        bias = torch.from_numpy(weights["head.bias"])
        generator = torch_generator(run.seed, Stream.METHOD, 3)
        weight, bias = retrain_head(weight, bias, features, y, generator, epochs=epochs, lr=lr)
        server.count_steps(epochs * math.ceil(len(y) / HEAD_BATCH))
        head = {"head.weight": weight.numpy(), "head.bias": bias.numpy()}
        return RecordDict({"weights": array_record(weights | head)})

    def _trained(self, server: Server) -> Arrays:
        """The global model's parameters as last aggregated, or its initial ones if no round had a reply."""
        start = parameters_of(server.model())
        return {name: np.asarray(self.memory.get(_KEPT + name, value), value.dtype) for name, value in start.items()}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Flower's hook: the server's own update starts from the same weights."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self._sent = messages[0] if messages else None
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Flower's hook: adds the server's own reply if ``use`` is ``client``.

        A method around this one may train before it lets this program begin; the server has no part in these rounds.
        """
        shown = list(replies)
        if self.settings.use == "client" and shown and self._server is not None:
            shown.append(self._own(server_round, shown[0], self._server))
        merged, metrics = super().aggregate_train(server_round, shown)
        if self.settings.use in ("head", "ccvr") and merged is not None:
            self.memory |= {_KEPT + name: value for name, value in to_numpy(merged).items()}
        return merged, metrics

    def _own(self, server_round: int, like: Message, server: Server) -> Message:
        sent = self._sent
        assert sent is not None, "aggregate_train before configure_train"
        start = to_numpy(sent.content.array_records[names.ARRAYS])
        rows = server.public()
        model = server.model(start)
        trained = server.train(model, rows.x, rows.y, self.settings.local_epochs, purpose=server_round)
        # What is measured at clients is not measured here: NaN is left out of the means.
        metrics: dict[str, float] = dict.fromkeys(like.content.metric_records[names.METRICS], math.nan)
        metrics[WEIGHT] = float(len(rows.y)) if self.settings.weight is None else self.settings.weight
        content = RecordDict({names.ARRAYS: array_record({name: trained[name] for name in start})})
        content[names.METRICS] = MetricRecord(metrics)  # type: ignore[arg-type]
        return Message(content, reply_to=sent)


def _refuse_buffers(server: Server) -> None:
    model = server.model()
    if buffers := buffers_of(model):
        raise ConfigError(
            f"strategy.public: the head is retrained on features at the server, which lacks the model's buffers "
            f"({next(iter(buffers))}): use a model without BatchNorm (norm=group)"
        )
    if missing := [name for name in ("head.weight", "head.bias") if name not in parameters_of(model)]:
        raise ConfigError(
            f"strategy.public: the model has no trainable {missing[0]}, so its head cannot be retrained; "
            "use another model"
        )
