"""A method for tests in which everything a resume could get wrong shows in the final weights.

Clients count their trainings in their state and train with a step size that depends on it; the server keeps a sum
of what they report in its memory; queries and server work are drawn at random once and must be replayed.
"""

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedimb.clients.base import Client
from fedimb.contracts.base import Contract, Record
from fedimb.records import array_record
from fedimb.registry import register
from fedimb.serverapp.steps import Query, Reset, Rounds, ServerWork
from fedimb.strategies.base import Method

COUNTER = Record("x.counter", "arrays", "trainings so far", "operational", dtypes=("float64",), max_bytes=64)
CONTRACT = Contract("remember", train=(COUNTER,), queries={"remember_ask": (COUNTER,)})
register("contract", "remember")(CONTRACT)


@register("strategy", "remember")
class Remember(Method):
    def __init__(self, inner, strength: float = 0.1):
        super().__init__(inner)
        self.strength = strength
        self.memory["reported"] = 0.0

    def program(self, run):
        first = yield Query("remember_ask")
        assert [r.client for r in first] == sorted(r.client for r in first)
        yield Rounds(run.rounds // 2)
        drawn = yield ServerWork("draw", lambda: RecordDict({"n": ConfigRecord({"seconds": 0.5})}))
        assert drawn["n"]["seconds"] == 0.5
        yield Query("remember_ask", RecordDict({"why": ConfigRecord({"again": True})}), model="global")
        yield Rounds(1)
        yield Reset()
        yield Rounds(run.rounds - run.rounds // 2 - 1)

    def on_train_replies(self, server_round, replies):
        self.memory["reported"] += sum(float(r.content["x.counter"]["count"].numpy()[0]) for r in replies)
        return {"data/reported": self.memory["reported"]}


@register("aggregator", "remembers", linear=True)
class Remembers(FedAvg):
    """Keeps the number of every round in a list, which it writes to ``seen.txt`` in the working folder."""

    def __init__(self) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.seen: list[float] = []

    def state_dict(self):
        return {"seen": self.seen}

    def aggregate_train(self, server_round, replies):
        self.seen.append(float(server_round))
        with open("seen.txt", "a") as file:
            print(self.seen, file=file)
        return super().aggregate_train(server_round, replies)


@register("client", "remember")
class RememberClient(Client):
    def __init__(self, strength: float = 0.1):
        self.strength = strength

    def _count(self, context):
        return context.state["seen"]["count"].numpy() if "seen" in context.state else np.zeros(1)

    def query(self, name, content, context):
        count = self._count(context) + 10.0
        context.state["seen"] = array_record({"count": count})
        return RecordDict({"x.counter": array_record({"count": count})})

    def train_spec(self, spec, context):
        return spec.change(lr=spec.lr / (1 + self.strength * float(self._count(context)[0])))

    def after_training(self, result, context):
        count = self._count(context) + 1.0
        context.state["seen"] = array_record({"count": count})
        return RecordDict({"x.counter": array_record({"count": count})})
