"""The bar of a study: in every setting the best of the free rows, chosen on validation rows and never on test rows.

Each client holds out a share of its training rows (``data.validation``), the free rows are trained on the rest and
scored on what was held out by all clients; the best mean over seeds is the bar. The test set, the partition and the
seeds are the study's own, so that the rows that choose are training rows of the very runs that are compared. These
runs are in the folder ``<study>.bar`` and used for nothing else: rows are compared on all of their training rows.
"""

import copy
import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fedimb.config.load import row_label
from fedimb.data.store import open_source
from fedimb.data.subgroups import source_to_open
from fedimb.errors import ConfigError
from fedimb.models.base import buffers_of, parameters_of
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.model_file import load_model
from fedimb.rundir.result import RunResult
from fedimb.rundir.stored import read_config, read_federation
from fedimb.serverapp.evaluate import Evaluator
from fedimb.study.cells import Cell, Chosen, first_config, plan
from fedimb.study.design import BarSettings, Study
from fedimb.study.references import ENCODED, at_min_count
from fedimb.study.results import Bar
from fedimb.study.work import Done, Task

WIDEST = 3072
"""Inputs up to which a covariance is added up, as in ``strategy=oneround``: a colour image of 32 x 32."""
_WITH_MATRIX = "lda"

Execute = Callable[[Sequence[Task]], Mapping[str, Done]]


def check_bar(study: Study, more: Sequence[str]) -> None:
    """Refuse, before any work, a bar that cannot be chosen or computed. Opens the data of every setting.

    Raises:
        ConfigError: inputs too many for a covariance, or no test set beside the clients' validation rows.
        DataError: the data cannot be read.
    """
    if (settings := study.bar_settings) is None:
        return
    for setting in study.setting_words:
        config = first_config(study, setting, (), more)
        if config.data["test"]["name"] == "none":
            raise ConfigError(
                f"setting '{setting}' is scored on the clients' validation rows, which leaves none to choose the bar "
                "on: give another data.test, or bar: false"
            )
        if _WITH_MATRIX not in settings.rows or _WITH_MATRIX in study.rows or config.model["name"] == ENCODED:
            continue
        width = math.prod(open_source(source_to_open(config.data)).input_shape)
        if width > WIDEST:
            rest = ", ".join(label for label in settings.rows if label != _WITH_MATRIX)
            raise ConfigError(
                f"setting '{setting}': a row has {width:,} inputs, too many for the covariance of {_WITH_MATRIX} "
                f"({width:,} x {width:,}; the limit is {WIDEST:,}). Give all rows an encoder (model=encoded) or "
                f"smaller images; or choose the bar without it: bar: {{rows: [{rest}]}}"
            )


def bar_study(study: Study, settings: BarSettings) -> Study:
    """The part of a study whose runs choose the bar: the free rows, on its first seeds."""
    labels = [at_min_count(label, count) for label in settings.rows for count in settings.min_counts]
    rows = {label: study.rows[label] for label in labels if label in study.rows}
    seeds = study.seed_list[: settings.seeds]
    own = {"name": f"{study.name}.bar", "rows": rows, "references": labels, "seeds": seeds, "bar": False}
    return study.model_copy(update=own | {"gains": None})


def bar_plan(study: Study, chosen: Chosen | None, more: Sequence[str]) -> tuple[list[Cell], list[Task]]:
    """The runs that choose the bar; none in a study without one. Raises ConfigError as `fedimb.study.cells.plan`."""
    if (settings := study.bar_settings) is None:
        return [], []
    quiet = ("tracking=none", "evaluation.bootstrap=0", f"study={study.name}.bar")
    words = (*more, f"data.validation={settings.validation:g}", *quiet)
    return plan(bar_study(study, settings), chosen, words)


def choose_bars(
    study: Study, chosen: Chosen, more: Sequence[str], execute: Execute
) -> tuple[tuple[Bar, ...], list[tuple[str, str, int, float]]]:
    """Train the free rows without their validation rows, score them there and choose.

    Args:
        study: the study.
        chosen: settings chosen by tuning.
        more: settings for every run, after the study's own.
        execute: runs tasks and returns outcomes by key.

    Returns:
        the bar of each setting and minimum count, and every (setting, row, seed, score on validation rows).
    """
    if (settings := study.bar_settings) is None:
        return (), []
    cells, tasks = bar_plan(study, chosen, more)
    done = execute(tasks)
    scored = ValidationScores(done)
    scores = [(cell.setting, cell.label, cell.seed, scored.of(cell, settings.score)) for cell in cells]
    return tuple(_bars(study, settings, scores)), scores


class ValidationScores:
    """Scores of cells on the rows that their clients held out; every run is scored once.

    Args:
        done: outcomes of the cells' tasks.
    """

    def __init__(self, done: Mapping[str, Done]) -> None:
        self._done = done
        self._read: dict[str, dict[str, dict[str, float]]] = {}

    def of(self, cell: Cell, score: str) -> float:
        """A cell's score; NaN if its run did not finish."""
        outcome = self._done[cell.task]
        if outcome.status != "finished" or outcome.path is None:
            return math.nan
        if cell.task not in self._read:
            self._read[cell.task] = validation_scores(outcome.path)
        return self._read[cell.task][cell.calibration][f"test/{score}"]


def validation_scores(path: Path) -> dict[str, dict[str, float]]:
    """Scores of a finished run's final model on the rows that its clients held out, by calibration.

    Returns:
        the scores of `fedimb.serverapp.evaluate.Evaluator`, named ``test/...`` as there.

    Raises:
        FedimbError: the run has no model, a damaged file, or validation rows with unknown cells.
        ConfigError: it has no validation rows.
    """
    folder = RunFolder.open(path)
    config, federation, result = read_config(folder), read_federation(folder), RunResult.read(path)
    rows = federation.known_validation()
    if not len(rows):
        raise ConfigError(f"the clients of {path} hold out no validation rows: set data.validation, e.g. 0.2")
    model = load_model(path).classifier
    aside = copy.copy(federation)
    aside.test = rows
    scored = Evaluator(config, aside)(parameters_of(model), buffers_of(model), result.prior_counts, None)
    return {name: scored[row_label(config, name)] for name in config.calibration}


def _bars(study: Study, settings: BarSettings, scores: Sequence[tuple[str, str, int, float]]) -> list[Bar]:
    """The best free row of each setting and minimum count; among equals the first; a row that lost a run never is."""
    found = []
    seeds = tuple(study.seed_list[: settings.seeds])
    for setting in study.setting_words:
        for count in settings.min_counts:
            means = {}
            for label in (at_min_count(row, count) for row in settings.rows):
                own = [score for where, row, _, score in scores if (where, row) == (setting, label)]
                means[label] = float(np.mean(own)) if own else math.nan
            best = max((label for label in means if math.isfinite(means[label])), key=means.__getitem__, default=None)
            found.append(Bar(setting, count, best, settings.score, means, seeds))
    return found


def write_bar_scores(scores: Sequence[tuple[str, str, int, float]], bars: Sequence[Bar], path: Path) -> Path:
    """Write one line per free row, setting and seed: its score on validation rows, and whether it is the bar."""
    best = {(bar.setting, bar.label) for bar in bars}
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "label", "seed", bars[0].score if bars else "score", "bar"])
        for setting, label, seed, score in scores:
            value = "" if math.isnan(score) else f"{score:.6f}"
            writer.writerow([setting, label, seed, value, int((setting, label) in best)])
    return path
