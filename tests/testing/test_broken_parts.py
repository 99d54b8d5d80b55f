"""A part that breaks its contract fails its check, which says the rule, what was expected and what came."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from own_method import own_method

from fedimb import registry
from fedimb.clients.base import Client
from fedimb.contracts.base import Contract, Record
from fedimb.data.arrays import SourceData
from fedimb.records import array_record
from fedimb.selection.coresets.base import CoresetRule
from fedimb.selection.queries.base import QueryRule
from fedimb.serverapp.steps import Query
from fedimb.strategies.base import Method
from fedimb.testing import (
    ContractError,
    check_aggregator,
    check_coreset,
    check_loss,
    check_method,
    check_model,
    check_partitioner,
    check_query,
    check_sampler,
    check_source,
)
from fedimb.training.losses.base import RowLoss
from fedimb.training.losses.ce import CrossEntropy

EVERYONE = {"fraction_train": 1.0, "min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}


@pytest.fixture(autouse=True)
def forgotten():
    with registry.isolated():
        yield


def fails(check, *args, says, **settings):
    with pytest.raises(ContractError, match=says) as caught:
        check(*args, **settings)
    assert "expected" in str(caught.value)
    assert "found" in str(caught.value)


def test_a_loss_that_is_not_finite_for_extreme_logits():
    @registry.register("loss", "broken", adjusts_logits=False, needs_prior=False)
    class Broken(RowLoss):
        def rows(self, logits, labels):
            return -torch.log(logits.softmax(-1).gather(-1, labels[..., None])[..., 0])

    fails(check_loss, "broken", says=r"loss 'broken' .*finite")


def test_a_loss_of_which_only_the_rows_were_changed():
    @registry.register("loss", "half_changed", adjusts_logits=False, needs_prior=False)
    class HalfChanged(CrossEntropy):
        def rows(self, logits, labels):
            return 2 * super().rows(logits, labels)

    fails(check_loss, "half_changed", says="its value is the mean of the rows' losses")


def test_a_loss_that_does_not_say_it_reads_counts():
    @registry.register("loss", "silent", adjusts_logits=False, needs_prior=False)
    class Silent(CrossEntropy):
        def __init__(self, prior):
            super().__init__()

    fails(check_loss, "silent", says="its flags match what it reads.*needs_prior")


def test_a_loss_whose_gradient_by_hand_is_wrong():
    @registry.register("loss", "doubled", adjusts_logits=False, needs_prior=False)
    class Doubled(CrossEntropy):
        def loss_and_grad(self, logits, labels, weights):
            losses, slope = super().loss_and_grad(logits, labels, weights)
            return losses, 2 * slope

    fails(check_loss, "doubled", says="the analytic gradient")


def test_a_sampler_that_draws_from_torchs_global_generator():
    @registry.register("sampler", "global_draws")
    class GlobalDraws:
        def epoch(self, labels, generator):
            return torch.randperm(len(labels))

    fails(check_sampler, "global_draws", says="the same positions for the same seed|global generator")


def test_a_model_whose_head_does_not_read_its_features():
    from fedimb.models.mlp import MLP

    @registry.register("model", "beside")
    class Beside(MLP):
        def forward(self, x):
            return self.head(self.features(x)) + 1

    fails(check_model, "beside", says="a linear head that reads them")


def test_a_partitioner_that_loses_a_row():
    @registry.register("partition", "losing")
    def losing():
        def deal(y, n, rng):
            return np.array_split(np.arange(len(y) - 1), n)

        return deal

    fails(check_partitioner, "losing", says="every row once")


def test_a_query_rule_that_asks_for_a_row_twice():
    @registry.register("query", "twice")
    class Twice(QueryRule):
        def choose(self, asked):
            return torch.zeros(asked.budget, dtype=torch.int64)

    fails(check_query, "twice", says="distinct positions")


def test_a_coreset_rule_that_reads_what_it_does_not_name():
    @registry.register("coreset", "greedy_reader")
    class GreedyReader(CoresetRule):
        def choose(self, candidates, rows, count):
            return rows[candidates.logits[rows].amax(1).argsort()[:count]]

    fails(check_coreset, "greedy_reader", says="reads only what its 'needs' names")


def test_a_source_that_reads_other_rows_every_time():
    @registry.register("source", "changing")
    class Changing:
        def fingerprint(self):
            return "changing-1"

        def load(self):
            x = np.random.default_rng().normal(size=(20, 3)).astype(np.float32)
            return SourceData(x, np.arange(20) % 2, ("a", "b"))

    fails(check_source, "changing", says="the same rows every time")


def test_a_source_of_labels_out_of_range():
    @registry.register("source", "unnamed")
    class Unnamed:
        def fingerprint(self):
            return "unnamed-1"

        def load(self):
            return SourceData(np.zeros((4, 3), np.float32), np.arange(4), ("a", "b"))

    fails(check_source, "unnamed", says="label 2 is outside the class list")


def test_an_aggregator_that_forgets_at_a_kill():
    class Forgetful(FedAvg):
        def __init__(self):
            super().__init__(**EVERYONE)
            self.rounds = {object(): 0}  # nothing that a checkpoint can hold

        def aggregate_train(self, server_round, replies):
            merged, metrics = super().aggregate_train(server_round, replies)
            if merged is not None:
                (key,) = self.rounds
                self.rounds[key] += 1
                merged = array_record({k: a.numpy() / self.rounds[key] for k, a in merged.items()})
            return merged, metrics

    registry.register("aggregator", "forgetful", linear=True)(Forgetful)
    fails(check_aggregator, "forgetful", says="aggregator 'forgetful'")


def test_an_aggregator_that_says_it_is_linear_and_is_not():
    @registry.register("aggregator", "crooked", linear=True)
    class Crooked(FedAvg):
        def __init__(self):
            super().__init__(**EVERYONE)

        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            return super().aggregate_train(server_round, replies[:1])

    fails(check_aggregator, "crooked", says="linear")


RECORD = Record("x.sum", "arrays", "a number", "aggregate", dtypes=("float64",), max_bytes=64)


class Honest(Client):
    def query(self, name, content, context):
        return RecordDict({"x.sum": array_record({"sum": np.array([float(context.client)])})})


class Summing(Method):
    def program(self, run):
        replies = yield Query("broken_ask")
        self.memory["sum"] = float(len(replies))
        yield from self.inner_program(run)


CONTRACT = Contract("broken", queries={"broken_ask": (RECORD,)})


def check(method=Summing, client=Honest, contract=CONTRACT, says=None):
    with own_method(method, client, contract):
        if says is None:
            check_method("broken", ray=False)
        else:
            fails(check_method, "broken", ray=False, says=says)


@pytest.mark.slow
def test_an_honest_method_passes():
    check()


def test_a_method_that_sends_what_it_does_not_declare():
    class Leaking(Honest):
        def after_training(self, result, context):
            return RecordDict({"x.names": ConfigRecord({"first": "Ada"})})

    check(client=Leaking, says=r"strategy 'broken'.*x\.names")


def test_a_method_that_dies_at_a_client_of_one_row():
    class Needy(Honest):
        def train_spec(self, spec, context):
            assert len(context.data.rows("train")) > 1, "needs two rows"
            return spec

        def query(self, name, content, context):
            if len(context.data.rows("train")) < 2:
                raise ValueError("needs two rows")
            return super().query(name, content, context)

    class All(Summing):
        def program(self, run):
            yield Query("broken_ask", everyone=True)
            yield from self.inner_program(run)

    check(method=All, client=Needy, says="it runs with a client of one row.*needs two rows")


def test_a_method_that_draws_anew_when_it_is_resumed():
    class Drawing(Summing):
        def program(self, run):
            yield Query("broken_ask")
            self.memory["drawn"] = float(np.random.default_rng().normal())
            yield from self.inner_program(run)

    check(method=Drawing, says="killed after every step and resumed")


def test_halves_that_disagree_on_a_default():
    class Strong(Summing):
        def __init__(self, inner, strength: float = 0.5):
            super().__init__(inner)

    class Weak(Honest):
        def __init__(self, strength: float = 0.1):
            pass

    check(method=Strong, client=Weak, says="agree on settings: expected the client side's default of strength")


@pytest.mark.slow
def test_the_checks_need_no_pytest():
    code = "import sys; import fedimb.testing; assert 'pytest' not in sys.modules and '_pytest' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_method_that_goes_on_with_other_labels_without_a_word():
    class Relabels(Client):
        def train_spec(self, spec, context):
            _, y = context.data.tensors(spec.view)
            return spec if context.round < 3 else spec.change(labels=torch.zeros_like(y))

    with own_method(Method, Relabels, Contract("relabels")):
        fails(check_method, "relabels", ray=False, says=r"a new part .*run.next_part\(\) before round 3")
