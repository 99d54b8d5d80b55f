"""A method in a plain ServerApp: what Flower's own strategy gives, plus queries, over stock Flower clients."""

import logging
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from stock_flower import NODES, context_of, initial, run_app, same, stock_app

from fedimb.engine.inline import InlineGrid
from fedimb.errors import ConfigError, RunFailed, RunWaiting
from fedimb.serverapp.steps import Query, Reset, Rounds, Wait
from fedimb.strategies.base import Method
from fedimb.strategies.plain import Plain

PAGE = Path(__file__).parents[2] / "docs" / "plain-flower.md"


class Sized(Method):
    """Asks for sizes, trains, and tells what it saw."""

    def program(self, run):
        replies = yield Query("size", RecordDict({"ask": ConfigRecord({"times": 1})}))
        self.memory["clients"] = [reply.client for reply in replies]
        self.memory["rows"] = sum(reply.content["x.size"]["rows"] for reply in replies)
        yield Rounds(run.rounds)

    def on_train_replies(self, server_round, replies):
        return {"sized/replies": float(len(replies))}


def test_plain_equals_flowers_own_fedavg():
    same(run_app(Plain(inner=FedAvg())), run_app(FedAvg()))


def test_configurations_reach_the_clients_as_in_flower():
    options = {
        "train_config": ConfigRecord({"rate": 0.125}),
        "evaluate_config": ConfigRecord({"any": 1}),
        "num_rounds": 2,
    }
    slow = run_app(Plain(inner=FedAvg()), **options)
    same(slow, run_app(FedAvg(), **options))
    other = run_app(Plain(inner=FedAvg()), num_rounds=2)
    assert not np.array_equal(slow.arrays["w"].numpy(), other.arrays["w"].numpy())


def test_adaptive_strategy_keeps_its_moments():
    """Flower goes on in float64 after the first round; here the model keeps its own dtype, hence the difference."""
    same(run_app(Plain(inner=FedAdam(eta=0.1))), run_app(FedAdam(eta=0.1)), near=1e-6)


def test_no_federated_evaluation_when_the_strategy_wants_none():
    ours = run_app(Plain(inner=FedAvg(fraction_evaluate=0.0)))
    assert ours.evaluate_metrics_clientapp == {}
    same(ours, run_app(FedAvg(fraction_evaluate=0.0)))


def test_any_record_keys_as_in_flower():
    app = stock_app(names=("weights", "numbers"))
    same(run_app(Plain(inner=FedAvg()), app), run_app(FedAvg(), app))


@pytest.mark.parametrize(("extra", "told"), [("more", "2 ArrayRecords and 1 Metric"), (None, "'num-examples'")])
def test_a_reply_flower_would_refuse_is_reported(extra, told):
    app = stock_app(weight="num-examples" if extra else "rows")

    class Adds(InlineGrid):
        def _call(self, client: int, message: Message) -> Message:
            reply = super()._call(client, message)
            if extra and message.metadata.message_type == "train":
                reply.content[extra] = initial()
            return reply

    with pytest.raises(RunFailed, match=told):
        run_app(Plain(inner=FedAvg()), grid=Adds(app, NODES, context_of))


def test_another_weight_is_refused_before_work():
    app = stock_app(weight="rows")
    with pytest.raises(ConfigError, match=r"weighted_by_key='rows'.*num-examples"):
        run_app(Plain(inner=FedAvg(weighted_by_key="rows")), app)


def test_own_metric_aggregation_is_kept():
    def total(contents: list[RecordDict], key: str) -> MetricRecord:
        mean = aggregate_metricrecords(contents, key)
        mean["each"] = [float(c.metric_records["metrics"]["train_loss"]) for c in contents]
        return mean

    ours = run_app(Plain(inner=FedAvg(train_metrics_aggr_fn=total)))
    same(ours, run_app(FedAvg(train_metrics_aggr_fn=total)))
    assert len(ours.train_metrics_clientapp[1]["each"]) == NODES


def test_query_is_answered_and_training_is_unchanged():
    method = Sized(inner=FedAvg())
    ours = run_app(method)
    assert method.memory == {"clients": [0, 1, 2, 3], "rows": 46}
    assert [dict(m)["sized/replies"] for m in ours.train_metrics_clientapp.values()] == [4.0, 4.0, 4.0]
    for number, metrics in run_app(FedAvg()).train_metrics_clientapp.items():
        assert dict(metrics).items() <= dict(ours.train_metrics_clientapp[number]).items()
    assert np.array_equal(ours.arrays["w"].numpy(), run_app(FedAvg()).arrays["w"].numpy())


def test_client_that_raises_is_reported_and_left_out(caplog):
    app = stock_app(broken=2)
    with caplog.at_level(logging.WARNING, logger="fedimb"):
        ours = run_app(Plain(inner=FedAvg()), app)
    reports = [r.getMessage() for r in caplog.records if r.name == "fedimb"]
    assert [r.partition(": no usable reply of client 2: ")[0] for r in reports] == ["round 1", "round 2", "round 3"]
    assert all("no disk" in r for r in reports)
    same(ours, run_app(FedAvg(), app))


def test_too_many_failures_end_the_run():
    class Down(InlineGrid):
        def _call(self, client: int, message: Message) -> Message:
            return super()._call(client if client == 0 else 2, message)

    app = stock_app(broken=2)
    with pytest.raises(RunFailed, match=r"round 1: only 1 of 4 clients.*no disk"):
        run_app(Plain(inner=FedAvg()), grid=Down(app, NODES, context_of))


def test_no_node_times_out():
    timeout, started = 0.3, time.monotonic()
    with pytest.raises(TimeoutError, match=r"0 of 2 nodes.*0\.3 s"):
        run_app(Plain(inner=FedAvg()), grid=InlineGrid(stock_app(), 0, context_of), timeout=timeout)
    assert 1 <= (time.monotonic() - started) / timeout < 100


class Late(InlineGrid):
    """Nodes that register one by one, as Flower's do while a ServerApp starts."""

    looks = 0

    def get_node_ids(self) -> Iterable[int]:
        self.looks += 1
        return list(range(1, min(self.looks, NODES + 1)))


def test_waits_for_as_many_nodes_as_the_strategy_needs():
    ours = run_app(Plain(inner=FedAvg(min_available_nodes=4)), grid=Late(stock_app(), NODES, context_of))
    same(ours, run_app(FedAvg()))


def test_too_few_nodes_time_out_instead_of_waiting_for_ever():
    grid = InlineGrid(stock_app(), 1, context_of)
    with pytest.raises(TimeoutError, match="1 of 2 nodes"):
        run_app(Plain(inner=FedAvg()), grid=grid, timeout=0.3)


def test_timeout_reaches_every_exchange():
    timeouts = []

    class Watched(InlineGrid):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            timeouts.append(timeout)
            return super().send_and_receive(messages, timeout=timeout)

    run_app(Sized(inner=FedAvg()), grid=Watched(stock_app(), NODES, context_of), timeout=7.5)
    assert timeouts == [7.5] * 7  # one query, three times training and evaluation


def test_reset_starts_over_with_a_fresh_aggregator():
    class Twice(Method):
        def program(self, run):
            yield Rounds(run.rounds)
            yield Reset()
            yield Rounds(run.rounds)

    once, twice = run_app(Plain(inner=FedAdagrad(eta=0.1))), run_app(Twice(inner=FedAdagrad(eta=0.1)))
    assert np.array_equal(once.arrays["w"].numpy(), twice.arrays["w"].numpy())
    first, second = ([dict(m)["train_loss"] for m in r.train_metrics_clientapp.values()] for r in (once, twice))
    assert second == first * 2


def test_wait_says_that_nothing_can_be_resumed_here():
    class Waits(Method):
        def program(self, run):
            yield Wait("labels needed")

    with pytest.raises(RunWaiting, match="labels needed"):
        run_app(Waits(inner=FedAvg()))


def test_the_pages_example_runs_as_printed(capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, str(PAGE), "exec"), space)
    assert capsys.readouterr().out == "140 rows, weights [ 2.983 -1.982]\n"
    assert "140 rows, weights [ 2.983 -1.982]" in code
