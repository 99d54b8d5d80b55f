"""fedimb from Python: run, resume or compare, and read the result.

These functions leave the process as they found it, also if they raise: torch's threads, logging levels, environment
variables, random number generators (`fedimb.process_state`).
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.process_state import restored

if TYPE_CHECKING:
    from fedimb.report.document import Report
    from fedimb.rundir.model_file import TrainedModel
    from fedimb.rundir.prediction import Predictions
    from fedimb.rundir.result import RowResult, RunResult
    from fedimb.study.compare import Compared

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


def run(overrides: str = "", *, config_dirs: Sequence[str | Path] = ()) -> "RunResult":
    """Run one configuration, as ``fedimb run`` does.

    Example:
        >>> result = fedimb.run("loss=balanced_softmax rounds=2 seed=3 engine=inline tracking=none")
        >>> round(result.metrics["macro_recall"], 1), result.confusion.shape
        (0.3, (10, 10))

    Args:
        overrides: the command line's ``key=value`` arguments in one string.
        config_dirs: folders with your own configuration groups.

    Raises:
        ConfigError, DataError: before any work. RunFailed, RunWaiting: the run folder can be resumed.
        RunSuspect: the run finished but did not learn, and ``run.on_suspect=fail``.
    """
    with restored():  # before Flower is imported, as it decides then whether it may send telemetry
        from fedimb.config.compose import compose
        from fedimb.config.validate import validate
        from fedimb.serverapp.launch import launch

        result = launch(validate(compose(shlex.split(overrides), [Path(d) for d in config_dirs])))
    result.raise_if_refused()
    return result


def resume(path: str | Path, *, accept_changes: bool = False, trust: bool = False) -> "RunResult":
    """Continue a run that was killed, failed or is waiting, as ``fedimb run --resume`` does.

    Args:
        path: its run folder.
        accept_changes: continue although code or data changed since the start; the run's journal says so.
        trust: a class that the configuration names may come from a file in the working folder, even if the run was not
            started here.

    Raises:
        FedimbError: not a run folder, damaged, in use by another process, or the run fails again.
        RunSuspect: as `run`.
    """
    with restored():
        from fedimb.registry.targets import trusted
        from fedimb.serverapp import launch

        with trusted(trust):
            result = launch.resume(Path(path), accept_changes=accept_changes)
    result.raise_if_refused()
    return result


def compare(
    study: str | Path,
    overrides: str = "",
    *,
    workers: int | None = None,
    rerun: str | None = None,
    keep_stale: bool = False,
) -> "Compared":
    """Run what is missing or stale of a study and collect its results, as ``fedimb compare`` does before printing them.

    Example:
        >>> words = "seeds: 1\\nreferences: false\\nrows: {fedavg: [], balanced: [loss=balanced_softmax]}\\n"
        >>> _ = Path("study.yaml").write_text(words)
        >>> done = fedimb.compare("study.yaml", "rounds=1 engine=inline tracking=none", workers=0)
        >>> list(done.results.scores("default", "balanced", "macro_recall"))  # by seed
        [0]

    Args:
        study: the study's YAML file.
        overrides: settings for every run, applied after the study's own, in one string.
        workers: runs at a time; None: one per core; 0: all in this process.
        rerun: a row whose finished runs are run again too; ``""``: all rows.
        keep_stale: use finished runs whose code, data or versions have changed; their rows are called ``... (stale)``.

    Raises:
        ConfigError: the study cannot be run or compared on equal terms; raised before any work. `Compared.failures`
            names the runs that did not finish.
    """
    words = shlex.split(overrides)
    with restored():
        from fedimb.study import compare as comparison
        from fedimb.study.cells import plan
        from fedimb.study.design import read_study
        from fedimb.study.execute import workers_of
        from fedimb.study.reuse import Reuse

        read = read_study(Path(study).expanduser())
        folder = comparison.study_folder(plan(read, None, words)[1])
        command = " ".join(["fedimb", "compare", *map(shlex.quote, [str(study), *words])])
        return comparison.compare(read, words, workers_of(workers, folder, reuse=Reuse(rerun, keep_stale)), command)


def make_report(what: "RunResult | Compared | str | Path") -> "Report":
    """The HTML report that ``fedimb report`` writes, as an object: a notebook shows it, ``save(path)`` writes it.

    Args:
        what: the result of `run`, `resume` or `compare`, or the folder of a run or a study.

    Example:
        >>> report = fedimb.make_report(fedimb.run("rounds=1 clients.count=4 engine=inline tracking=none"))
        >>> report.save("report.html").name
        'report.html'

    Raises:
        FedimbError: nothing there has finished. ConfigError: jinja2 or matplotlib is not installed.
    """
    with restored():
        from fedimb.report.document import report_of

        return report_of(what)


def load_model(path: str | Path, *, trust: bool = False, site: str | None = None) -> "TrainedModel":
    """A trained global model, in eval mode: from a run folder or from its ``artifacts/model``.

    Args:
        path: the folder.
        trust: the model's class may come from a file in the working folder, even if the run was not started here.
        site: of a run whose sites have models of their own (``clients.models``, ``clients.private``): a site, a client
            (``client-3``) or a kind of network.

    Example:
        >>> result = fedimb.run("rounds=1 clients.count=4 engine=inline tracking=none")
        >>> model = fedimb.load_model(result.folder)
        >>> model.class_names[:3]
        ('0', '1', '2')
        >>> model.predict({"name": "digits"}).scores.shape  # or a file of new rows, or an array
        (1797, 10)

    Raises:
        FedimbError: there is no model at that path.
        ConfigError: the run's sites have models of their own and none was named, or it has no such site.
    """
    from fedimb.rundir import model_file

    return model_file.load_model(path, trust, site)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """The classes of the results, imported on first use because they import torch."""
        import importlib

        places = {
            "Compared": "study.compare",
            "Report": "report.document",
            "TrainedModel": "rundir.model_file",
            "Predictions": "rundir.prediction",
        }
        if name not in __all__:
            raise AttributeError(f"module 'fedimb.api' has no attribute {name!r}")
        return getattr(importlib.import_module(f"fedimb.{places.get(name, 'rundir.result')}"), name)
