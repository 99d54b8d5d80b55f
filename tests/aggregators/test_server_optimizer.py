"""Optimisers at the server: their reference values, through the lanes as a run plays them, and what they cost."""

import json
import re
import tracemalloc
from pathlib import Path

import killing
import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from own_method import own_method
from small_runs import config, launch_in, weights_sha
from stock_flower import run_app

from fedimb import registry
from fedimb.aggregators.feddyn import FedDyn
from fedimb.aggregators.fedexp import FedExP
from fedimb.aggregators.fednova import FedNova
from fedimb.aggregators.server_optimizer import ServerOptimizer
from fedimb.clients.base import Client
from fedimb.contracts.base import Contract, Record
from fedimb.engine.lanes import cut_lanes, gather, merge_lanes
from fedimb.engine.ray import RayEngine
from fedimb.errors import ConfigError, RunFailed, traceback_of
from fedimb.records import array_record
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.aggregator import Aggregator, chain
from fedimb.serverapp.launch import resume
from fedimb.strategies.base import Method
from fedimb.strategies.plain import Plain
from fedimb.sums import WeightLimits
from fedimb.testing.aggregators import reduction_of

OURS = ("fedexp", "fednova", "feddyn")
LAYERS = {"w": slice(0, 4), "b": slice(4, 6)}  # the reference files' six weights, as a model of two arrays
SHAPES = {"w": (2, 2), "b": (2,)}


def reference(name):
    return json.loads((Path(__file__).parents[1] / "literature" / "reference" / f"{name}.json").read_text())


def layered(flat):
    return {k: np.array(flat, np.float64)[part].reshape(SHAPES[k]) for k, part in LAYERS.items()}


def flat(arrays):
    return np.concatenate([np.asarray(arrays[k], np.float64).ravel() for k in LAYERS])


def aggregator(strategy, start, linear=True):
    return Aggregator(strategy, linear, layered(start), {})


def play(model, server_round, weights, rows=None, steps=None):
    """One round through lanes: the clients' trained weights, flat, with their rows and steps."""
    rows, steps = rows or [1] * len(weights), steps or [1] * len(weights)
    instructions = model.configure(server_round, {k + 1: k for k in range(len(weights))})
    replies = []
    for k, order in instructions:
        metrics = MetricRecord({"num-examples": float(rows[k]), "steps": float(steps[k]), "train_loss": 1.0})
        content = RecordDict({"arrays": array_record(layered(weights[k])), "metrics": metrics})
        replies.append((k, Message(content, reply_to=order)))
    sent = dict(instructions)
    how = reduction_of(model, replies)
    outcome = merge_lanes([gather(replies[lane], how, sent) for lane in cut_lanes(len(replies))])
    model.aggregate(server_round, outcome, instructions)
    return flat(model.parameters)


both = pytest.mark.parametrize("linear", [True, False])


@both
@pytest.mark.parametrize("which", ["spread", "close"])
def test_fedexp_equals_its_reference(which, linear):
    file = reference("fedexp")
    given = file["inputs"]
    model = aggregator(FedExP(given["eps"]), given["server_weights"], linear)
    new = play(model, 1, given[f"{which}_clients"])
    np.testing.assert_allclose(new, file["outputs"][f"new_weights_{which}"], rtol=0, atol=file["tolerance"])


@both
@pytest.mark.parametrize(("momentum", "key"), [(0.0, "sgd"), (0.9, "momentum")])
def test_fednova_equals_its_reference(momentum, key, linear):
    file = reference("fednova")
    given, strategy = file["inputs"], FedNova(momentum)
    model = aggregator(strategy, given["server_weights"], linear)
    new = play(model, 1, given["client_weights"], given["rows"], given["steps"])
    np.testing.assert_allclose(new, file["outputs"][f"new_weights_{key}"], rtol=0, atol=file["tolerance"])
    if momentum:
        lengths = strategy.length(np.array(given["steps"], float))
        np.testing.assert_allclose(lengths, file["outputs"]["a_momentum"], rtol=0, atol=file["tolerance"])


@both
def test_feddyn_equals_its_reference(linear):
    file = reference("feddyn")
    given, right, near = file["inputs"], file["outputs"], {"rtol": 0, "atol": file["tolerance"]}
    strategy = FedDyn(given["n_clients"], given["alpha"])
    model = aggregator(strategy, given["server_weights"], linear)
    new = play(model, 1, given["client_weights_round1"], given["rows"])
    np.testing.assert_allclose(new, right["server_weights_round1"], **near)
    np.testing.assert_allclose(flat(strategy.state["h"]), right["server_state_round1"], **near)
    new = play(model, 2, given["client_weights_round2"], given["rows"])
    np.testing.assert_allclose(new, right["server_weights_round2"], **near)
    uniform = aggregator(FedDyn(given["n_clients"], given["alpha"]), given["server_weights"], linear)
    new = play(uniform, 1, given["client_weights_round1"])
    np.testing.assert_allclose(new, right["server_weights_round1_uniform"], **near)


def test_with_equal_updates_or_equal_steps_it_is_fedavg():
    rng = np.random.default_rng(0)
    start, clients, rows = rng.normal(size=6), rng.normal(size=(40, 6)), rng.integers(1, 9, size=40).tolist()
    mean = np.average(clients, axis=0, weights=rows)
    np.testing.assert_allclose(play(aggregator(FedNova(0.5), start), 1, clients, rows, [7] * 40), mean, atol=1e-12)
    alike = np.tile(clients[0], (40, 1))
    np.testing.assert_allclose(play(aggregator(FedExP(), start), 1, alike, rows), clients[0], atol=1e-12)


def test_fedexp_weighs_the_norms_as_it_weighs_the_updates():
    start, clients = np.zeros(6), np.eye(6)[:2]
    twice = play(aggregator(FedExP(), start), 1, clients[[0, 0, 1]])
    weighed = play(aggregator(FedExP(), start), 1, clients, rows=[2, 1])
    np.testing.assert_allclose(weighed, twice, atol=1e-12)


@both
def test_a_client_without_a_step_counts_in_fednova_and_moves_nothing(linear):
    start, clients = np.zeros(6), [np.ones(6), np.zeros(6)]
    new = play(aggregator(FedNova(), start, linear), 1, clients, rows=[1, 1], steps=[2, 0])
    np.testing.assert_allclose(new, np.full(6, 0.5 * 2 * 0.5 / 2))  # (sum p a) sum p d / a
    np.testing.assert_array_equal(play(aggregator(FedNova(), start, linear), 1, clients[1:], steps=[0]), start)


class Told(ServerOptimizer):
    """Keeps what it is told; the first client counts alone in a second mean."""

    scalars = ("steps", "squared_norm")

    def weights(self, client):
        return {"mean": client["num-examples"], "first": float(client["steps"] == 1)}

    def aggregate(self, previous, mean, clients, state):
        self.told = previous, mean, clients
        return previous


@both
def test_aggregate_gets_updates_and_one_row_of_scalars_per_client(linear):
    strategy, start = Told(), np.arange(6.0)
    clients = [start + 1, start + 2, start - 3]
    play(aggregator(strategy, start, linear), 1, clients, rows=[1, 2, 1], steps=[1, 2, 3])
    previous, mean, told = strategy.told
    np.testing.assert_array_equal(flat(previous), start)
    np.testing.assert_allclose(flat(mean), np.full(6, 0.5))
    np.testing.assert_allclose(flat(told.means["first"]), np.ones(6))
    assert {k: v.tolist() for k, v in told.items()} == {
        "client": [0, 1, 2],
        "num-examples": [1.0, 2.0, 1.0],
        "steps": [1.0, 2.0, 3.0],
        "squared_norm": [6.0, 24.0, 54.0],
    }
    with pytest.raises(ValueError, match="read-only"):
        previous["w"][0] = 0.0


def test_nothing_is_computed_that_no_method_asks_for(monkeypatch):
    asked = []
    monkeypatch.setattr("fedimb.aggregators.server_optimizer.squared_norm", lambda arrays: asked.append(1) or 0.0)
    play(aggregator(FedNova(), np.zeros(6)), 1, np.ones((3, 6)))
    assert not asked
    play(aggregator(Told(), np.zeros(6)), 1, np.ones((3, 6)))
    assert len(asked) == 3


def peak_of(strategy, count, size=200_000):
    """Most bytes held while ``count`` clients are summed and aggregated; each reply is made when asked for."""
    model = Aggregator(strategy, True, {"w": np.zeros(size, np.float32)}, {})
    instructions = model.configure(1, {k + 1: k for k in range(count)})
    sent = dict(instructions)

    def replies(lane):
        for k, order in instructions[lane]:
            arrays = array_record({"w": np.full(size, k, np.float32)}, copy=False)
            metrics = MetricRecord({"num-examples": 1.0, "steps": 2.0, "train_loss": 1.0})
            yield k, Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=order)

    tracemalloc.start()
    try:
        how = model.reduction(WeightLimits.of([1.0] * count))
        outcome = merge_lanes([gather(replies(lane), how, sent) for lane in cut_lanes(count)])
        model.aggregate(1, outcome, instructions)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", OURS)
def test_the_servers_memory_does_not_grow_with_the_cohort(name):
    few, many = (peak_of(registry.build("aggregator", name, {"n_clients": 352}), count) for count in (64, 352))
    assert many - few < 200_000 * 4  # the weights of one client, of 288 more


def test_a_reply_without_what_is_read_is_not_usable_and_says_so():
    model = aggregator(FedNova(), np.zeros(6))
    instructions = model.configure(1, {1: 0, 2: 1})
    replies = []
    for k, order in instructions:
        metrics = MetricRecord({"num-examples": 1.0, "train_loss": 1.0} | ({"steps": 2.0} if k else {}))
        content = RecordDict({"arrays": array_record(layered(np.ones(6))), "metrics": metrics})
        replies.append((k, Message(content, reply_to=order)))
    outcome = gather(replies, reduction_of(model, replies), dict(instructions))
    assert [a.usable for a in outcome.replies] == [False, True]
    assert "the reply's metric 'steps' is missing, and aggregator FedNova reads it" in outcome.replies[0].error
    model.aggregate(1, outcome, instructions)
    np.testing.assert_allclose(flat(model.parameters), np.ones(6))


def test_the_registry_knows_of_each_that_it_is_linear_and_what_it_reads():
    flags = {name: registry.flags("aggregator", name) for name in OURS}
    assert all(flags[name]["linear"] for name in OURS)
    assert {name: flags[name]["client_scalars"] for name in OURS} == {
        "fedexp": ("squared_norm",),
        "fednova": ("steps",),
        "feddyn": (),
    }


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("aggregator=fedexp privacy.clip=1.0 privacy.noise=1.0", "'fedexp' reads the squared_norm of each client"),
        ("aggregator=fednova privacy.clip=1.0 privacy.noise=1.0", "'fednova' reads the steps of each client"),
        ("aggregator=feddyn privacy.clip=1.0", "objective 'dynamic_regularizer' keeps the client's update"),
        ("aggregator.objectives=[{name:dynamic_regularizer,alpha:0.1}]", "use aggregator=feddyn"),
    ],
)
def test_what_does_not_go_together_is_refused(words, why):
    with pytest.raises(ConfigError, match=why):
        config("aggregation_weight=uniform", *words.split())


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("fedexp", {"epsilon": 0.0}, "epsilon=0.0: give a finite number above 0"),
        ("fednova", {"momentum": 1.0}, "momentum=1.0: give a finite number of at least 0 and less than 1"),
        ("fednova", {"optimizer": "adam"}, r"set local\.optimizer=sgd"),
        ("feddyn", {"alpha": -0.1}, "alpha=-0.1: give a finite number above 0"),
    ],
)
def test_settings_without_a_meaning_are_refused(name, settings, why):
    with pytest.raises(ConfigError, match=why):
        registry.build("aggregator", name, {"n_clients": 3}, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_a_run_interrupted_between_checkpoints_ends_with_the_same_bits(name, tmp_path, monkeypatch):
    words = ("engine=inline", f"aggregator={name}", "clients.participation=0.6")
    whole = launch_in(tmp_path / "whole", *words)
    original, left = ServerOptimizer.aggregate_train, [3]

    def interrupted(self, server_round, replies):
        result = original(self, server_round, replies)
        if server_round in left:
            left.remove(server_round)
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(ServerOptimizer, "aggregate_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launch_in(tmp_path / "cut", *words)
    (run,) = (tmp_path / "cut" / "runs" / "default").iterdir()
    assert weights_sha(resume(run)) == weights_sha(whole)
    assert not left


def test_what_a_method_nests_in_its_state_survives(tmp_path, monkeypatch):
    seen = []

    class Nested(ServerOptimizer):
        def aggregate(self, previous, mean, clients, state):
            seen.append(json.dumps(state, default=lambda array: array.tolist()))
            state.setdefault("losses", []).append(0.5)
            state["by"] = {"name": {k: v.copy() for k, v in mean.items()}, "word": "x", "flag": True}
            if len(seen) == 3:
                raise KeyboardInterrupt
            return {k: previous[k] + v for k, v in mean.items()}

    with registry.isolated():
        registry.register("aggregator", "nested")(Nested)
        words = ("engine=inline", "aggregator.name=nested", "clients.count=2")
        with pytest.raises(KeyboardInterrupt):
            launch_in(tmp_path, *words)
        (run,) = (tmp_path / "runs" / "default").iterdir()
        resume(run)
    assert seen[0] == "{}"
    assert seen[3] == seen[2]
    assert json.loads(seen[3])["losses"] == [0.5, 0.5]


@pytest.mark.slow
@pytest.mark.alone  # a Ray head fills the machine
@pytest.mark.timeout(600)
def test_two_workers_give_the_bits_of_one_process(tmp_path):
    with RayEngine(workers=2) as engine:
        for name in OURS:
            here = launch_in(tmp_path / name, "engine=inline", f"aggregator={name}", "rounds=2")
            there = launch_in(tmp_path / f"{name}-ray", "engine=ray", f"aggregator={name}", "rounds=2", engine=engine)
            assert weights_sha(there) == weights_sha(here), name


class ServerSGD(ServerOptimizer):
    """FedAvg, written as an optimiser."""

    def aggregate(self, previous, mean, clients, state):
        state["rounds"] = state.get("rounds", 0) + 1
        return {name: previous[name] + update for name, update in mean.items()}


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: Plain(inner=s)], ids=["alone", "in a method"])
def test_in_a_plain_serverapp_it_is_a_flower_strategy(wrap):
    strategy = ServerSGD()
    ours, flowers = run_app(wrap(strategy)), run_app(FedAvg())
    for name in flowers.arrays:
        np.testing.assert_allclose(ours.arrays[name].numpy(), flowers.arrays[name].numpy(), atol=1e-6)
    assert {k: dict(v) for k, v in ours.train_metrics_clientapp.items()} == {
        k: pytest.approx(dict(v)) for k, v in flowers.train_metrics_clientapp.items()
    }
    assert strategy.state == {"rounds": 3}
    assert np.isfinite(run_app(wrap(FedExP())).arrays["w"].numpy()).all()


def test_hooks_hear_of_the_clients_records_before_and_after_the_aggregation(tmp_path):
    order = []

    class Hears(Method):
        def before_aggregation(self, server_round, replies):
            order.append(("method", server_round, [r.client for r in replies], [list(r.content) for r in replies]))

        def on_train_replies(self, server_round, replies):
            order.append(("after", server_round, [r.client for r in replies], [list(r.content) for r in replies]))
            return {"data/heard": float(len(replies))}

    class Weighs(ServerOptimizer):
        def before_aggregation(self, server_round, replies):
            order.append(("optimizer", server_round, [r.client for r in replies], []))

        def aggregate(self, previous, mean, clients, state):
            order.append(("aggregate", self.since, clients["client"].tolist(), []))
            return previous

    class Sends(Client):
        def after_training(self, result, context):
            return RecordDict({"x.said": ConfigRecord({"steps": result.steps})})

    said = Record("x.said", "config", "steps", "operational")
    with own_method(Hears, Sends, Contract("hears", train=(said,))) as groups:
        registry.register("aggregator", "weighs")(Weighs)
        words = ("strategy=hears", "aggregator.name=weighs", "rounds=1", "clients.count=2")
        result = launch_in(tmp_path, "engine=inline", *words, dirs=[groups])
    assert RunFolder(result.folder).metrics()[-1]["metrics"]["data/heard"] == 2.0
    records = [["x.said"], ["x.said"]]
    assert order == [
        ("method", 1, [0, 1], records),
        ("optimizer", 1, [0, 1], []),
        ("aggregate", 1, [0, 1], []),
        ("after", 1, [0, 1], records),
    ]


@pytest.mark.slow
def test_killed_before_or_after_a_reset_it_ends_with_the_same_bits(warm, tmp_path):
    words = ["strategy=remember", "aggregator=feddyn", "engine=inline", "clients.count=4", "clients.participation=0.6"]
    words += ["data.n_max=60", "rounds=4", "local.epochs=1", "evaluation.bootstrap=0", "tracking=none"]
    weights = []
    for name, kill in (("whole", []), ("before", ["checkpoint", 7]), ("after", ["checkpoint", 10])):
        cwd = tmp_path / name
        cwd.mkdir()
        assert killing.run(warm, words, cwd, *kill) == (-9 if kill else 0)
        (run,) = (folder for folder in (cwd / "runs" / "default").iterdir() if folder.is_dir())
        assert not kill or killing.resume(warm, run, cwd) == 0
        weights.append((run / "artifacts" / "model" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] == weights[2]


def _writes(self, previous, mean, clients, state):
    previous["w"][0] = 1.0
    return previous


def _adds_a_name(self, previous, mean, clients, state):
    previous["x"] = mean["w"]
    return previous


FAULTS = [
    ({"aggregate": lambda self, previous, mean, clients, state: {"x": mean["w"]}}, r"\(w, b\), and returned x$"),
    ({"aggregate": lambda self, previous, mean, clients, state: None}, "and returned NoneType$"),
    ({"aggregate": lambda self, previous, mean, clients, state: {k: v * 1j for k, v in mean.items()}}, "complex128"),
    ({"aggregate": lambda self, previous, mean, clients, state: {k: v.astype(str) for k, v in mean.items()}}, "<U"),
    (
        {"aggregate": lambda self, previous, mean, clients, state: {k: v[:1] for k, v in mean.items()}},
        r"\[1, 2\] for 'w'",
    ),
    ({"aggregate": _writes}, "assignment destination is read-only; .* compute new arrays"),
    ({"aggregate": _adds_a_name}, "'mappingproxy' object .* compute new arrays"),
    ({"aggregate": lambda self, previous, mean, clients, state: mean["v"]}, "failed: KeyError: 'v'$"),
    ({"weights": lambda self, client: {"other": 1.0}}, "name 'mean' for every client; it names other$"),
    ({"weights": lambda self, client: {} if client["num-examples"] > 1 else {"mean": 1.0}}, "it names nothing$"),
    ({"weights": lambda self, client: 1.0}, r"such as \{'mean': 1.0\}, and returned a float$"),
    (
        {"weights": lambda self, client: {"mean": -1.0}},
        r"'mean': -1.0 for a client with \{'client': 0, 'num-examples': 1.0\}; return a",
    ),
    ({"weights": lambda self, client: {"mean": float("nan")}}, "'mean': nan for a client"),
    ({"weights": lambda self, client: {"mean": 1.0, "more": float("inf")}}, "'more': inf for a client"),
    ({"weights": lambda self, client: {"mean": 1j}}, "'mean': 1j for a client"),
    ({"weights": lambda self, client: client["rows"]}, "failed: KeyError: 'rows'$"),
]


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize(("page", "why"), FAULTS)
def test_a_page_at_fault_is_named_on_one_line_with_what_is_wanted(page, why, linear):
    plain = {"aggregate": lambda self, previous, mean, clients, state: previous}
    optimizer = type("Mine", (ServerOptimizer,), plain | page)()
    model = aggregator(Plain(optimizer), np.zeros(6), linear)
    place = rf"aggregator Mine: {next(iter(page))}\(\) "
    with pytest.raises(RunFailed, match=place) as caught:
        play(model, 1, {0: np.ones(6), 1: np.ones(6)}, rows=[1, 2])
    assert re.search(why, str(caught.value))
    assert "\n" not in str(caught.value)
    assert bool(traceback_of(caught.value)) == (" failed: " in str(caught.value))
    np.testing.assert_array_equal(flat(model.parameters), np.zeros(6))


@pytest.mark.parametrize(("inner", "outer"), [(np.nan, np.nan), (1.0, np.nan), (1j, 1j)])
def test_an_error_names_the_innermost_that_is_at_fault(inner, outer):
    class Inner(FedAvg):
        def aggregate_train(self, server_round, replies):
            return array_record({k: v * inner for k, v in layered(np.ones(6)).items()}), None

    class Outer(Method):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            return array_record({k: a.numpy() * outer for k, a in arrays.items()}), metrics

    model = aggregator(Plain(Outer(Plain(Inner()))), np.zeros(6), linear=False)
    with pytest.raises(RunFailed, match="round 1: " + ("method Outer" if inner == 1.0 else "aggregator Inner")):
        play(model, 1, {0: np.ones(6), 1: np.ones(6)})
    assert all("aggregate_train" not in vars(one) for one in chain(model.strategy))
