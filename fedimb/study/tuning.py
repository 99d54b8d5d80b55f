"""Tuning on seeds of its own: every row tries the same number of configurations, the best lower quartile wins.

The lower quartile, because the best mean sits at the edge of stability, where one seed in twelve collapses. A best
value at the end of its range extends the range, and what is still at the end afterwards is reported. Source: ours.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedimb.study.cells import Cell, plan
from fedimb.study.collect import read_cells
from fedimb.study.plan import TUNING_SEEDS_FROM, Study, Words, allowed, points_of
from fedimb.study.results import LOWER_IS_BETTER
from fedimb.study.work import Done, Task

Execute = Callable[[Sequence[Task]], Mapping[str, Done]]


@dataclass(frozen=True)
class Trial:
    """One configuration of one row: its scores on the tuning seeds, diverged ones as the worst there is."""

    scope: str
    label: str
    words: Words
    scores: tuple[float, ...]
    lost: int

    @property
    def quartile(self) -> float:
        """Lower quartile of the scores."""
        return float(np.quantile(self.scores, 0.25))


@dataclass
class Tuned:
    """What tuning found.

    Attributes:
        trials: everything tried.
        best: the winner by (scope, label); the scope is a setting, or ``*`` where settings share their choice.
        edges: (scope, label) -> keys whose best value is still the last one tried.
    """

    trials: list[Trial] = field(default_factory=list)
    best: dict[tuple[str, str], Trial] = field(default_factory=dict)
    edges: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def chosen(self, study: Study) -> dict[tuple[str, str], Words]:
        """Words by setting and label, for `fedimb.study.cells.plan`."""
        return {
            (setting, label): self.best[(setting if (setting, label) in self.best else "*", label)].words
            for setting in study.setting_words
            for label in study.all_rows
        }


def tune(study: Study, more: Sequence[str], execute: Execute) -> Tuned:
    """Try every row's configurations and choose.

    Args:
        execute: does tasks; results by key. Called once for the grid, and once for each extension of it.

    Raises:
        ConfigError: a configuration that cannot be run.
    """
    assert study.tune is not None
    tuned, spent = Tuned(), 0
    scopes = [setting for setting in study.setting_words if study.tune.on is None or setting in study.tune.on]
    points = {label: points_of(study, row) for label, row in study.all_rows.items()}
    rounds: list[dict[tuple[str, str], Words]] = [
        {(setting, label): points[label][i % len(points[label])] for setting in scopes for label in points}
        for i in range(allowed(study))
    ]
    while rounds:
        _try(study, rounds, scopes, more, execute, tuned)
        _choose(study, tuned)
        further = _beyond(study, tuned) if spent < study.tune.extend else {}
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


def _try(
    study: Study,
    rounds: Sequence[Mapping[tuple[str, str], Words]],
    scopes: Sequence[str],
    more: Sequence[str],
    execute: Execute,
    tuned: Tuned,
) -> None:
    assert study.tune is not None
    name = f"{study.name}.tuning"
    seeds = list(range(TUNING_SEEDS_FROM, TUNING_SEEDS_FROM + study.tune.seeds))
    quiet = (*more, "tracking=none", "evaluation.bootstrap=0", f"study={name}")
    cells: list[tuple[Cell, Words]] = []
    tasks: dict[str, Task] = {}
    for choice in rounds:
        for setting in scopes:
            rows = {label: row for label, row in study.all_rows.items() if (setting, label) in choice}
            if rows:
                part = study.model_copy(update={"rows": rows, "references": False})
                own, found = plan(part, choice, quiet, seeds, [setting], computed=False)
                cells += [(cell, choice[cell.setting, cell.label]) for cell in own]
                tasks |= {task.key: task for task in found}
    done = execute(list(tasks.values()))
    results = read_cells([cell for cell, _ in cells], done, study.costs)
    shared = study.tune.on is not None
    gathered: dict[tuple[str, str, Words], list[tuple[float, bool]]] = {}
    for (cell, words), result in zip(cells, results, strict=True):
        score = result.score(study.tune.score)
        lost = result.status != "finished" or not np.isfinite(score)
        worst = -np.inf if study.tune.score not in LOWER_IS_BETTER else np.inf
        key = ("*" if shared else cell.setting, cell.label, words)
        gathered.setdefault(key, []).append((worst if lost else score, lost))
    for (scope, label, words), found_scores in gathered.items():
        values = tuple(0.0 if np.isneginf(v) else v for v, _ in found_scores)
        tuned.trials.append(Trial(scope, label, words, values, sum(lost for _, lost in found_scores)))


def _choose(study: Study, tuned: Tuned) -> None:
    """The best lower quartile of each row; of equals the one tried first."""
    assert study.tune is not None
    sign = -1.0 if study.tune.score in LOWER_IS_BETTER else 1.0
    tuned.best.clear()
    for trial in tuned.trials:
        key = (trial.scope, trial.label)
        if key not in tuned.best or sign * trial.quartile > sign * tuned.best[key].quartile:
            tuned.best[key] = trial


def _beyond(study: Study, tuned: Tuned) -> dict[str, dict[str, Words]]:
    """The next value of every key whose best value is the last one tried, by scope and label; notes the edges."""
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
    """The numeric settings of a configuration above 0: what has a next value."""
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


def write_trials(tuned: Tuned, path: Path) -> Path:
    """One line per configuration tried: scope, label, words, lower quartile, mean, runs lost, chosen, edge, scores."""
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
