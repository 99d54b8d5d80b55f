"""What methods and aggregators keep survives a kill or is refused by name: nothing is dropped in silence."""

import contextlib
import functools
import json
import logging
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
from own_method import own_method
from small_runs import launch_in, weights_sha

from fedimb import registry
from fedimb.clients.base import Client
from fedimb.contracts.base import Contract
from fedimb.errors import RunFailed
from fedimb.records import array_record, load_arrays, save_arrays, to_numpy
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.checkpoint import FolderCheckpointer
from fedimb.serverapp.launch import resume
from fedimb.serverapp.state_dict import check_shared, decode, encode, load_state
from fedimb.serverapp.state_digest import attributes, digest
from fedimb.serverapp.state_watch import StateWatch
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
def plugged_in(folder: Path, cls: type) -> Iterator[tuple[str, ...]]:
    """Words of a run of an aggregator or a method of the test's own, and the folder of its configuration."""
    if issubclass(cls, Method):
        with own_method(folder, cls, Client, Contract("mine")) as groups:
            yield "strategy=mine", str(groups)
        return
    (folder / "groups" / "aggregator").mkdir(parents=True, exist_ok=True)
    (folder / "groups" / "aggregator" / "mine.yaml").write_text("name: mine\n")
    with registry.isolated():
        registry.register("aggregator", "mine", linear=False)(cls)
        yield "aggregator=mine", str(folder / "groups")


def run(cwd: Path, cls: type, *words: str):
    with plugged_in(cwd, cls) as (choice, groups):
        return launch_in(cwd, *TINY, choice, *words, dirs=[Path(groups)])


def run_cut(cwd: Path, cls: type, monkeypatch, before_checkpoint_of: int = 2):
    """A run interrupted in a round, before its checkpoint, and resumed by a program that has everything built anew."""
    original, left = FolderCheckpointer.after_round, [before_checkpoint_of]

    def interrupted(self, loop, metrics, last):
        if loop.progress.server_round in left:
            left.clear()
            raise KeyboardInterrupt
        original(self, loop, metrics, last)

    monkeypatch.setattr(FolderCheckpointer, "after_round", interrupted)
    with plugged_in(cwd, cls) as (choice, groups):
        with pytest.raises(KeyboardInterrupt):
            launch_in(cwd, *TINY, choice, dirs=[Path(groups)])
        return resume(next((cwd / "runs" / "default").iterdir()))


def refusal(cwd: Path, cls: type, *words: str) -> str:
    """What a run is refused with; it is never checkpointed, so nothing false is resumed."""
    with pytest.raises(RunFailed) as refused:
        run(cwd, cls, *words)
    (folder,) = (cwd / "runs" / "default").iterdir()
    assert RunFolder(folder).status() == "failed"
    assert not (folder / "checkpoint.safetensors").exists()
    return str(refused.value).splitlines()[0]


ends = pytest.mark.parametrize("end", [Aggregates, Wraps])
each_thing = pytest.mark.parametrize("thing", THINGS.values(), ids=list(THINGS))


@ends
@each_thing
def test_what_is_in_the_state_dict_survives_a_kill(thing, end, tmp_path, monkeypatch):
    cls = keeping(type("Mine", (end,), {"thing": thing}), thing)
    whole = weights_sha(run(tmp_path / "whole", cls))
    assert weights_sha(run_cut(tmp_path / "cut", cls, monkeypatch)) == whole


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


def test_a_value_within_itself_is_refused():
    class Round(FedAvg):
        def state_dict(self):
            loop: list[Any] = [1]
            loop.append({"again": loop})
            return {"loop": loop}

        loop = None

    with pytest.raises(RunFailed, match=r"state_dict\(\)\['loop'\]\[1\]\['again'\] contains itself"):
        encode(Round())


@pytest.mark.parametrize("state", [None, [], {1: 2}])
def test_a_state_dict_is_a_dict_by_attribute_name(state):
    cls = type("Wrong", (FedAvg,), {"state_dict": lambda self: state})
    with pytest.raises(RunFailed, match=r"aggregator Wrong: state_dict\(\) must return a dict of values by attribute"):
        encode(cls())


def test_an_item_that_is_no_attribute_needs_load_state_dict():
    cls = type("Named", (FedAvg,), {"state_dict": lambda self: {"other": 1}})
    with pytest.raises(RunFailed, match="'other', which is not an attribute"):
        encode(cls())


EXACT = {
    "none": None,
    "numbers": [True, 1, -0.0, 1.0, 1e-320, float("inf"), 2**200, 0.1],
    "text": ["", "\u00e9", "\ud800", b"\x00\xff", b""],
    "empty": [[], {}, (), [[]], {"a": {}}],
    "keys": {1: "a", "1": "b", "": 0, -3: None, "a/b": 1, "dict": 2},
    "tuples": (1, (2.0, [3, (4,)])),
    "tags": [{"array": 1}, {"tuple": [1]}],
    "scalars": [np.float32(0.1), np.float64(0.1), np.int8(-3), np.bool_(True), np.str_("x"), np.datetime64("2020")],
    "arrays": [
        np.zeros(()), np.zeros((2, 0), np.float16), np.arange(6, dtype=np.int16).reshape(2, 3), np.array(["a", "bc"]),
        np.array([1 + 2j]), np.arange(3, dtype=">i4"), np.array([True]),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([np.nan, -0.0]), np.arange(6.0)[::2],
    ],
    "tensors": [
        torch.tensor(1.5), torch.ones(2, 3, dtype=torch.bfloat16), torch.zeros(0, 2), torch.tensor([True, False]),
        torch.arange(6).reshape(2, 3).T, torch.tensor([1 + 2j]), torch.tensor([1.0, float("nan")], dtype=torch.float16),
    ],
    "record": array_record({"w": np.ones((2, 2), np.float32), "n": np.array(3)}),
}  # fmt: skip


class Anything(FedAvg):
    """Keeps whatever it is given."""

    def __init__(self, it: Any = None) -> None:
        super().__init__()
        self.it = it

    def state_dict(self):
        return {"it": self.it}


def identical(one: Any, two: Any) -> None:
    """Same types, all the way down, and same bits."""
    assert type(one) is type(two)
    if isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            identical(a, b)
    elif isinstance(one, dict):
        assert [(type(k), k) for k in one] == [(type(k), k) for k in two]
        identical(list(one.values()), list(two.values()))
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert one.tobytes() == two.tobytes()
        assert two.flags.writeable
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert digest(one) == digest(two)
    elif hasattr(one, "items"):
        identical(to_numpy(one), to_numpy(two))
    else:
        assert repr(one) == repr(two)


@pytest.mark.parametrize("name", EXACT)
def test_values_come_back_from_a_file_with_their_types_and_bits(name, tmp_path):
    spec, arrays = encode(Anything({"x": EXACT[name]}))
    save_arrays(tmp_path / "file", arrays, {"spec": spec})
    read, info = load_arrays(tmp_path / "file")
    again = Anything()
    load_state(again, decode(info["spec"], read))
    identical(again.it, {"x": EXACT[name]})


def test_the_order_of_an_arrays_axes_in_memory_is_kept():
    spec, arrays = encode(Anything(np.asfortranarray(np.ones((2, 3)))))
    assert decode(json.loads(json.dumps(spec)), arrays)["own"]["it"].flags.f_contiguous


class Holding(Method):
    """A method that keeps one value."""

    def __init__(self, value: object) -> None:
        super().__init__(FedAvg())
        self.held = value

    def state_dict(self) -> dict[str, Any]:
        return {"held": self.held}


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(3.0),
        lambda: torch.arange(3.0),
        lambda: [1.0],
        lambda: {"a": 1.0},
        lambda: array_record({"w": np.arange(3.0)}),
    ],
)
def test_what_is_kept_under_two_names_is_one_object_again(make, tmp_path):
    value = make()
    method, again = (Holding({"first": [0, [value]], "n": [], "second": one}) for one in (value, None))
    spec, arrays = encode(method)
    save_arrays(tmp_path / "state", arrays, {"spec": spec})
    read, info = load_arrays(tmp_path / "state")
    load_state(again, decode(info["spec"], read))
    assert again.held["second"] is again.held["first"][1][0]
    assert again.held["second"] is not value
    assert digest(again.held) == digest(method.held)


def overlapping() -> dict[str, Callable[[], tuple[Any, Any]]]:
    table, tensor = np.arange(6.0).reshape(2, 3), torch.arange(6.0)
    return {
        "a view": lambda: (table, table[0]),
        "its transpose": lambda: (table, table.T),
        "the base of a view": lambda: (table[1:], table),
        "a slice of a tensor": lambda: (tensor, tensor[2:4]),
        "a tensor's array": lambda: (tensor, tensor.numpy()),
    }


@pytest.mark.parametrize("name", overlapping())
def test_arrays_that_share_memory_are_refused_by_class_attribute_and_remedy(name):
    first, second = overlapping()[name]()
    says = r"^method Holding: state_dict\(\)\['held'\]\['b'\] shares memory with method Holding: state_dict\(\)"
    with pytest.raises(RunFailed, match=says + r"\['held'\]\['a'\]\[0\], .*keep only one .*load_state_dict"):
        encode(Holding({"a": [first], "b": second}))


def test_arrays_that_do_not_share_memory_may_be_of_one_buffer():
    table = np.arange(6.0)
    frozen = table.view()
    frozen.flags.writeable = False
    encode(Holding([table[:3], table[3:]]))
    encode(Holding([table[::2], table[1::2]]))
    encode(Holding([frozen[:4], frozen[2:]]))  # nobody can change one of the two


def test_an_array_that_two_methods_keep_is_refused():
    shared = np.zeros(3)
    with pytest.raises(RunFailed, match=r"Holding: state_dict\(\)\['held'\] shares memory with method Holding: state"):
        check_shared([Holding(shared), Holding(shared)])
    check_shared([Holding(shared), Holding(shared.copy())])


def test_a_view_is_refused_before_the_first_round(tmp_path):
    class Viewing(Holding):
        def __init__(self, inner: Any) -> None:
            super().__init__(np.zeros((2, 3)))
            self.inner, self.row = inner, self.held[0]

        def state_dict(self) -> dict[str, Any]:
            return super().state_dict() | {"row": self.row}

    with (
        own_method(tmp_path, Viewing, Client, Contract("viewing")) as groups,
        pytest.raises(RunFailed, match=r"Viewing: state_dict\(\)\['row'\] shares memory with .*\['held'\]"),
    ):
        launch_in(tmp_path, *TINY, "strategy=viewing", dirs=[groups])


def test_a_subclass_of_a_stock_strategy_keeps_both_its_own_and_flowers_state(tmp_path, monkeypatch):
    class Counts(Depends, FedAdam):
        thing = THINGS["list of floats"]

        def __init__(self) -> None:
            FedAdam.__init__(self, **EVERYONE)
            self.begin()

        def state_dict(self):
            return {"it": self.it}

    whole = weights_sha(run(tmp_path / "whole", Counts))
    assert weights_sha(run_cut(tmp_path / "cut", Counts, monkeypatch)) == whole


@pytest.mark.slow
def test_a_list_of_rounds_survives_sigkill(warm, tmp_path):
    words = [*TINY, "tracking=none", "evaluation.bootstrap=0", "aggregator=remembers"]
    assert killing.run(warm, words, tmp_path, "after_checkpoint", 2) == -9
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    assert killing.resume(warm, folder, tmp_path) == 0
    assert (tmp_path / "seen.txt").read_text().splitlines() == ["[1.0]", "[1.0, 2.0]", "[1.0, 2.0, 3.0]"]


def test_the_pages_aggregator_survives_a_kill(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "add-a-strategy.md").read_text()
    (code,) = (block for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "class Restless" in block)
    space: dict[str, Any] = {}
    exec(compile(code, "add-a-strategy.md", "exec"), space)
    whole = weights_sha(run(tmp_path / "whole", space["Restless"]))
    assert weights_sha(run_cut(tmp_path / "cut", space["Restless"], monkeypatch)) == whole


class Odds:
    """What a digest must see, or must not."""

    shared: list[int] = []  # noqa: RUF012  the mistake itself
    count = 0
    __slots__ = ("__dict__", "__private", "slot")

    def __init__(self) -> None:
        self.slot, self.__private = [1], {2: [3]}
        total = [0.0]
        self.closure = lambda: total.append(1.0)
        self.steps = iter(range(5))
        self.words = (word for word in "abc")
        self.deep = {"a": [deque([Total()])]}
        self.me = self
        self.partial = functools.partial(np.add, [1])
        self.weights = torch.nn.Linear(2, 1)
        self.path, self.log = Path("a") / "b", logging.getLogger("fedimb.test")

    @functools.cached_property
    def derived(self) -> int:
        return 5

    @functools.cached_property
    def kept(self) -> list[int]:
        return [1]

    def change_private(self) -> None:
        self.__private[2].append(1)


CHANGES: dict[str, Callable[[Odds], object]] = {
    "slot": lambda o: o.slot.append(2),
    "_Odds__private": lambda o: o.change_private(),
    "closure": lambda o: o.closure(),
    "steps": lambda o: next(o.steps),
    "words": lambda o: next(o.words),
    "deep": lambda o: o.deep["a"][0][0].add(),
    "partial": lambda o: o.partial.args[0].append(2),
    "weights": lambda o: o.weights.weight.data.add_(1),
    "shared": lambda o: o.shared.append(1),
    "count": lambda o: setattr(type(o), "count", o.count + 1),
    "kept": lambda o: o.kept.append(2),
    "new": lambda o: setattr(o, "new", 1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_wherever_it_is(name):
    odds, watch = Odds(), StateWatch()
    watch.start_step([odds], "Rounds(1)")
    assert odds.kept
    watch.check([odds])
    CHANGES[name](odds)
    with pytest.raises(RunFailed, match=f"Odds: '{name}' changed in Rounds"):
        watch.check([odds])


def test_what_looking_at_an_object_leaves_behind_is_no_change():
    odds, watch = Odds(), StateWatch()
    watch.start_step([odds], "Rounds(1)")
    assert odds.derived == 5
    hash(odds.path), str(odds.path)
    odds.log.warning("something"), odds.log.isEnabledFor(5)
    odds.deep = {"a": [deque([Total()])]}  # another object, the same value
    watch.check([odds])
    assert "derived" not in attributes(odds)


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


@pytest.mark.parametrize("cut", [2, 3])
def test_what_a_program_does_to_an_aggregator_between_steps_counts_once(cut, tmp_path, monkeypatch):
    class Halves(Method):
        def __init__(self, inner) -> None:
            super().__init__(Decays())

        def program(self, run):
            yield Rounds(1)
            self.inner.scale /= 2
            yield Rounds(run.rounds - 1)

    whole = weights_sha(run(tmp_path / "whole", Halves))
    assert weights_sha(run_cut(tmp_path / "cut", Halves, monkeypatch, cut)) == whole
