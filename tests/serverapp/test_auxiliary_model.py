"""Rounds of a model beside the global one: its cohorts, what is left out of its mean, and what a resume repeats."""

import logging
import re

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from own_method import own_method
from small_runs import launch_in, weights_sha

from fedimb.clients.base import Client
from fedimb.contracts.base import Contract, Record
from fedimb.errors import ConfigError, RunDiverged, RunFailed
from fedimb.records import array_record, arrays_of
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.aggregator import Aggregator
from fedimb.serverapp.auxiliary_model import AuxiliaryModel
from fedimb.serverapp.launch import resume
from fedimb.serverapp.steps import Replace, Rounds
from fedimb.strategies.base import Method

WEIGHTS = Record("x.weights", "arrays", "weights of the second model", "model")
heard: list[tuple[int, int]] = []
"""(round, client) of every message of the second model, in order."""
sent_instead: dict[int, object] = {}
"""What single clients send in place of their weights."""
stop_before: set[int] = set()
"""Rounds before whose averaging the run is interrupted, once each."""


class Second(Method):
    """A second model of one array: its mean is the mean of its clients' ids plus its own value."""

    def program(self, run):
        def mean(replies):
            if (number := len({r for r, _ in heard})) in stop_before:
                stop_before.remove(number)
                raise KeyboardInterrupt
            values = [arrays_of(reply.content, "x.weights")["w"] for reply in replies]
            return {"w": np.mean(values, axis=0).astype(np.float32)}

        def about(number):
            return RecordDict({"x.about": ConfigRecord({"round": number})})

        model = AuxiliaryModel("second_teach", "x.weights", {"w": np.zeros(2, np.float32)}, mean, about)
        run.models["second"] = lambda draw: model
        yield Rounds(3, model="second")
        run.artifact("second.txt", str(model.parameters["w"].tolist()).encode())
        yield from self.inner_program(run)


class SecondClient(Client):
    def query(self, name, content, context):
        heard.append((int(content.config_records["x.about"]["round"]), context.client))
        w = arrays_of(content, "x.weights")["w"] + np.float32(context.client)
        return RecordDict({"x.weights": array_record({"w": np.asarray(sent_instead.get(context.client, w))})})


@pytest.fixture
def second():
    """Runs of ``second``, or of another server half; resumes the run in a folder where no words are given."""
    heard.clear(), sent_instead.clear(), stop_before.clear()
    contract = Contract("second", queries={"second_teach": (WEIGHTS,)})

    def launched(cwd, *words, method=Second):
        with own_method(method, SecondClient, contract) as groups:
            if not words:  # resume
                return resume(next((cwd / "runs" / "default").iterdir()))
            return launch_in(cwd, "strategy=second", "engine=inline", "clients.count=4", *words, dirs=[groups])

    return launched


def weights_of(result) -> str:
    return (result.folder / "artifacts" / "second.txt").read_text()


def test_its_rounds_are_rounds_that_nobody_sees_in_the_learning_curve(second, tmp_path):
    result = second(tmp_path, "rounds=2")
    assert heard == [(number, client) for number in range(3) for client in range(4)]
    assert weights_of(result) == "[4.5, 4.5]"
    lines = RunFolder(result.folder).metrics()
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["metrics"]["comm/up_bytes/second_teach"] == 3 * 4 * 8


def test_a_cohort_is_drawn_for_each_round_and_not_the_global_models(second, tmp_path):
    second(tmp_path, "rounds=1", "clients.count=20", "clients.participation=0.2", "data.n_max=100")
    cohorts = [{client for number, client in heard if number == n} for n in range(3)]
    assert [len(cohort) for cohort in cohorts] == [4, 4, 4]
    assert len({frozenset(cohort) for cohort in cohorts}) > 1


def test_where_nobody_is_available_it_stays_as_it_is(second, tmp_path):
    words = ("rounds=1", "clients.availability=0.001")
    assert weights_of(second(tmp_path, *words)) == "[0.0, 0.0]"
    assert heard == []


def test_simulated_losses_are_not_asked(second, tmp_path):
    result = second(tmp_path, "rounds=1", "clients.count=12", "clients.dropout=0.4", "clients.min_reply_fraction=0.1")
    assert 0 < len(heard) < 36
    assert weights_of(result) != "[16.5, 16.5]"


@pytest.mark.parametrize("before", [*(pytest.param(at, marks=pytest.mark.slow) for at in (1, 3)), 2])
def test_an_interrupted_step_goes_on_at_its_round(second, tmp_path, before):
    whole = second(tmp_path / "whole", "rounds=1")
    heard.clear(), stop_before.add(before)
    with pytest.raises(KeyboardInterrupt):
        second(tmp_path / "cut", "rounds=1")
    resumed = second(tmp_path / "cut")
    assert [number for number, client in heard if client == 0] == sorted([*range(3), before - 1])
    assert weights_of(resumed) == weights_of(whole)
    assert weights_sha(resumed) == weights_sha(whole)


class Moving(AuxiliaryModel):
    """Its mean depends on how often it was taken: kept in a list."""

    def __init__(self) -> None:
        about = lambda number: RecordDict({"x.about": ConfigRecord({"round": number})})  # noqa: E731
        super().__init__("second_teach", "x.weights", {"w": np.zeros(2, np.float32)}, self.average, about)
        self.taken: list[float] = []

    def average(self, replies):
        if len(self.taken) + 1 in stop_before:
            stop_before.clear()
            raise KeyboardInterrupt
        self.taken.append(1.0)
        values = [arrays_of(reply.content, "x.weights")["w"] for reply in replies]
        return {"w": (np.mean(values, axis=0) * sum(self.taken)).astype(np.float32)}


class Kept(Moving):
    def state_dict(self):
        return {"taken": self.taken}


def with_model(make):
    """A method that trains such a model first."""

    class Trains(Method):
        def program(self, run):
            model = make()
            run.models["second"] = lambda draw: model
            yield Rounds(3, model="second")
            run.artifact("second.txt", str(model.parameters["w"].tolist()).encode())
            yield from self.inner_program(run)

    return Trains


@pytest.mark.parametrize("before", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_what_it_keeps_besides_its_weights_survives(second, tmp_path, before):
    whole = second(tmp_path / "whole", "rounds=1", method=with_model(Kept))
    stop_before.add(before)
    with pytest.raises(KeyboardInterrupt):
        second(tmp_path / "cut", "rounds=1", method=with_model(Kept))
    resumed = second(tmp_path / "cut", method=with_model(Kept))
    assert weights_of(resumed) == weights_of(whole) == "[22.5, 22.5]"


def test_what_it_forgets_is_refused(second, tmp_path):
    with pytest.raises(RunFailed, match=r"^model Moving: 'taken' changed in Rounds\(3, second\) and is not in"):
        second(tmp_path, "rounds=1", method=with_model(Moving))


def test_what_its_mean_closes_over_is_refused_too(second, tmp_path):
    def make():
        seen: list[int] = []

        def mean(replies):
            seen.append(len(replies))
            return arrays_of(replies[0].content, "x.weights")

        about = lambda number: RecordDict({"x.about": ConfigRecord({"round": number})})  # noqa: E731
        return AuxiliaryModel("second_teach", "x.weights", {"w": np.zeros(2, np.float32)}, mean, about)

    with pytest.raises(RunFailed, match=r"^model AuxiliaryModel: 'mean' changed in Rounds"):
        second(tmp_path, "rounds=1", method=with_model(make))


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (
            np.array([0, np.nan], np.float32),
            r"second, round 1: no usable reply of client 2: record 'x.weights', 'w': is not finite",
        ),
        (np.zeros(3, np.float32), r"second, round 1: client 2's weights do not match those sent: left out"),
        (np.zeros(2, np.float64), r"do not match those sent"),
    ],
)
def test_weights_that_cannot_be_averaged_are_left_out_and_named(second, tmp_path, caplog, sent, says):
    sent_instead[2] = sent
    with caplog.at_level(logging.WARNING):
        result = second(tmp_path, "rounds=1")
    assert weights_of(result) == "[4.0, 4.0]"  # the mean of 0, 1 and 3, three times
    assert any(re.search(says, message) for message in caplog.messages)


def test_nobodys_weights_are_finite(second, tmp_path):
    sent_instead.update(dict.fromkeys(range(4), np.full(2, np.inf, np.float32)))
    with pytest.raises(
        RunDiverged, match=r"^second, round 1: only 0 of 4 clients gave a usable reply.*'w': is not finite"
    ):
        second(tmp_path, "rounds=1")


def test_it_cannot_be_replaced_as_the_global_model_can(second, tmp_path):
    class Replaced(Second):
        def program(self, run):
            yield from super().program(run)
            yield Replace({"w": np.ones(2)}, model="second")

    with pytest.raises(RunFailed, match=r"^Replace: 'second' is an auxiliary model of the method"):
        second(tmp_path, "rounds=1", method=Replaced)


def test_two_models_of_the_runs_own_kind_train_side_by_side(second, tmp_path):
    """An `Aggregator` under another name: clients train whichever weights come, and each keeps its own."""

    class Twice(Method):
        def program(self, run):
            first = run.models["global"]
            run.models["other"] = lambda draw: Aggregator(self, True, first(draw).parameters, {})
            yield from self.inner_program(run)
            yield Rounds(run.rounds, model="other")

    one = second(tmp_path / "one", "rounds=2", method=Method)
    two = second(tmp_path / "two", "rounds=2", method=Twice)
    assert weights_sha(one) == weights_sha(two)
    scores = [line["metrics"].get("test/macro_recall") for line in RunFolder(two.folder).metrics()]
    assert len(scores) == 4
    assert scores[1] == scores[3]


def test_a_generator_that_would_leave_uncut_is_refused_where_updates_are_cut(tmp_path):
    words = ("data=synthetic_table", "strategy=fedssg", "strategy.fedssg.source=fed_diffusion", "privacy.clip=1.0")
    with pytest.raises(ConfigError, match=r"^strategy.fedssg.source=fed_diffusion sends a generator's weights"):
        launch_in(tmp_path, *words, "engine=inline")
    assert not (tmp_path / "runs").exists()
