"""Finds what changed in a method, an aggregator or an auxiliary model during a step and is not in its state dict.

A resumed run would go on without it, in silence. So everything is digested when a step begins and again before each
checkpoint; what the program itself sets between two steps is not meant, for a resumed program runs again.
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

_WEIGHTS = ("parameters", "buffers")  # of an auxiliary model: saved as such
_RUN = (RunContext, Server)  # built again with the run


class StateWatch:
    """What methods, aggregators and auxiliary models held when a step began, as digests."""

    def __init__(self) -> None:
        self._step = ""
        self._before: dict[int, _Held] = {}

    def begin(self, owners: Sequence[object], step: str) -> None:
        """Look at everything as it is before a step, which is called ``step`` in errors."""
        self._step = step
        self._before = {id(owner): _Held(owner, owners) for owner in owners}

    def check(self, owners: Sequence[object]) -> None:
        """Look again.

        Raises:
            RunFailed: an attribute changed and is not in the state dict, or is there as it was before.
        """
        for owner in owners:
            if (before := self._before.get(id(owner))) is not None:
                now = _Held(owner, owners)
                for name in sorted(before.digests.keys() | now.digests.keys()):
                    if before.digests.get(name) != now.digests.get(name) and name not in now.by_itself:
                        self._covered(owner, name, before, now)

    def _covered(self, owner: object, name: str, before: "_Held", now: "_Held") -> None:
        changed = f"{owner_name(owner)}: {name!r} changed in {self._step}"
        if name not in now.state:
            value = now.attributes.get(name)
            keep = "" if can_be_kept(value) else f" ({remedy(value)})"
            raise RunFailed(
                f"{changed} and is not in state_dict(), so a resumed run would lose it: keep it there under its "
                f"name{keep}, or name it in the class attribute 'transient' if every round sets it anew before reading "
                f"it; {PAGE}"
            )
        if name in before.state and before.state[name] == now.state[name]:
            raise RunFailed(
                f"{changed}, but state_dict()[{name!r}] is what it was before: keep all of it that changes, or name it "
                f"in the class attribute 'transient' if the rest is set anew before it is read; {PAGE}"
            )


class _Held:
    """One object at one time.

    Attributes:
        owner: kept, so that its id stays its own.
        attributes: by name.
        digests: of the attributes that the state dict does not hold as they are.
        by_itself: names of those it does.
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
        self.by_itself = {name for name, value in state.items() if self.attributes.get(name, state) is value}
        apart = {id(other): other for other in owners}
        left = self.attributes.keys() - skipped - self.by_itself
        self.digests = {name: digest(self.attributes[name], apart, _RUN) for name in left}
        self.state = {name: digest(value, apart, _RUN) for name, value in state.items() if name in left}
