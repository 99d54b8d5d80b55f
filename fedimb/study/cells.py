"""Turns a study into cells, one per setting, row and seed; cells with the same trained model share a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedimb.config.compose import compose, refuse_unread
from fedimb.config.load import config_sha
from fedimb.config.parts import trains_by_phase
from fedimb.config.validate import validate
from fedimb.errors import ConfigError
from fedimb.evaluation.phases import FORGETTING
from fedimb.schema import RunConfig
from fedimb.serverapp.temperature import at_tau_one
from fedimb.study.design import EQUAL, Row, Study, Words, as_given, points_of
from fedimb.study.references import (
    ENCODED,
    REFERENCES,
    is_free,
    noise_of,
    on_inputs_of,
    sends_sums_only,
    without_partition,
    without_privacy,
)
from fedimb.study.trunks import merge_calibrations, trunk_of
from fedimb.study.work import Task

_Member = tuple[str, str, RunConfig]  # setting, label, configuration

Chosen = Mapping[tuple[str, str], Words]
"""(setting, label) -> settings chosen by tuning."""


@dataclass(frozen=True)
class Cell:
    """One setting, row and seed.

    Attributes:
        kind: kind of its `Task`.
        calibration: the run's calibration whose scores it has; ``""`` for a computed row.
        task: key of the task that produces it.
        reference: whether it is a reference row of the study, and not one of its own.
    """

    setting: str
    label: str
    seed: int
    kind: str
    calibration: str
    task: str
    reference: bool = False


def first_config(
    study: Study, setting: str, words: Words, more: Sequence[str] = (), said: Words | None = None
) -> RunConfig:
    """The configuration of a row in a setting, with the first seed.

    Args:
        study: the study.
        setting: the setting's name.
        words: the row's settings, after those of the study and the setting.
        more: settings for every run, after the study's own.
        said: those of ``words`` that somebody said for this row alone, which must read them; None: all.

    Raises:
        ConfigError: as `compose` and `validate`, which name the setting.
    """
    base = [*study.base, *study.setting_words[setting], *more]
    if fixed := [word for word in (*base, *words) if word.lstrip("+").startswith("seed=")]:
        raise ConfigError(f"'{fixed[0]}': a study sets its own seeds; set seeds: in its file")
    if _pooled(words):
        base = list(without_partition(base))
    if sends_sums_only(words):
        if noise := noise_of(base):
            raise ConfigError(
                f"{noise} is of updates, and this reference sends sums without noise, so it would be compared with "
                "rows that have some: leave it out (references: [fedavg, la_post] and bar: false)"
            )
        base = list(without_privacy(base))
    if not any(word.startswith(("engine=", "engine.")) for word in base):
        base.append("engine=inline")  # each worker process does complete runs
    return validate(compose(words, shared=[f"study={study.name}", *base], about=said))


def plan(
    study: Study,
    chosen: Chosen | None = None,
    more: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    settings: Sequence[str] | None = None,
    computed: bool = True,
    folds: bool = True,
) -> tuple[list[Cell], list[Task]]:
    """All cells and their tasks, by seed first, so that early results are already a complete comparison.

    Args:
        study: the study.
        chosen: settings chosen by tuning, by setting and label.
        more: settings for every run, after the study's own.
        seeds, settings: use these instead of the study's.
        computed: whether to include the reference rows that are computed without a run.
        folds: False: tau 1 in place of one that is found on held-out rows, at the cost of more trainings.

    Raises:
        ConfigError: a row that cannot be run or compared on equal terms (names row and setting).
    """
    cells: list[Cell] = []
    tasks: dict[str, Task] = {}
    rows = [
        (setting, label, config)
        for setting in (study.setting_words if settings is None else settings)
        for label, config in row_configs(study, setting, chosen or {}, more).items()
    ]
    _refuse_unread(study)
    references = [
        (setting, label, first_config(study, setting, _tuned(chosen, setting, "fedavg"), more))
        for setting in (study.setting_words if settings is None else settings)
        for label in study.reference_labels
        if computed and REFERENCES[label].computed
    ]
    for seed in study.seed_list if seeds is None else seeds:
        trunks: dict[str, list[_Member]] = {}
        for setting, label, first in rows:
            config = first.model_copy(update={"seed": seed})
            config = config if folds else at_tau_one(config)
            trunks.setdefault(trunk_of(config), []).append((setting, label, config))
        for members in trunks.values():
            parts, keys = merge_calibrations([config.calibration for _, _, config in members])
            shared = members[0][2].model_copy(update={"calibration": parts})
            task = Task.of("run", shared, f"{members[0][1]}, {members[0][0]}, seed {seed}", [m[1] for m in members])
            tasks[task.key] = task
            cells += [
                Cell(s, label, seed, "run", next(iter(own.values())), task.key, label not in study.rows)
                for (s, label, _), own in zip(members, keys, strict=True)
            ]
        for setting, label, first in references:
            kind = str(REFERENCES[label].computed)
            task = Task.of(kind, first.model_copy(update={"seed": seed}), f"{label}, {setting}, seed {seed}", [label])
            tasks[task.key] = task
            cells.append(Cell(setting, label, seed, kind, "", task.key, True))
    return cells, list(tasks.values())


def _refuse_unread(study: Study) -> None:
    """Refuse words of the base that no row reads in any setting, and of a setting that no row reads in it."""
    own: list[Words] = [(), *(row.words for row in study.all_rows.values() if not _pooled(row.words))]
    refuse_unread(study.base, [(*words, *row) for words in study.setting_words.values() for row in own])
    for setting, words in study.setting_words.items():
        try:
            refuse_unread([*study.base, *words], own, about=words)
        except ConfigError as error:
            raise ConfigError(f"setting '{setting}': {error}") from None


def _pooled(words: Words) -> bool:
    """Whether a row is of one client with all rows."""
    return {"clients.count=1", "partition=iid"} <= set(words)


def _tuned(chosen: Chosen | None, setting: str, label: str) -> Words:
    return (chosen or {}).get((setting, label), ())


def row_configs(study: Study, setting: str, chosen: Chosen, more: Sequence[str]) -> dict[str, RunConfig]:
    """The configuration of every row that is a run, in one setting with the first seed, by label.

    Raises:
        ConfigError: as `plan`.
    """
    base = first_config(study, setting, (), more)
    found: dict[str, RunConfig] = {}
    labels: dict[str, str] = {}  # hash of the configuration -> the first row that has it
    for label, row in study.all_rows.items():
        own = row.words if label in study.rows else on_inputs_of(row.words, base.model["name"])
        tried = _tuned(chosen, setting, label)
        try:
            config = first_config(study, setting, (*own, *tried), more, _said_alone(label, row, own, tried))
        except ConfigError as error:
            point = "" if all(word in str(error) for word in tried) else f" with {' '.join(tried)}"
            raise ConfigError(f"row '{label}' in setting '{setting}'{point}: {error}") from None
        if len(config.calibration) != 1:
            raise ConfigError(f"row '{label}' has {len(config.calibration)} calibrations; make each a row of its own")
        pooled = label in REFERENCES and REFERENCES[label].pooled
        free = ("clients", "partition") if pooled else tuple(row.tune)  # of which only the scalar control has steps
        _equal(label, base, config, [key for key in EQUAL if key not in free])
        if study.bar_settings is not None:
            _same_inputs(label, base, config)
        twin = labels.setdefault(config_sha(config), label)
        if twin != label and not _tuned_apart(study, twin, label):
            raise ConfigError(f"rows '{twin}' and '{label}' are the same run; leave one out")
        found[label] = config
    _check_phases(study, setting, found)
    return found


def _said_alone(label: str, row: Row, own: Words, tried: Words) -> Words:
    """What somebody said for this row alone: not a reference's words, nor what the study's grid tries in every row."""
    reference = REFERENCES.get(label.removesuffix(as_given("")))
    if reference is not None and reference.words == row.words:
        return ()
    return (*own, *tried) if row.tune else own


def _check_phases(study: Study, setting: str, configs: Mapping[str, RunConfig]) -> None:
    """Refuse a bar of rows that see all classes at once, and a choice by what such rows do not have.

    Rows by phases train on fewer rows in fewer steps: `_equal` compares what is set, which is the same.

    Raises:
        ConfigError: names the rows.
    """
    phased = [label for label, config in configs.items() if trains_by_phase(config)]
    at_once = [label for label in configs if label not in phased]
    free = [label for label in at_once if is_free(label)]
    if phased and free and study.bar_settings is not None:
        raise ConfigError(
            f"row '{phased[0]}' in setting '{setting}' trains by phases, and '{free[0]}', of which the bar is chosen, "
            "on all classes at once in more steps: it bounds the others and cannot be their bar; give bar: false"
        )
    tuned = [label for label in at_once if label in study.tuned_rows]
    if study.tune is not None and study.tune.score == FORGETTING and tuned:
        raise ConfigError(
            f"row '{tuned[0]}' in setting '{setting}' trains on all classes at once and forgets none, so that "
            f"tune.score={FORGETTING} cannot choose its settings; give another score"
        )


def _same_inputs(label: str, base: RunConfig, config: RunConfig) -> None:
    """Refuse a row that sees an encoder's features where the bar sees the inputs, or those of another encoder."""
    ours, theirs = (_encoder(one) for one in (base, config))
    if ours != theirs:
        raise ConfigError(
            f"row '{label}' has {theirs or 'the inputs themselves'} where the study has {ours or 'those'}: the bar and "
            "all rows need the same inputs. Set the model in base or in a setting, where it holds for all, or give "
            "bar: false"
        )


def _encoder(config: RunConfig) -> str:
    """The encoder of a run's model as text; empty if its inputs are the rows themselves."""
    return f"encoder {config.model.get('encoder')}" if config.model["name"] == ENCODED else ""


def _tuned_apart(study: Study, one: str, other: str) -> bool:
    """Whether two rows of the same settings are tuned over different values: then they may share a run, or not."""
    if study.tune is None:
        return False
    tried = [points_of(study, study.tuned_rows[label]) if label in study.tuned_rows else None for label in (one, other)]
    return tried[0] != tried[1]


def _equal(label: str, base: RunConfig, config: RunConfig, keys: Sequence[str]) -> None:
    """Refuse a row that trains or is scored on other terms than the rest."""
    for key in keys:
        if (ours := _at(base, key)) != (theirs := _at(config, key)):
            raise ConfigError(
                f"row '{label}' changes {key} ({theirs!r} instead of {ours!r}): rows are compared at equal local "
                "steps, data and evaluation; set it in base or in a setting, where it holds for all"
            )


def _at(config: RunConfig, key: str) -> object:
    node: Any = config
    for part in key.split("."):
        node = getattr(node, part)
    found = node.model_dump() if hasattr(node, "model_dump") else node
    # What of a model stays at its client is the method: others take part all the same, for as many steps.
    return {name: value for name, value in found.items() if name != "private"} if key == "clients" else found
