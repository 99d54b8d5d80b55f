"""ServerOptimizer: a federated optimiser as one function of named arrays.

```python
class ServerSGD(ServerOptimizer):
    def __init__(self, lr: float = 1.0) -> None:
        super().__init__()
        self.lr = lr

    def aggregate(self, previous, mean, clients, state):
        return {name: previous[name] + self.lr * update for name, update in mean.items()}
```

Clients are summed one by one where they are trained, so the server holds one sum per mean for any number of clients. It
is also a Flower `Strategy` and works in a plain ServerApp with clients that handle ``train``.
"""

import contextlib
import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedimb.by_reference import view
from fedimb.contracts import platform as names
from fedimb.contracts.optimizer import CLIENT, CLIENTS, MEANS, SINCE, SQUARED_NORM
from fedimb.errors import FedimbError, RunFailed, error_from
from fedimb.plain import StateDict
from fedimb.records import array_record, to_numpy
from fedimb.sums import ExactSum, sum_of

Arrays = dict[str, np.ndarray]
REAL = "biuf"
"""NumPy's kinds of numbers that a model's weights may be converted from."""


class ClientReply(Protocol):
    """One client's reply, as passed to a hook: the client's id, and the records ``x.*`` that it sent."""

    @property
    def client(self) -> int:
        """Stable id."""
        ...

    @property
    def content(self) -> RecordDict:
        """The records ``x.*`` that the client sent."""
        ...


class Clients(dict[str, np.ndarray]):
    """A round's clients as columns, sorted by client id: ``clients["num-examples"]`` is [K] float64.

    Columns: ``client`` (stable ids), ``num-examples`` and the names in `ServerOptimizer.scalars`.

    Args:
        columns: by name, each [K].
        means: the additional means that `ServerOptimizer.weights` names, as updates by parameter name, float64.
    """

    def __init__(self, columns: Mapping[str, np.ndarray], means: Mapping[str, Arrays] | None = None) -> None:
        super().__init__(columns)
        self.means = dict(means or {})


class ServerOptimizer(FedAvg):
    """Base class of server optimisers. Override `aggregate`, and other methods as needed.

    Attributes:
        scalars: metrics of the clients' replies that the method reads, such as ``steps``; or ``squared_norm`` of the
            update, which is computed from the weights that a client sent. Other metrics are not collected.
        state: persistent state: the method fills it in `aggregate`. Numbers, strings, arrays, tensors, and lists and
            dicts of these, as in torch.optim.
        since: the round in which the optimiser started; clients receive it with every train message.
        flags: flags for the registry: the optimiser is linear, and the scalars it reads.
        transient: attributes that are set in every round and need not be in a checkpoint.
    """

    scalars: ClassVar[tuple[str, ...]] = ()
    flags: ClassVar[dict[str, Any]] = {"linear": True}
    transient: ClassVar[tuple[str, ...]] = ("_previous",)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.flags = {**cls.flags, "client_scalars": cls.scalars}

    def __init__(self) -> None:
        super().__init__(fraction_train=1.0, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.state: StateDict = {}
        self.since = 0
        self._previous: Arrays | None = None  # weights sent in the current round

    def aggregate(
        self,
        previous: Mapping[str, np.ndarray],
        mean: Mapping[str, np.ndarray],
        clients: Clients,
        state: StateDict,
    ) -> Mapping[str, np.ndarray]:
        """One step: the new weights.

        Args:
            previous: the weights the clients received, by parameter name, in the model's dtypes; read-only.
            mean: the weighted mean of the clients' updates (trained minus received), float64.
            clients: their scalars.
            state: `state`.
        """
        raise NotImplementedError(f"{type(self).__name__} must override aggregate(previous, mean, clients, state)")

    def weights(self, client: Mapping[str, float]) -> dict[str, float]:
        """One client's weight in ``mean``, and in additional means under names that the method chooses.

        Called where clients are summed, possibly in another process: it may use settings, but not `state`.

        Args:
            client: its id, ``client``, its ``num-examples`` (1 under ``aggregation_weight=uniform``) and `scalars`.

        Returns:
            finite numbers of at least 0, among them ``mean``; 0 leaves the client out of that mean.
        """
        return {"mean": client[names.WEIGHT]}

    def largest_weights(self, most: float) -> dict[str, float]:
        """The largest weight that `weights` can give in each mean, for a client with at most ``most`` num-examples.

        Sums are exact for weights up to these (`fedimb.sums`); a client with a larger one is not usable. A mean that is
        not named takes weights up to 2**20. Called at the server when a round's messages have been made.
        """
        return {"mean": most} if type(self).weights is ServerOptimizer.weights else {}

    def checked_weights(self, client: Mapping[str, float]) -> dict[str, float]:
        """`weights`, checked.

        Raises:
            RunFailed: it raised, or returned something else than a finite number >= 0 by mean; names the class.
        """
        where = f"aggregator {type(self).__name__}: weights()"
        with _reported(where):
            given: Any = self.weights(MappingProxyType(client))
        if not isinstance(given, Mapping):
            raise RunFailed(
                f"{where} must return a dict of numbers by mean, such as {{'mean': 1.0}}, and returned a "
                f"{type(given).__name__}"
            )
        if "mean" not in given:
            raise RunFailed(
                f"{where} must name 'mean' for every client; it names {', '.join(map(str, given)) or 'nothing'}"
            )
        for name, weight in given.items():
            if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= float(weight) < math.inf:
                raise RunFailed(
                    f"{where} returned {name!r}: {weight!r} for a client with {dict(client)}; return a finite number "
                    "of at least 0"
                )
        return {str(name): float(weight) for name, weight in given.items()}

    def before_aggregation(self, server_round: int, replies: Sequence[ClientReply]) -> None:
        """Hook that receives the records ``x.*`` of the usable replies, sorted by client id, before aggregation."""

    def state_dict(self) -> StateDict:
        """What a checkpoint must hold, by attribute name; references, as in torch.optim."""
        return {"state": self.state, "since": self.since}

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`, onto an optimiser built with the same settings."""
        self.state, self.since = dict(state["state"]), int(state["since"])

    def without_state(self) -> "ServerOptimizer":
        """A copy with the settings only, which is sent to the processes that sum clients."""
        bare = copy.copy(self)
        bare.state, bare._previous = {}, None
        return bare

    def read(self, metrics: Mapping[str, Any], received: ArrayRecord, trained: ArrayRecord) -> dict[str, float]:
        """One client's scalars.

        Raises:
            FedimbError: one of them is missing or not finite, or the weights are not those of the model.
        """
        found: dict[str, float] = {}
        for name in (names.WEIGHT, *self.scalars):
            value = _squared_norm(received, trained) if name == SQUARED_NORM else metrics.get(name, math.nan)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise FedimbError(
                    f"the reply's metric '{name}' is {'missing' if name not in metrics else value}, and aggregator "
                    f"{type(self).__name__} reads it; the client must send a finite number"
                )
            found[name] = float(value)
        return found

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """FedAvg's messages; the sent weights are kept until the replies arrive."""
        self.since = self.since or server_round
        config[SINCE] = self.since
        self._previous = {name: view(array) for name, array in arrays.items()}
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Convert replies, or one reply merged by lanes, into the arguments of `aggregate`.

        Raises:
            FedimbError: a reply lacks a scalar that the method reads.
            RunFailed: `aggregate` raised, or its result is not a real array of the same shape for each name.
        """
        replies = sorted((r for r in replies if not r.has_error()), key=lambda r: r.metadata.src_node_id)
        previous, self._previous = self._previous, None
        if not replies or previous is None:
            return None, None
        if CLIENTS in replies[0].content:
            content, metrics = replies[0].content, replies[0].content.metric_records[names.METRICS]
        else:
            content = self._merged(previous, replies)
            # Flower's own, which also checks that every reply holds the same names.
            _, averaged = super().aggregate_train(server_round, replies)
            metrics = averaged or MetricRecord()
        means = {
            key.removeprefix(f"{MEANS}."): {k: view(a) - previous[k] for k, a in record.items()}
            for key, record in content.array_records.items()
            if key.startswith(MEANS)
        }
        mean = {k: view(a) - previous[k] for k, a in content.array_records[names.ARRAYS].items()}
        clients = Clients(to_numpy(content.array_records[CLIENTS]), means)
        where = f"aggregator {type(self).__name__}: aggregate()"
        with _reported(f"round {server_round}: {where}"):
            new: Any = self.aggregate(MappingProxyType(previous), mean, clients, self.state)
        if not isinstance(new, Mapping) or new.keys() != previous.keys():
            came = ", ".join(map(str, new)) if isinstance(new, Mapping) else type(new).__name__
            raise RunFailed(
                f"{where} must return a new value for every name in previous ({', '.join(previous)}), and returned "
                f"{came}"
            )
        values = {name: np.asarray(new[name]) for name in new}
        for name, value in values.items():
            if value.dtype.kind not in REAL or value.shape != previous[name].shape:
                raise RunFailed(
                    f"{where} returned {value.dtype} {list(value.shape)} for '{name}': return real numbers of shape "
                    f"{list(previous[name].shape)}, as in previous"
                )
        return array_record({k: np.asarray(v, previous[k].dtype) for k, v in values.items()}), metrics

    def _merged(self, previous: Arrays, replies: Sequence[Message]) -> RecordDict:
        """Single replies, merged as lanes would; in a plain ServerApp a client's id is that of its node."""
        received = array_record(previous)
        columns: dict[str, list[float]] = {CLIENT: []}
        weighed: dict[str, list[tuple[float, Arrays]]] = {}
        for reply in replies:
            content = reply.content
            trained = next(r for key, r in content.array_records.items() if not key.startswith("x."))
            metrics = next(r for key, r in content.metric_records.items() if not key.startswith("x."))
            scalars = self.read(metrics, received, trained)
            own: Mapping[str, Any] = content.config_records.get(names.CLIENT, {})
            client: Any = own.get(CLIENT, reply.metadata.src_node_id)
            for name, value in {CLIENT: client, **scalars}.items():
                columns.setdefault(name, []).append(value)
            arrays = {k: view(a) for k, a in trained.items()}
            for mean, weight in self.checked_weights({CLIENT: client, **scalars}).items():
                weighed.setdefault(mean, []).append((weight, arrays))
        sums = {mean: sum_of(*zip(*pairs, strict=True)) for mean, pairs in weighed.items()}
        return merge_replies(previous, sums, columns)


def merge_replies(
    previous: Mapping[str, np.ndarray],
    sums: Mapping[str, ExactSum],
    columns: Mapping[str, Sequence[float]],
) -> RecordDict:
    """A merged reply: means of the clients' weights in float64, and their scalars.

    Args:
        previous: the value of a mean whose total weight is 0, by name in the model's order.
        sums: by mean, the weighted sum of the clients' arrays.
        columns: scalars by name, one per client.

    Raises:
        OutOfRange: see `fedimb.sums.ExactSum.mean`.
    """
    content = RecordDict()
    for name, total in sums.items():
        values = total.mean() if total.units else dict(previous)
        values = {key: values[key] for key in previous}
        content[names.ARRAYS if name == "mean" else f"{MEANS}.{name}"] = array_record(values)
    # Flower's node ids need all 64 bits, so the dtype of ids is left to NumPy.
    kinds = {name: None if name == CLIENT else np.float64 for name in columns}
    content[CLIENTS] = array_record({name: np.array(values, kinds[name]) for name, values in columns.items()})
    return content


@contextlib.contextmanager
def _reported(where: str) -> Iterator[None]:
    """Report what a method's own code raises in one line with the place; the traceback stays with the error."""
    try:
        yield
    except FedimbError:
        raise
    except Exception as error:  # the code of whoever wrote the method
        text = f"{where} failed: {type(error).__name__}: {' '.join(str(error).split())}"
        if "read-only" in str(error) or "mappingproxy" in str(error):  # NumPy's and Python's words for it
            text += "; what it receives is read-only: compute new arrays instead of writing into these"
        raise error_from(RunFailed, text, error) from error


def squared_norm(arrays: Mapping[str, np.ndarray]) -> float:
    """The squared L2 norm over all arrays."""
    return math.fsum(float(np.sum(np.square(value, dtype=np.float64))) for value in arrays.values())


def _squared_norm(received: ArrayRecord, trained: ArrayRecord) -> float:
    before, after = ({k: view(a) for k, a in record.items()} for record in (received, trained))
    if {k: v.shape for k, v in before.items()} != {k: v.shape for k, v in after.items()}:
        raise FedimbError(
            "the reply's weights do not match the model: do all parties use the same version and configuration?"
        )
    return squared_norm({k: np.subtract(after[k], before[k], dtype=np.float64) for k in before})
