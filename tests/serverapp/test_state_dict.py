"""What methods and aggregators keep survives a kill or is refused by name: nothing is dropped in silence."""

import contextlib
import random
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import killing
import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAdam, FedAvg
from interrupted import interrupted, only_run
from own_method import own_groups, own_method
from small_runs import launch_in, weights_sha

from fedimb import registry
from fedimb.clients.base import Client
from fedimb.contracts.base import Contract
from fedimb.errors import RunFailed
from fedimb.records import array_record, load_arrays, to_numpy
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.launch import resume
from fedimb.serverapp.steps import Rounds, ServerWork
from fedimb.strategies.base import Method

EVERYONE = {"fraction_train": 1.0, "min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
TINY = ("engine=inline", "data.imbalance_factor=5", "data.n_max=10", "clients.count=2", "rounds=3")


class Total:
    """A nested object with slots."""

    __slots__ = ("sum",)

    def __init__(self, start: float = 0.0) -> None:
        self.sum = start

    def add(self) -> "Total":
        self.sum += 1
        return self


def changed(change: Callable[[Any], object]) -> Callable[[Any], Any]:
    """As a step: change a value in place and return it."""
    return lambda value: (change(value), value)[1]


@dataclass(frozen=True)
class Thing:
    """Something an aggregator or a method keeps: made, changed in every round, read as a number, saved and loaded."""

    make: Callable[[], Any]
    step: Callable[[Any], Any]
    number: Callable[[Any], float]
    keep: Callable[[Any], Any] = lambda value: value
    load: Callable[[Any], Any] = lambda value: value
    says: str = ""


def torch_generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def of_state(state: Any, make: Callable[[], Any], setting: str) -> Any:
    made = make()
    getattr(made, setting)(state)
    return made


def numpy_of(state: dict[str, Any]) -> np.random.Generator:
    made = np.random.default_rng(0)
    made.bit_generator.state = state
    return made


THINGS = {
    "list of floats": Thing(list, changed(lambda v: v.append(len(v) + 0.5)), sum),
    "deque": Thing(
        lambda: deque(maxlen=2), changed(lambda v: v.append(sum(v) + 1.0)), sum, list,
        lambda v: deque(v, maxlen=2), r" \(keep list\(\.\.\.\) and rebuild the deque",
    ),
    "dict of tensors": Thing(
        lambda: {"a": torch.zeros(2)}, lambda v: {"a": v["a"] + 1, "b": torch.ones(1)}, lambda v: float(v["a"].sum())
    ),
    "tensor changed in place": Thing(lambda: torch.zeros(3), changed(lambda v: v.add_(1)), lambda v: float(v[0])),
    "array changed in place": Thing(lambda: np.zeros(3), changed(lambda v: v.__iadd__(1)), lambda v: float(v[0])),
    "set": Thing(set, changed(lambda v: v.add(len(v))), len, sorted, set, r" \(keep sorted\(\.\.\.\)"),
    "nested object": Thing(
        Total, Total.add, lambda v: v.sum, lambda v: {"sum": v.sum}, lambda v: Total(v["sum"]), " \\(keep its numbers"
    ),
    "numpy generator": Thing(
        lambda: np.random.default_rng(1), lambda v: v, lambda v: v.random(), lambda v: v.bit_generator.state, numpy_of,
        r" \(keep its \.bit_generator\.state",
    ),
    "torch generator": Thing(
        torch_generator, lambda v: v, lambda v: float(torch.rand(1, generator=v)), lambda v: v.get_state(),
        lambda v: of_state(v, torch_generator, "set_state"), r" \(keep its \.get_state\(\)",
    ),
    "random generator": Thing(
        lambda: random.Random(1), lambda v: v, lambda v: v.random(), lambda v: v.getstate(),
        lambda v: of_state(v, random.Random, "setstate"), r" \(keep its \.getstate\(\)",
    ),
}  # fmt: skip

EVERYTHING = Thing(
    lambda: {name: thing.make() for name, thing in THINGS.items()},
    lambda held: {name: thing.step(held[name]) for name, thing in THINGS.items()},
    lambda held: sum(float(thing.number(held[name])) for name, thing in THINGS.items()),
    lambda held: {name: thing.keep(held[name]) for name, thing in THINGS.items()},
    lambda held: {name: thing.load(held[name]) for name, thing in THINGS.items()},
)
"""All of them in one: what one of them loses changes the weights."""


class Depends:
    """Weights that depend on what is kept: each round they are scaled by it."""

    thing: Thing

    def begin(self) -> None:
        self.it = self.thing.make()

    def aggregate_train(self, server_round, replies):
        self.it = self.thing.step(self.it)
        arrays, metrics = super().aggregate_train(server_round, replies)
        scale = 1 + 0.01 * float(self.thing.number(self.it))
        return array_record({k: v * np.float32(scale) for k, v in to_numpy(arrays).items()}), metrics


class Aggregates(Depends, FedAvg):
    def __init__(self) -> None:
        FedAvg.__init__(self, **EVERYONE)
        self.begin()


class Wraps(Depends, Method):
    def __init__(self, inner) -> None:
        Method.__init__(self, inner)
        self.begin()


def keeping(cls: type, thing: Thing) -> type:
    """The class, with state_dict and load_state_dict."""

    class Keeps(cls):
        def state_dict(self):
            above = super().state_dict() if hasattr(cls, "state_dict") else {}
            return above | {"it": thing.keep(self.it)}

        def load_state_dict(self, state):
            self.it = thing.load(state.pop("it"))
            if hasattr(cls, "load_state_dict"):
                super().load_state_dict(state)

    return Keeps


@contextlib.contextmanager
def plugged_in(cls: type) -> Iterator[tuple[str, ...]]:
    """Words of a run of an aggregator or a method of the test's own, and the folder of its configuration."""
    if issubclass(cls, Method):
        with own_method(cls, Client, Contract("mine")) as groups:
            yield "strategy=mine", str(groups)
        return
    with registry.isolated():
        registry.register("aggregator", "mine", linear=False)(cls)
        yield "aggregator=mine", str(own_groups("aggregator", "mine", "name: mine\n"))


def run(cwd: Path, cls: type, *words: str):
    with plugged_in(cls) as (choice, groups):
        return launch_in(cwd, *TINY, choice, *words, dirs=[Path(groups)])


def run_cut(cwd: Path, cls: type, before_checkpoint_of: int = 2):
    """A run interrupted in a round, before its checkpoint, and resumed by a program that has everything built anew."""
    with plugged_in(cls) as (choice, groups):
        with interrupted(before_checkpoint_of):
            launch_in(cwd, *TINY, choice, dirs=[Path(groups)])
        return resume(only_run(cwd))


def refusal(cwd: Path, cls: type, *words: str) -> str:
    """What a run is refused with; it is never checkpointed, so nothing false is resumed."""
    with pytest.raises(RunFailed) as refused:
        run(cwd, cls, *words)
    (folder,) = (cwd / "runs" / "default").iterdir()
    assert RunFolder(folder).status() == "failed"
    assert not (folder / "checkpoint.safetensors").exists()
    return str(refused.value).splitlines()[0]


ends = pytest.mark.parametrize("end", [Aggregates, pytest.param(Wraps, marks=pytest.mark.slow)])
each_thing = pytest.mark.parametrize("thing", THINGS.values(), ids=list(THINGS))


@ends
@pytest.mark.parametrize(
    "thing",
    [EVERYTHING, *(pytest.param(thing, marks=pytest.mark.slow) for thing in THINGS.values())],
    ids=["everything", *THINGS],
)
def test_what_is_in_the_state_dict_survives_a_kill(thing, end, tmp_path):
    cls = keeping(type("Mine", (end,), {"thing": thing}), thing)
    whole = weights_sha(run(tmp_path / "whole", cls))
    assert weights_sha(run_cut(tmp_path / "cut", cls)) == whole


@ends
@each_thing
def test_what_was_forgotten_is_refused_by_class_attribute_and_remedy(thing, end, tmp_path):
    said = refusal(tmp_path, type("Mine", (end,), {"thing": thing}))
    owner = "aggregator" if end is Aggregates else "method"
    assert re.match(rf"{owner} Mine: 'it' changed in Rounds\(3\) and is not in state_dict\(\), so a resumed run", said)
    assert re.search(f"keep it there under its name{thing.says}", said)
    assert "docs/add-a-strategy.md" in said


@ends
def test_a_state_dict_that_leaves_out_one_attribute_is_refused(end, tmp_path):
    class Both(keeping(type("Mine", (end,), {"thing": THINGS["set"]}), THINGS["set"])):
        def aggregate_train(self, server_round, replies):
            self.rounds = server_round
            return super().aggregate_train(server_round, replies)

    assert re.match(r"\w+ Both: 'rounds' changed in Rounds\(3\) and is not in", refusal(tmp_path, Both))


def test_a_state_dict_that_does_not_follow_is_refused(tmp_path):
    thing = Thing(Total, Total.add, lambda v: v.sum, lambda v: {"start": 0.0})
    said = refusal(tmp_path, keeping(type("Mine", (Aggregates,), {"thing": thing}), thing))
    assert re.match(r"aggregator Keeps: 'it' changed in Rounds\(3\), but state_dict\(\)\['it'\] is unchanged", said)


@ends
def test_what_is_set_anew_in_every_round_may_be_called_transient(end, tmp_path):
    class Sets(end):
        thing = Thing(lambda: None, lambda v: 2.0, lambda v: v)
        transient = ("it",)

    run(tmp_path, Sets)


def test_an_aggregator_without_a_state_dict_that_changes_nothing_is_fine(tmp_path):
    class Still(FedAvg):
        def __init__(self) -> None:
            super().__init__(**EVERYONE)
            self.settings, self.table = {"a": [1, {2}]}, np.zeros(5)

    run(tmp_path, Still)


def test_a_change_after_some_rounds_is_refused_at_the_next_checkpoint(tmp_path):
    class Late(FedAvg):
        def __init__(self) -> None:
            super().__init__(**EVERYONE)
            self.late = []

        def aggregate_train(self, server_round, replies):
            if server_round == 3:
                self.late.append(1)
            return super().aggregate_train(server_round, replies)

    with pytest.raises(RunFailed, match=r"aggregator Late: 'late' changed"):
        run(tmp_path, Late)
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    assert load_arrays(folder / "checkpoint.safetensors")[1]["progress"]["server_round"] == 2


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": [1, {2}]}, r"state_dict\(\)\['it'\]\['a'\]\[1\] is a set, which cannot be saved: keep sorted\(\.\.\.\)"),
        (OrderedDict(a=1), r"\['it'\] is a collections\.OrderedDict, which cannot be saved: keep dict\(\.\.\.\);"),
        ({1.5: 0}, r"\['it'\] has the key 1\.5 \(float\): keys are strings or ints"),
        ([torch.zeros(1, requires_grad=True)], r"\['it'\]\[0\] is a torch\.Tensor.*detach\(\)"),
        (torch.zeros(2).to_sparse(), r"\['it'\] is a torch\.Tensor.*dense"),
        (np.array([object()]), r"\['it'\] is an array of Python objects"),
        (np.ma.masked_array([1.0]), r"\['it'\] is a numpy\.ma\.\w*\.?MaskedArray.*np\.array"),
        (torch.nn.Linear(1, 1), r"\['it'\] is a torch\.nn\.modules\.linear\.Linear.*state_dict\(\)"),
        (lambda: 0, r"\['it'\] is a function, which cannot be saved: keep its numbers"),
        (1j, r"\['it'\] is a complex"),
    ],
    ids=lambda given: type(given).__name__ if not isinstance(given, str) else "",
)
def test_what_cannot_be_saved_is_refused_by_its_path_before_the_first_round(value, says, tmp_path):
    class Odd(Aggregates):
        thing = THINGS["set"]

        def state_dict(self):
            return {"it": value}

    said = refusal(tmp_path, Odd)
    assert said.startswith("aggregator Odd: state_dict()")
    assert re.search(says, said), said
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    assert RunFolder(folder).metrics() == []


def test_a_subclass_of_a_stock_strategy_keeps_both_its_own_and_flowers_state(tmp_path):
    class Counts(Depends, FedAdam):
        thing = THINGS["list of floats"]

        def __init__(self) -> None:
            FedAdam.__init__(self, **EVERYONE)
            self.begin()

        def state_dict(self):
            return {"it": self.it}

    whole = weights_sha(run(tmp_path / "whole", Counts))
    assert weights_sha(run_cut(tmp_path / "cut", Counts)) == whole


@pytest.mark.slow
def test_a_list_of_rounds_survives_sigkill(warm, tmp_path):
    words = [*TINY, "tracking=none", "evaluation.bootstrap=0", "aggregator=remembers"]
    assert killing.run(warm, words, tmp_path, "after_checkpoint", 2) == -9
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    assert killing.resume(warm, folder, tmp_path) == 0
    assert (tmp_path / "seen.txt").read_text().splitlines() == ["[1.0]", "[1.0, 2.0]", "[1.0, 2.0, 3.0]"]


def test_the_pages_aggregator_survives_a_kill(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "add-a-strategy.md").read_text()
    (code,) = (block for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "class Restless" in block)
    space: dict[str, Any] = {}
    exec(compile(code, "add-a-strategy.md", "exec"), space)
    whole = weights_sha(run(tmp_path / "whole", space["Restless"]))
    assert weights_sha(run_cut(tmp_path / "cut", space["Restless"])) == whole


class OfTheRun(Method):
    def program(self, run):
        self.run, run.counts = run, np.ones(run.n_classes)
        yield Rounds(run.rounds)

    def on_train_replies(self, server_round, replies):
        self.run.counts = self.run.counts + 1
        return {}


class OfTheWork(Method):
    def program(self, run):
        found = {}
        yield ServerWork("search", lambda: found.update(scale=2.0))
        yield Rounds(run.rounds)


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (OfTheRun, r"run\.counts changed in Rounds\(3\), so a resumed run would lose it"),
        (OfTheWork, r"'found' of its function changed in ServerWork\(search\), so a resumed run would lose it"),
    ],
)
def test_what_a_step_changes_beside_the_methods_is_refused(cls, says, tmp_path):
    assert re.search(says, refusal(tmp_path, cls))


class Decays(FedAvg):
    def __init__(self) -> None:
        super().__init__(**EVERYONE)
        self.scale = 1.0

    def state_dict(self):
        return {"scale": self.scale}

    def aggregate_train(self, server_round, replies):
        self.scale *= 1.01
        arrays, metrics = super().aggregate_train(server_round, replies)
        return array_record({k: v * np.float32(self.scale) for k, v in to_numpy(arrays).items()}), metrics


@pytest.mark.parametrize("cut", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_what_a_program_does_to_an_aggregator_between_steps_counts_once(cut, tmp_path):
    class Halves(Method):
        def __init__(self, inner) -> None:
            super().__init__(Decays())

        def program(self, run):
            yield Rounds(1)
            self.inner.scale /= 2
            yield Rounds(run.rounds - 1)

    whole = weights_sha(run(tmp_path / "whole", Halves))
    assert weights_sha(run_cut(tmp_path / "cut", Halves, cut)) == whole
