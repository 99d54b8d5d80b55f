"""SCAFFOLD: both halves together, as the loop plays them, on least squares whose answer is known."""

import numpy as np
import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict
from small_runs import config, launch_in, weights_sha
from torch import nn

from fedimb import registry
from fedimb.aggregators.scaffold import Scaffold
from fedimb.config.parts import contracts_of
from fedimb.engine.lanes import gather
from fedimb.errors import ConfigError, FedimbError, RunFailed
from fedimb.models.base import load_into, parameters_of
from fedimb.models.mlp import MLP
from fedimb.records import array_record, to_numpy
from fedimb.serverapp.aggregator import Aggregator
from fedimb.serverapp.launch import resume
from fedimb.testing.aggregators import reduction_of
from fedimb.training.local import train_locally
from fedimb.training.objectives.control_variate import ControlVariate
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

LR, STEPS = 0.3, 10


class SquaredError(nn.Module):
    """Half the mean squared distance to targets [n, 2]; the labels are row numbers."""

    def __init__(self, targets):
        super().__init__()
        self.targets = targets

    def forward(self, logits, labels):
        return 0.5 * ((logits - self.targets[labels]) ** 2).sum(1).mean()


class Sites:
    """Clients with 8 rows each, whose losses have different curvatures and different minima."""

    def __init__(self, count=3, alike=False):
        rng = np.random.default_rng(0)
        self.x, self.targets, self.states = [], [], [RecordDict() for _ in range(count)]
        for _ in range(count):
            if alike:
                rng = np.random.default_rng(0)
            basis = np.linalg.qr(np.column_stack([np.ones(8), rng.normal(size=(8, 3))]))[0][:, 1:]
            scale = rng.permutation([0.6, 1.0, 1.6])
            self.x.append(torch.tensor(basis * scale * np.sqrt(8), dtype=torch.float32))
            self.targets.append(torch.tensor(rng.normal(size=(8, 2)), dtype=torch.float32))

    def optimum(self):
        """Minimum of the mean loss: weights [2, 3], bias [2]."""
        design = np.column_stack([np.concatenate([x.numpy() for x in self.x]), np.ones(8 * len(self.x))])
        answer = np.linalg.lstsq(design, np.concatenate([t.numpy() for t in self.targets]), rcond=None)[0]
        return answer[:3].T, answer[3]

    def round(self, model, server_round, cohort, lr=LR, objectives=None):
        with_variate = isinstance(model.strategy, Scaffold) if objectives is None else objectives
        instructions = model.configure(server_round, {k + 1: k for k in cohort})
        replies = []
        for k, order in instructions:
            net = MLP(n_classes=2, input_shape=(3,), hidden=[])
            received = to_numpy(order.content.array_records["arrays"])
            load_into(net, {name: torch.from_numpy(value) for name, value in received.items()})
            own = (ControlVariate(),) if with_variate else ()
            for term in own:
                term.receive(order.content, self.states[k])
            spec = TrainSpec("train", STEPS, 8, "sgd", lr, 0.0, 0.0, SquaredError(self.targets[k]), Shuffle(), own)
            result = train_locally(net, self.x[k], torch.arange(8), spec, torch.Generator().manual_seed(0))
            for term in own:
                term.keep(self.states[k])
            content = RecordDict({"arrays": array_record(parameters_of(net))})
            content["metrics"] = MetricRecord({"num-examples": 8.0, "train_loss": result.loss})
            content.update({key: array_record(value) for key, value in result.records.items()})
            replies.append((k, Message(content, reply_to=order)))
        model.aggregate(server_round, gather(replies, reduction_of(model, replies)), instructions)


def server(name, n_clients=3):
    strategy = registry.build("aggregator", name, {"n_clients": n_clients})
    start = {"head.weight": np.zeros((2, 3), np.float32), "head.bias": np.zeros(2, np.float32)}
    return Aggregator(strategy, name == "fedavg", start, {})


def distance(model, sites):
    weight, bias = sites.optimum()
    return float(
        np.hypot(
            np.linalg.norm(model.parameters["head.weight"] - weight),
            np.linalg.norm(model.parameters["head.bias"] - bias),
        )
    )


def test_scaffold_finds_the_optimum_fedavg_misses():
    left = {}
    for name in ("fedavg", "scaffold"):
        sites, model = Sites(), server(name)
        for server_round in range(1, 21):
            sites.round(model, server_round, [0, 1, 2])
        left[name] = distance(model, sites)
    assert left["fedavg"] > 0.1
    assert left["scaffold"] < 1e-2


def test_with_two_of_three_clients_a_round_it_finds_the_same_optimum():
    sites, model = Sites(), server("scaffold")
    for server_round in range(1, 21):
        sites.round(model, server_round, sorted((server_round + i) % 3 for i in range(2)))
    assert distance(model, sites) < 1e-2


def test_with_clients_alike_it_is_fedavg():
    models = {}
    for name in ("fedavg", "scaffold"):
        sites, models[name] = Sites(alike=True), server(name)
        for server_round in (1, 2, 3):
            sites.round(models[name], server_round, [0, 1, 2])
    for key, value in models["fedavg"].parameters.items():
        np.testing.assert_allclose(models["scaffold"].parameters[key], value, atol=1e-6)


def test_variates_are_those_of_option_two_and_the_servers_is_their_mean():
    sites, model = Sites(), server("scaffold")
    mine = [{k: np.zeros_like(v) for k, v in model.parameters.items()} for _ in range(3)]
    for server_round, cohort in enumerate([[0, 1, 2], [0, 2], [1]], start=1):
        start, c = dict(model.parameters), dict(model.strategy.variate) or mine[0]
        for k in cohort:
            alone = server("fedavg", 1)  # what this client would make of the same start with the same correction
            alone.parameters = dict(start)
            net = MLP(n_classes=2, input_shape=(3,), hidden=[])
            load_into(net, {name: torch.from_numpy(v.copy()) for name, v in start.items()})
            for _ in range(STEPS):
                loss = SquaredError(sites.targets[k])(net(sites.x[k]), torch.arange(8))
                for (name, p), g in zip(
                    net.named_parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True
                ):
                    p.data -= LR * (g + torch.from_numpy((c[name] - mine[k][name]).astype(np.float32)))
            end = parameters_of(net)
            mine[k] = {n: mine[k][n] - c[n] + (start[n] - end[n]) / (STEPS * LR) for n in start}
        sites.round(model, server_round, cohort)
        for name in start:
            for k in range(3):
                kept = sites.states[k].get("term.control_variate/global/1")
                have = np.zeros_like(start[name]) if kept is None else kept[name].numpy()
                np.testing.assert_allclose(have, mine[k][name], atol=2e-6)
            np.testing.assert_allclose(
                model.strategy.variate[name], np.mean([m[name] for m in mine], axis=0), atol=2e-6
            )


def test_after_a_reset_clients_start_anew():
    sites, model = Sites(), server("scaffold")
    sites.round(model, 1, [0, 1, 2])
    fresh, again, untouched = server("scaffold"), server("scaffold"), Sites()
    sites.round(fresh, 2, [0, 1, 2])
    untouched.round(again, 2, [0, 1, 2])
    for key, value in again.parameters.items():
        np.testing.assert_array_equal(fresh.parameters[key], value)
    assert all(list(state) == ["term.control_variate/global/2"] for state in sites.states)


def test_a_reply_that_diverged_moves_neither_variate():
    sites, model = Sites(), server("scaffold")
    sites.round(model, 1, [0, 1, 2])
    kept, before = [to_numpy(next(iter(s.values()))) for s in sites.states], dict(model.strategy.variate)
    sites.round(model, 2, [0], lr=1e30)
    assert all(np.array_equal(kept[0][k], v.numpy()) for k, v in next(iter(sites.states[0].values())).items())
    assert all(np.array_equal(model.strategy.variate[k], v) for k, v in before.items())


def test_either_half_alone_says_what_is_missing():
    with pytest.raises(RunFailed, match=r"aggregator\.objectives=\[control_variate\]"):
        Sites().round(server("scaffold"), 1, [0, 1], objectives=False)
    with pytest.raises(FedimbError, match="use aggregator=scaffold"):
        Sites().round(server("fedavg"), 1, [0, 1], objectives=True)
    with pytest.raises(ConfigError, match="refused combination: objective 'control_variate'"):
        config("aggregator.objectives=[control_variate]")


def test_the_door_knows_the_variate_only_where_a_term_sends_it():
    keys = {a: [r.key for r in contracts_of(config(f"aggregator={a}"))[0].train] for a in ("fedavg", "scaffold")}
    assert keys["scaffold"] == [*keys["fedavg"], "x.variate"]


def test_a_run_interrupted_between_checkpoints_ends_with_the_same_bits(tmp_path, monkeypatch):
    words = ("engine=inline", "aggregator=scaffold", "clients.participation=0.6", "rounds=2")
    whole = launch_in(tmp_path / "whole", *words)
    original, left = Scaffold.aggregate_train, [2]

    def interrupted(self, server_round, replies):
        result = original(self, server_round, replies)
        if server_round in left:
            left.remove(server_round)
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Scaffold, "aggregate_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launch_in(tmp_path / "cut", *words)
    (run,) = (tmp_path / "cut" / "runs" / "default").iterdir()
    assert weights_sha(resume(run)) == weights_sha(whole)
    assert not left
    weights, metrics, version = 4 * (64 * 48 + 48 + 48 * 10 + 10), 5 * 8, 8
    assert whole.up_bytes == 2 * 3 * (2 * weights + metrics + version)
