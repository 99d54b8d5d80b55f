"""Finds what changed in a method, an aggregator or an auxiliary model during a step and is not in its state dict.

A resumed run would silently lose it. So all attributes are digested when a step starts and again before each
checkpoint. What the program itself sets between two steps does not count, because a resumed program runs again.
"""

from collections.abc import Sequence

from flwr.serverapp.strategy import Strategy

from fedimb.errors import RunFailed
from fedimb.serverapp.auxiliary_model import AuxiliaryModel
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.state_dict import PAGE, can_be_kept, own_state, owner_name, remedy
from fedimb.serverapp.state_digest import attributes, digest
from fedimb.serverapp.stock_state import stock_attributes

_WEIGHTS = ("parameters", "buffers")  # of an auxiliary model: saved separately
_RUN = (RunContext, Server)  # rebuilt with the run


class StateWatch:
    """Digests of what methods, aggregators and auxiliary models held when a step started."""

    def __init__(self) -> None:
        self._step = ""
        self._before: dict[int, _Snapshot] = {}

    def start_step(self, owners: Sequence[object], step: str) -> None:
        """Record the state before a step, which errors call ``step``."""
        self._step = step
        self._before = {id(owner): _Snapshot(owner, owners) for owner in owners}

    def check(self, owners: Sequence[object]) -> None:
        """Compare the state with that at the start of the step.

        Raises:
            RunFailed: an attribute changed and is not in the state dict, or the state dict has its old value.
        """
        for owner in owners:
            if (before := self._before.get(id(owner))) is not None:
                now = _Snapshot(owner, owners)
                for name in sorted(before.digests.keys() | now.digests.keys()):
                    if before.digests.get(name) != now.digests.get(name) and name not in now.saved_as_is:
                        self._covered(owner, name, before, now)

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
        owner: the object, kept alive so that its id stays unique.
        attributes: attributes by name.
        digests: digests of the attributes that the state dict does not hold unchanged.
        saved_as_is: names of the attributes that it does hold unchanged.
        state: digests of the state dict's items that are derived from attributes, by name.
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
        self.state = {name: digest(value, apart, _RUN) for name, value in state.items() if name in left}
