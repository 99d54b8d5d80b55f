"""A ServerApp and a ClientApp as a Flower user writes them, and what two of their runs must agree on."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result, Strategy

from fedimb.engine.inline import InlineGrid

NODES = 4


def context_of(client: int) -> Context:
    return Context(1, client + 1, {"partition-id": client, "num-partitions": NODES}, RecordDict(), {})


def stock_app(
    names: tuple[str, str] = ("arrays", "metrics"), weight: str = "num-examples", broken: int = -1
) -> ClientApp:
    """A user's ClientApp: float32 weights and an int64 counter, different on every client; ``broken`` raises."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site = int(context.node_config["partition-id"])
        if site == broken:
            raise ValueError("no disk")
        given = message.content.array_records["arrays"]
        rate = float(message.content.config_records["config"].get("rate", 0.5))
        target = np.random.default_rng(site).normal(size=(3, 2)).astype(np.float32)
        w = given["w"].numpy()
        w = w + np.float32(rate) * (target - w)
        seen = message.content.config_records["config"]["server-round"]
        metrics = MetricRecord(
            {weight: 10 + site, "train_loss": float(np.abs(target - w).mean()), "round": float(seen)}
        )
        arrays = ArrayRecord({"w": Array(w), "b": given["b"]})
        return Message(RecordDict({names[0]: arrays, names[1]: metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        site = int(context.node_config["partition-id"])
        w = message.content.array_records["arrays"]["w"].numpy()
        metrics = MetricRecord({weight: 10 + site, "eval_loss": float(np.square(w).sum()) + site})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    @app.query("size")
    def size(message: Message, context: Context) -> Message:
        context.state["asked"] = ConfigRecord({"times": int(message.content.config_records["ask"]["times"])})
        rows = 10 + int(context.node_config["partition-id"])
        return Message(RecordDict({"x.size": MetricRecord({"rows": rows})}), reply_to=message)

    return app


def initial() -> ArrayRecord:
    return ArrayRecord({"w": Array(np.zeros((3, 2), np.float32)), "b": Array(np.ones(2))})


def server_metrics(number: int, arrays: ArrayRecord) -> MetricRecord | None:
    return MetricRecord({"norm": float(np.linalg.norm(arrays["w"].numpy())), "number": number}) if number != 2 else None


def run_app(strategy: Strategy, app: ClientApp | None = None, grid: Grid | None = None, **options: Any) -> Result:
    """Run a strategy inside a real ServerApp and return its Result."""
    kept: list[Result] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        kept.append(strategy.start(grid, initial(), **{"num_rounds": 3, "evaluate_fn": server_metrics} | options))

    server(grid or InlineGrid(app or stock_app(), NODES, context_of), context_of(0))
    return kept[0]


def plain(record: dict[int, MetricRecord]) -> dict[int, dict[str, Any]]:
    return {number: dict(metrics) for number, metrics in record.items()}


def same(ours: Result, flowers: Result, near: float = 0.0) -> None:
    """Bit-equal arrays and equal metrics, key by key; or ``near`` in absolute value."""
    assert list(ours.arrays) == list(flowers.arrays)
    for name in flowers.arrays:
        mine, theirs = ours.arrays[name].numpy(), flowers.arrays[name].numpy()
        assert np.allclose(mine, theirs, rtol=0, atol=near)
        assert mine.dtype == (initial()[name].numpy().dtype if near else theirs.dtype)
    for field in ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp"):
        mine, theirs = plain(getattr(ours, field)), plain(getattr(flowers, field))
        assert {k: list(v) for k, v in mine.items()} == {k: list(v) for k, v in theirs.items()}
        for number, metrics in theirs.items():
            assert mine[number] == (pytest.approx(metrics, rel=0, abs=10 * near) if near else metrics), field
