"""Tunes on separate seeds: every row tries the same number of configurations, and the best lower quartile wins.

The lower quartile, because the best mean is often at the edge of stability, where one seed in twelve collapses. If the
best value is the first or last of its range, the range is extended; if it still is afterwards, that is reported. A row
whose tau is found on held-out rows is tuned at tau 1: so it shares trials, choice and model with the row at tau 1.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fedimb.config.compose import refuse_unread
from fedimb.errors import ConfigError
from fedimb.evaluation.budget import expected_best
from fedimb.study.bars import ValidationScores
from fedimb.study.cells import Cell, first_config, plan, row_configs
from fedimb.study.collect import read_cells
from fedimb.study.design import TUNING_SEEDS_FROM, Study, Words, allowed, points_of
from fedimb.study.results import LOWER_IS_BETTER, TuningCurve
from fedimb.study.trunks import share_trunks
from fedimb.study.work import Done, Task

Execute = Callable[[Sequence[Task]], Mapping[str, Done]]


@dataclass(frozen=True)
class Trial:
    """One tried configuration of one row.

    Attributes:
        scope: its setting, or ``*`` if settings share their choice.
        label: row label.
        words: the settings tried.
        scores: scores on the tuning seeds; a diverged run gets the worst possible score.
        lost: number of runs without a score.
        lower_is_better: direction of the score; if True, the bad quartile is the upper one.
    """

    scope: str
    label: str
    words: Words
    scores: tuple[float, ...]
    lost: int
    lower_is_better: bool = False

    @property
    def quartile(self) -> float:
        """The quartile on the bad side of the scores: lower, or upper where lower is better."""
        return -self.worth if self.lower_is_better else self.worth

    @property
    def worth(self) -> float:
        """The value configurations are chosen by; higher is better."""
        signed = -np.asarray(self.scores) if self.lower_is_better else np.asarray(self.scores)
        # with an infinite value there is nothing to interpolate
        return float(np.quantile(signed, 0.25, method="linear" if np.isfinite(signed).all() else "lower"))


@dataclass
class Tuned:
    """The result of tuning.

    Attributes:
        trials: everything that was tried.
        best: the winner by (scope, label); the scope is a setting, or ``*`` if settings share their choice.
        edges: (scope, label) -> keys whose best value is still at the end of its range.
    """

    trials: list[Trial] = field(default_factory=list)
    best: dict[tuple[str, str], Trial] = field(default_factory=dict)
    edges: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def chosen(self, study: Study) -> dict[tuple[str, str], Words]:
        """The chosen settings by setting and label, for `fedimb.study.cells.plan`."""
        return {
            (setting, label): self.best[(setting if (setting, label) in self.best else "*", label)].words
            for setting in study.setting_words
            for label in study.tuned_rows
        }


def tune(study: Study, more: Sequence[str], execute: Execute) -> Tuned:
    """Try every row's configurations and choose.

    Args:
        study: the study.
        more: settings for every run, after the study's own.
        execute: runs tasks and returns outcomes by key; called once for the grid, and once for each extension.

    Raises:
        ConfigError: a configuration that cannot be run.
    """
    assert study.tune is not None
    tuned, spent = Tuned(), 0
    scopes, rounds = _grid(study)
    while rounds:
        _try(study, rounds, scopes, more, execute, tuned)
        _choose(tuned)
        further = _beyond(tuned)
        further = _valid(study, further, scopes, more) if spent < study.tune.extend else {}
        spent += 1
        every = further.get("*", {})
        rounds = [
            {
                (setting, label): words
                for setting in scopes
                for label, words in (further.get(setting, {}) | every).items()
            }
        ]
        rounds = [choice for choice in rounds if choice]
    return tuned


def check_tuning(study: Study, more: Sequence[str]) -> None:
    """Refuse, before any work, a configuration that tuning would try: every point of every row in every setting.

    Args:
        study: the study; one without tuning has none.
        more: settings for every run, after the study's own.

    Raises:
        ConfigError: a configuration that cannot be run or compared on equal terms (names point, row and setting).
    """
    if study.tune is None:
        return
    scopes, rounds = _grid(study)
    for choice in rounds:
        for setting in scopes:
            for part in _parts(study, choice, setting):
                row_configs(part, setting, choice, _words(study, more))
            _check_grid(study, choice, setting, more)


def _check_grid(study: Study, choice: Mapping[tuple[str, str], Words], setting: str, more: Sequence[str]) -> None:
    """Refuse a point of the study's grid that no row reads."""
    rows = study.tuned_rows
    every = [word for label, row in rows.items() if not row.tune for word in choice[setting, label]]
    shared = [*study.base, *study.setting_words[setting], *_words(study, more)]
    try:
        refuse_unread(shared, [(*row.words, *choice[setting, label]) for label, row in rows.items()], about=every)
    except ConfigError as error:
        raise ConfigError(f"tune.grid in setting '{setting}': {error}") from None


def _grid(study: Study) -> tuple[list[str], list[dict[tuple[str, str], Words]]]:
    """The settings that are tuned in, and point by point what every row tries there."""
    assert study.tune is not None
    scopes = [setting for setting in study.setting_words if study.tune.on is None or setting in study.tune.on]
    points = {label: points_of(study, row) for label, row in study.tuned_rows.items()}
    return scopes, [
        {(setting, label): own[i] for setting in scopes for label, own in points.items()} for i in range(allowed(study))
    ]


def _words(study: Study, more: Sequence[str]) -> Words:
    """Settings of every tuning run, after the study's own."""
    assert study.tune is not None
    quiet = (*more, "tracking=none", "evaluation.bootstrap=0", f"study={study.name}.tuning")
    return quiet if study.tune.validation is None else (*quiet, f"data.validation={study.tune.validation:g}")


def _parts(study: Study, choice: Mapping[tuple[str, str], Words], setting: str) -> list[Study]:
    """The study of the rows that try something in a setting; none if no row does."""
    rows = {label: row for label, row in study.all_rows.items() if (setting, label) in choice}
    return [study.model_copy(update={"rows": rows, "references": False, "gains": None})] if rows else []


def _try(
    study: Study,
    rounds: Sequence[Mapping[tuple[str, str], Words]],
    scopes: Sequence[str],
    more: Sequence[str],
    execute: Execute,
    tuned: Tuned,
) -> None:
    assert study.tune is not None
    seeds = tuning_seeds(study)
    cells: list[tuple[Cell, Words]] = []
    tasks: dict[str, Task] = {}
    for choice in rounds:
        for setting in scopes:
            for part in _parts(study, choice, setting):
                words = _words(study, more)
                own, found = plan(part, choice, words, seeds, [setting], computed=False, folds=False)
                cells += [(cell, choice[cell.setting, cell.label]) for cell in own]
                tasks |= {task.key: task for task in found}
    joined, places = share_trunks(list(tasks.values()))
    done = execute(joined)
    read = []
    for cell, _ in cells:
        task, keys = places[cell.task]
        read.append(replace(cell, task=task, calibration=keys[cell.calibration]))
    scores = _scores(study, read, done)
    shared = study.tune.on is not None
    gathered: dict[tuple[str, str, Words], list[tuple[float, bool]]] = {}
    for (cell, words), score in zip(cells, scores, strict=True):
        lost = not np.isfinite(score)
        key = ("*" if shared else cell.setting, cell.label, words)
        gathered.setdefault(key, []).append((_worst(study.tune.score) if lost else score, lost))
    lower = study.tune.score in LOWER_IS_BETTER
    for (scope, label, words), found_scores in gathered.items():
        values = tuple(score for score, _ in found_scores)
        tuned.trials.append(Trial(scope, label, words, values, sum(lost for _, lost in found_scores), lower))


def tuning_seeds(study: Study) -> list[int]:
    """The seeds of tuning runs: apart from the study's, or its own first ones where validation rows are scored."""
    assert study.tune is not None
    if study.tune.validation is not None:
        return study.seed_list[: study.tune.seeds]
    return list(range(TUNING_SEEDS_FROM, TUNING_SEEDS_FROM + study.tune.seeds))


def _scores(study: Study, cells: Sequence[Cell], done: Mapping[str, Done]) -> list[float]:
    """The score of every cell, on validation rows if the study says so; NaN for a run that did not finish."""
    assert study.tune is not None
    if study.tune.validation is not None:
        scored = ValidationScores(done)
        return [scored.of(cell, study.tune.score) for cell in cells]
    results = read_cells(cells, done, study.costs)
    return [result.score(study.tune.score) if result.status == "finished" else np.nan for result in results]


def _worst(score: str) -> float:
    """The score of a run without one."""
    if score in LOWER_IS_BETTER:
        return np.inf
    return -1.0 if score == "mcc" else 0.0


def _choose(tuned: Tuned) -> None:
    """Choose the best lower quartile of each row; among equals the one tried first."""
    tuned.best.clear()
    for trial in tuned.trials:
        key = (trial.scope, trial.label)
        if key not in tuned.best or trial.worth > tuned.best[key].worth:
            tuned.best[key] = trial


def _valid(
    study: Study, further: Mapping[str, Mapping[str, Words]], scopes: Sequence[str], more: Sequence[str]
) -> dict[str, dict[str, Words]]:
    """Keep the next values that can be run: a momentum of 1.2 ends the range, not the study."""

    def runs(scope: str, label: str, words: Words) -> bool:
        own = (*study.all_rows[label].words, *words)
        try:
            for setting in scopes if scope == "*" else [scope]:
                first_config(study, setting, own, more, said=())
        except ConfigError:
            return False
        return True

    return {
        scope: {label: words for label, words in rows.items() if runs(scope, label, words)}
        for scope, rows in further.items()
    }


def _beyond(tuned: Tuned) -> dict[str, dict[str, Words]]:
    """The next value of every key whose best value is at the end of its range, by scope and label; notes the edges."""
    further: dict[str, dict[str, Words]] = {}
    tuned.edges.clear()
    for (scope, label), best in tuned.best.items():
        tried = [dict(_pairs(t.words)) for t in tuned.trials if (t.scope, t.label) == (scope, label)]
        own = dict(_pairs(best.words))
        for key, value in own.items():
            values = sorted({point[key] for point in tried if key in point})
            if len(values) < 2 or values[0] < value < values[-1]:
                continue
            tuned.edges.setdefault((scope, label), []).append(key)
            step = values[1] / values[0] if value == values[0] else values[-1] / values[-2]
            beyond = value / step if value == values[0] else value * step
            words = tuple(f"{key}={beyond:.6g}" if w.startswith(f"{key}=") else w for w in best.words)
            further.setdefault(scope, {})[label] = words
    return further


def _pairs(words: Words) -> list[tuple[str, float]]:
    """The positive numeric settings of a configuration: those that have a next value."""
    found = []
    for word in words:
        key, _, text = word.partition("=")
        try:
            value = float(text)
        except ValueError:
            continue
        if value > 0:
            found.append((key, value))
    return found


def curves_of(tuned: Tuned, study: Study) -> list[TuningCurve]:
    """The expected best of k trials of every row, by scope and label in the order they were tried."""
    assert study.tune is not None
    sign = -1.0 if study.tune.score in LOWER_IS_BETTER else 1.0
    return [
        TuningCurve(scope, label, study.tune.score, tuple((sign * expected_best(worths)).tolist()))
        for scope, label in tuned.best
        if (worths := [trial.worth for trial in tuned.trials if (trial.scope, trial.label) == (scope, label)])
    ]


def write_curves(curves: Sequence[TuningCurve], path: Path) -> Path:
    """Write one line per setting, row and number of trials: the expected best of so many."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "label", "score", "trials", "expected_best"])
        for curve in curves:
            for trials, best in enumerate(curve.best, 1):
                writer.writerow([curve.setting, curve.label, curve.score, trials, f"{best:.6f}"])
    return path


def write_trials(tuned: Tuned, path: Path) -> Path:
    """Write one line per trial: scope, label, settings, bad quartile, mean, lost runs, chosen, edge, scores."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "label", "words", "lower_quartile", "mean", "lost", "chosen", "edge", "scores"])
        for trial in tuned.trials:
            key = (trial.scope, trial.label)
            chosen = tuned.best[key] is trial
            edge = " ".join(tuned.edges.get(key, [])) if chosen else ""
            scores = " ".join(f"{score:.4f}" for score in trial.scores)
            figures = [f"{trial.quartile:.6f}", f"{np.mean(trial.scores):.6f}"]
            writer.writerow([*key, " ".join(trial.words), *figures, trial.lost, int(chosen), edge, scores])
    return path
