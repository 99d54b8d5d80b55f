"""Finds what changed in a method, an aggregator or an auxiliary model during a step and is not in its state dict.

A resumed run would go on without it, in silence. So everything is digested when a step begins and again before each
checkpoint, and so are the run's settings and what the function of a `ServerWork` closes over; what the program itself
sets between two steps is not meant, for a resumed program runs again.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

from flwr.serverapp.strategy import Strategy

from fedimb.errors import RunFailed
from fedimb.serverapp.auxiliary_model import AuxiliaryModel
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.state_dict import PAGE, can_be_kept, check_shared, own_state, owner_name, remedy
from fedimb.serverapp.state_digest import attributes, computed, digest
from fedimb.serverapp.steps import ServerWork, Step
from fedimb.serverapp.stock_state import stock_attributes

_WEIGHTS = ("parameters", "buffers")  # of an auxiliary model: saved as such
_RUN = (RunContext, Server)  # built again with the run
_BY_THE_LOOP = (
    "estimate",
    "models",
    "server",
    "working",
    "artifact",
    "ledger",
    "prior_from_counts",
    "aside",
    "without",
    "find_taus",
    "search_taus",
)


class StateWatch:
    """Digests of what methods, aggregators and auxiliary models held when a step started."""

    def __init__(self) -> None:
        self._step = ""
        self._before: dict[int, _Snapshot] = {}
        self._beside: Callable[[], dict[str, Any]] = dict
        self._digests: dict[str, bytes] = {}

    def start_step(self, owners: Sequence[object], step: str, beside: Callable[[], dict[str, Any]] = dict) -> None:
        """Look at everything as it is before a step.

        Args:
            owners: methods, aggregators and auxiliary models.
            step: what errors call it.
            beside: what else must not change, read anew at every look: see `beside`.
        """
        self._step, self._beside = step, beside
        self._before = {id(owner): _Snapshot(owner, owners) for owner in owners}
        self._digests = _digests(beside(), owners)

    def check(self, owners: Sequence[object]) -> None:
        """Compare the state with that at the start of the step.

        Raises:
            RunFailed: an attribute changed and is not in the state dict, or the state dict has its old value, or two
                of the owners keep the same array.
        """
        check_shared(owners)
        for owner in owners:
            if (before := self._before.get(id(owner))) is not None:
                now = _Snapshot(owner, owners)
                for name in sorted(before.digests.keys() | now.digests.keys()):
                    if before.digests.get(name) != now.digests.get(name) and name not in now.saved_as_is:
                        self._covered(owner, name, before, now)
                for name in sorted(before.computed.keys() & now.computed.keys()):
                    if before.computed[name] != now.computed[name]:
                        self._covered(owner, name, before, now)
                before.computed = {**now.computed, **before.computed}  # those new are as they were computed
        beside = _digests(self._beside(), owners)
        for name in sorted(self._digests.keys() | beside.keys()):
            if self._digests.get(name) != beside.get(name):
                raise RunFailed(
                    f"method: {name} changed in {self._step}, so a resumed run would lose it: set it in the program, "
                    f"between two steps, from what ServerWork returns or state_dict() holds; {PAGE}"
                )

    def _covered(self, owner: object, name: str, before: "_Snapshot", now: "_Snapshot") -> None:
        changed = f"{owner_name(owner)}: {name!r} changed in {self._step}"
        if name not in now.state:
            value = now.attributes.get(name)
            keep = "" if can_be_kept(value) else f" ({remedy(value)})"
            raise RunFailed(
                f"{changed} and is not in state_dict(), so a resumed run would lose it: keep it there under its "
                f"name{keep}, or name it in the class attribute 'transient' if every round sets it before reading "
                f"it; {PAGE}"
            )
        if name in before.state and before.state[name] == now.state[name]:
            raise RunFailed(
                f"{changed}, but state_dict()[{name!r}] is unchanged: keep all of it that changes, or name it "
                f"in the class attribute 'transient' if the rest is set before it is read; {PAGE}"
            )


class _Snapshot:
    """The state of one object at one time.

    Attributes:
        owner: kept, so that its id stays its own.
        attributes: by name.
        digests: of the attributes that the state dict does not hold as they are.
        by_itself: names of those it does.
        computed: digests of what cached properties have computed so far, as in ``digests``.
        state: digests of its items that are made from attributes, by name.
    """

    def __init__(self, owner: object, owners: Sequence[object]) -> None:
        self.owner = owner
        self.attributes = attributes(owner)
        state = own_state(owner) or {}
        skipped = {*stock_attributes(type(owner)), *getattr(owner, "transient", ())}
        skipped |= set(_WEIGHTS) if isinstance(owner, AuxiliaryModel) else set()
        if isinstance(self.attributes.get("inner"), Strategy):
            skipped.add("inner")
        self.saved_as_is = {name for name, value in state.items() if self.attributes.get(name, state) is value}
        apart = {id(other): other for other in owners}
        left = self.attributes.keys() - skipped - self.saved_as_is
        self.digests = {name: digest(self.attributes[name], apart, _RUN) for name in left}
        made = {name: value for name, value in computed(owner).items() if name not in skipped}
        made = {name: value for name, value in made.items() if state.get(name, state) is not value}
        self.computed = {name: digest(value, apart, _RUN) for name, value in made.items()}
        self.attributes |= made
        self.state = {name: digest(state[name], apart, _RUN) for name in state.keys() & {*left, *made}}


def beside(step: Step, run: RunContext) -> dict[str, Any]:
    """What no state dict holds and a step must leave as it is, by what errors call it.

    That is what a method may set of its run (of ``counts``, only where they do not follow the weights or arrivals), and
    what the function of a `ServerWork` closes over: a resumed run does not call it again.
    """
    follow = run.estimate is not None or run.counts_of_arrivals
    skipped = {*_BY_THE_LOOP, *(("counts",) if follow else ())}
    found = {f"run.{name}": value for name, value in vars(run).items() if name not in skipped}
    if isinstance(step, ServerWork):
        if not isinstance(step.fn, FunctionType):
            return found | {"what its function holds": step.fn}
        for name, cell in zip(step.fn.__code__.co_freevars, step.fn.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # not filled yet
                found[f"'{name}' of its function"] = cell.cell_contents
    return found


def _digests(values: Mapping[str, Any], owners: Sequence[object]) -> dict[str, bytes]:
    apart = {id(other): other for other in owners}
    return {name: digest(value, apart, _RUN) for name, value in values.items()}
