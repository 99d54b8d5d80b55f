"""fedimb from Python: compose, run, read."""

import shlex
from pathlib import Path

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.rundir.model_file import load_model
from fedimb.rundir.result import RunResult
from fedimb.serverapp.launch import launch, resume

__all__ = ["RunResult", "load_model", "resume", "run"]


def run(overrides: str = "", *, config_dirs: tuple[str | Path, ...] = ()) -> RunResult:
    """Run one configuration, as ``fedimb run`` does.

    Example:
        >>> result = fedimb.run("loss=balanced_softmax rounds=2 seed=3 engine=inline tracking=none")
        >>> round(result.metrics["macro_recall"], 1), result.confusion.shape
        (0.3, (10, 10))

    Args:
        overrides: the command line's ``key=value`` words in one string.
        config_dirs: folders with configuration groups of your own.

    Raises:
        ConfigError, DataError: before any work. RunFailed, RunWaiting: the run folder can be resumed.
    """
    return launch(validate(compose(shlex.split(overrides), [Path(d) for d in config_dirs])))
