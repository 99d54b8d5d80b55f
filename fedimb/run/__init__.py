"""The one run loop: steps, aggregator adapter, run folder, checkpoint, client state.

Everything that executes a run and nothing that knows a method. The package can also be called: the public
``fedimb.run("seed=3")`` and the folder ``fedimb/run/`` share a name, and importing the folder would otherwise hide
the function. It is `fedimb.api.run`.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedimb.run.result import RunResult


class _Callable(ModuleType):
    def __call__(self, overrides: str = "", **options: Any) -> "RunResult":
        from fedimb.api import run

        return run(overrides, **options)


sys.modules[__name__].__class__ = _Callable
