"""The watch sees a change of an object wherever it is kept, and takes nothing else for one."""

import functools
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fedimb.errors import RunFailed
from fedimb.serverapp.state_digest import attributes
from fedimb.serverapp.state_watch import StateWatch


class Total:
    """A nested object with slots."""

    __slots__ = ("sum",)

    def __init__(self) -> None:
        self.sum = 0.0

    def add(self) -> None:
        self.sum += 1


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
