"""fedimb: federated learning on imbalanced data, where the class that matters is the rare one.

``import fedimb`` loads nothing heavy. ``fedimb.run("aggregator=fedavg loss=ce seed=3")`` composes a
configuration, runs it and returns metrics, confusion matrix and model (`fedimb.api.run`).
"""

from typing import TYPE_CHECKING

from fedimb import _moved

if TYPE_CHECKING:
    from fedimb.api import (
        Compared,
        Predictions,
        Report,
        RowResult,
        RunResult,
        TrainedModel,
        compare,
        load_model,
        make_report,
        resume,
        run,
    )

__all__ = [
    "Compared",
    "Predictions",
    "Report",
    "RowResult",
    "RunResult",
    "TrainedModel",
    "compare",
    "load_model",
    "make_report",
    "resume",
    "run",
]
__version__ = "0.1.0"
_moved.install()

if not TYPE_CHECKING:  # a type checker that saw it would accept any misspelt name

    def __getattr__(name: str) -> object:
        """Lazy public names: ``fedimb.run`` and the others are imported on first use."""
        import importlib

        if name in __all__:
            from fedimb.supported import check

            check()
            return getattr(importlib.import_module("fedimb.api"), name)
        raise AttributeError(f"module 'fedimb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
