"""Runs a comparison: tune, run, collect results, write the study's record."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.atomic import write_atomic
from fedimb.errors import ConfigError
from fedimb.plain import JsonObject
from fedimb.rundir.environment import environment
from fedimb.study.bars import bar_plan, check_bar, choose_bars, write_bar_scores
from fedimb.study.cells import Cell, Chosen, plan
from fedimb.study.collect import as_asked, read_cells, setting_of
from fedimb.study.design import BarSettings, Study, study_of
from fedimb.study.execute import Workers, execute, failures
from fedimb.study.registration import judge, with_earlier_runs
from fedimb.study.results import Bar, Registered, StudyResults, TuningCurve, as_shown, write_csv
from fedimb.study.tuning import Tuned, check_tuning, curves_of, tune, write_curves, write_trials
from fedimb.study.work import Done, Task, earlier, folder_of, judged

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger("fedimb")

RECORD = "study.json"
"""File with everything needed to read a study's results again without running anything."""


@dataclass(frozen=True)
class Compared:
    """A finished comparison: its results, their folder, and a line per run that did not finish."""

    results: StudyResults
    folder: Path
    failures: list[str]

    def to_frame(self) -> "DataFrame":
        """The lines of ``rows.csv`` as a pandas frame (`fedimb.study.results.StudyResults.to_frame`)."""
        return self.results.to_frame()

    def _repr_html_(self) -> str:
        """For notebooks: a table per setting, then the runs that did not finish."""
        lost = [f"<li>{escape(line)}</li>" for line in self.failures]
        below = f"<p>{len(lost)} runs did not finish:</p><ul>{''.join(lost)}</ul>" if lost else ""
        return self.results._repr_html_() + below


def compare(
    study: Study,
    more: Sequence[str],
    workers: Workers,
    command: str,
    file: Path | None = None,
    show: Callable[[StudyResults], None] | None = None,
) -> Compared:
    """Run what is missing of a study and write ``study.json``, ``rows.csv`` and ``tuning.csv`` into its folder.

    Args:
        study: the study.
        more: settings for every run, after the study's own.
        workers: how runs are done.
        command: the command as typed, for the record.
        file: the study's file, whose registration is looked for; None: nothing is said of registration.
        show: called with the rows' results as soon as they are there; the bar is chosen after that, else before.

    Raises:
        ConfigError: a row that cannot be run or compared on equal terms; raised before any work.
    """
    _, tasks, _ = check_study(study, more)
    registered = None if file is None else judge(study, file, more)
    if registered is not None and registered.sha and registered.reasons:
        log.warning("%s", registered.sentence)
    folder = study_folder(tasks)
    folder.mkdir(parents=True, exist_ok=True)
    found: list[str] = []
    tuned: Tuned | None = None
    if study.tune is not None:
        tuned, found = tuned_rows(study, more, workers, folder)
    chosen = tuned.chosen(study) if tuned else {}
    control = study.control or default_control(study, tuned)
    bars: tuple[Bar, ...] = ()
    if show is None:
        bars, lost = chosen_bars(study, chosen, more, workers, folder)
        found += lost
    cells, tasks = plan(study, chosen, more)
    record = {
        "study": study.model_dump(),
        "words": list(more),
        "chosen": [[*key, list(words)] for key, words in chosen.items()],
        "control": control,
        "command": command,
        "edges": [[*key, keys] for key, keys in (tuned.edges.items() if tuned else ())],
        "environment": environment(),
        "bars": [bar.to_json() for bar in bars],
        "curves": [curve.to_json() for curve in (curves_of(tuned, study) if tuned else ())],
    }
    write_atomic(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    done = execute(tasks, workers, study.name)
    if renamed := _renamed(tasks, done):
        record["renamed"] = renamed
    results = gather(record, cells, done)
    if show is not None:
        show(results)
        bars, lost = chosen_bars(study, chosen, more, workers, folder)
        found += lost
        record["bars"] = [bar.to_json() for bar in bars]
        results = gather(record, cells, done)
    if registered is not None:
        registered = with_earlier_runs(registered, results.results)
        results = replace(results, registered=registered)
        record["registered"] = asdict(registered)
    write_atomic(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    results = replace(results, results=as_asked(results.results, tasks, done))
    write_csv(results.results, folder / "rows.csv")
    return Compared(results, folder, found + failures(tasks, done, workers))


def check_study(study: Study, more: Sequence[str]) -> tuple[list[Cell], list[Task], list[Task]]:
    """Refuse, before any work, all that a study could not run: rows, bar, contrasts and every point of its tuning.

    Returns:
        its cells and tasks before tuning, as `fedimb.study.cells.plan`, and the tasks that choose the bar.

    Raises:
        ConfigError, DataError: as `compare`.
    """
    cells, tasks = plan(study, None, more)
    check_bar(study, more)
    check_contrasts(study)
    check_tuning(study, more)
    return cells, tasks, bar_plan(study, None, more)[1]


def check_contrasts(study: Study) -> None:
    """Refuse, before any work, contrasts that cannot be tested for want of a package. Raises ConfigError."""
    if study.registration is not None and find_spec("statsmodels") is None:
        raise ConfigError("contrasts over data sets need statsmodels: pip install 'fedimb[sim]'")


def _renamed(tasks: Sequence[Task], done: dict[str, Done]) -> dict[str, str]:
    """Folder names of runs that were made on the same data under another name, by key (`fedimb.study.reuse`)."""
    own, unfinished = earlier(tasks)
    return {
        task.key: path.name
        for task in tasks
        if (path := done[task.key].path) is not None and task.key not in own.keys() | unfinished.keys()
    }


def tuned_rows(study: Study, more: Sequence[str], workers: Workers, folder: Path) -> tuple[Tuned, list[str]]:
    """Tune a study's rows and write ``tuning.csv``. Returns the result and a line per failed run."""
    lines: list[str] = []

    def run(tasks: Sequence[Task]) -> dict[str, Done]:
        done = execute(tasks, workers, f"{study.name}: tuning")
        lines.extend(failures(tasks, done, workers))
        return done

    tuned = tune(study, more, run)
    write_trials(tuned, folder / "tuning.csv")
    write_curves(curves_of(tuned, study), folder / "tuning_curves.csv")
    return tuned, lines


def chosen_bars(
    study: Study, chosen: Chosen, more: Sequence[str], workers: Workers, folder: Path
) -> tuple[tuple[Bar, ...], list[str]]:
    """Choose the bar of every setting and write ``bar.csv``. Returns the bars and a line per failed run."""
    lines: list[str] = []
    if study.bar_settings is None:
        return (), lines

    def run(tasks: Sequence[Task]) -> dict[str, Done]:
        done = execute(tasks, workers, f"{study.name}: bar")
        lines.extend(failures(tasks, done, workers))
        return done

    bars, scores = choose_bars(study, chosen, more, run)
    write_bar_scores(scores, bars, folder / "bar.csv")
    return bars, lines


def study_folder(tasks: Sequence[Task]) -> Path:
    """The folder of a study's runs and tables."""
    from fedimb.config.load import from_json

    return folder_of(from_json(tasks[0].config))


def default_control(study: Study, tuned: Tuned | None) -> str | None:
    """The better of the two free corrections according to tuning, or ``la_post`` without tuning; else plain FedAvg."""
    free = [label for label in ("la_post", "uniform+la_post") if label in study.labels]
    if not free:
        return next((label for label in ("fedavg", *study.labels) if label in study.labels), None)
    if tuned is None:
        return free[0]
    worth = {label: [t.worth for (_, own), t in tuned.best.items() if own == label] for label in free}
    return max(free, key=lambda label: sum(worth[label]) / max(1, len(worth[label])))


def gather(record: JsonObject, cells: Sequence[Cell], done: dict[str, Done]) -> StudyResults:
    """Collect a study's results from disk."""
    study = study_of(record["study"], RECORD)
    results = tuple(read_cells(cells, done, study.costs))
    settings = {
        name: replace(
            setting_of(name, words, [r for r in results if r.setting == name]), data_set=study.data_set_of[name]
        )
        for name, words in study.setting_words.items()
    }
    bars = tuple(map(Bar.of_json, record.get("bars", ())))
    machine = record["environment"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    facts = {"machine": f"{machine['platform']}, {machine['cores']} cores, Python {machine['python']}"}
    facts |= {"packages": versions, "seeds": ", ".join(map(str, study.seed_list))}
    if record["chosen"]:
        facts["tuned"] = "; ".join(f"{label} in {where}: {' '.join(w)}" for where, label, w in record["chosen"])
    if record["edges"]:
        facts["at the end of their range"] = "; ".join(
            f"{label} in {s}: {' '.join(k)}" for s, label, k in record["edges"]
        )
    return as_shown(
        StudyResults(
            study.name,
            " ".join(part for part in (study.about, study.takeaway and f"Takeaway: {study.takeaway}") if part),
            settings,
            tuple(study.labels),
            record["control"],
            results,
            record["command"],
            facts,
            bars,
            bar_settings.margin if (bar_settings := study.bar_settings) is not None else BarSettings().margin,
            study.registration.contrasts if study.registration is not None else (),
            study.registration.primary if study.registration is not None else "macro_recall",
            _registered(record.get("registered")),
            study.taken_apart,
            tuple(map(TuningCurve.of_json, record.get("curves", ()))),
        )
    )


def _registered(stored: JsonObject | None) -> Registered | None:
    return None if stored is None else Registered(tuple(stored["reasons"]), stored["sha"], stored["time"])


def read_compared(folder: Path) -> StudyResults:
    """Read the results of a study whose folder has a `RECORD`; nothing is run.

    Raises:
        ConfigError: the record is damaged, or from an incompatible version.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        study = study_of(record["study"], str(folder / RECORD))
        chosen = {(where, label): tuple(words) for where, label, words in record["chosen"]}
        where = str(folder.absolute().parent).replace("\\", "\\\\").replace("'", "\\'")
        words = [
            *record["words"],
            f"output_dir='{where}'",
            f"study='{folder.absolute().name}'",
        ]  # the folder may have moved
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder / RECORD} cannot be read ({type(error).__name__}: {error}); compare again"
        ) from None
    cells, tasks = plan(study, chosen, words)
    found, unfinished = earlier(tasks)
    for key, name in record.get("renamed", {}).items():
        if key not in found and (folder / name / "result.json").exists():
            found[key] = Done(folder / name, *judged(folder / name))
    absent = {task.key: Done(None, "failed", "not finished" if task.key in unfinished else "not run") for task in tasks}
    return gather(record, cells, absent | found)


def margin_of(folder: Path) -> float:
    """The equivalence margin of a study's folder; the default if it has no record.

    Raises:
        ConfigError: as `read_compared`.
    """
    if not (folder / RECORD).exists():
        return float(Study.model_fields["margin"].default)
    return study_of(json.loads((folder / RECORD).read_text())["study"], str(folder / RECORD)).margin
