"""The design of a study: data sets x settings x rows x seeds, read from a YAML file or a sweep's arguments.

```yaml
name: baselines
about: What plain baselines find.
base: [data=digits, model=mlp, local.lr=0.4]       # settings of every run
data_sets: {digits: [data=digits], glass: [data=glass]}
settings:                                          # or grid: {partition.alpha: [0.5, 0.1], ...}
  skewed: [partition.alpha=0.1]
rows:                                              # label: settings, besides the reference rows
  fedprox: [aggregator=fedprox]
  balanced: {words: [loss=balanced_softmax], tune: {local.lr: [0.2, 0.4]}}
seeds: 12
tune: {grid: {local.lr: [0.1, 0.2, 0.4]}, seeds: 5}
```
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedimb.errors import ConfigError, nearest
from fedimb.schema import PATTERNS, STUDY
from fedimb.strict_yaml import load_yaml
from fedimb.study.references import FREE, MIN_COUNTS, REFERENCES, at_min_count
from fedimb.study.results import COLUMNS

TUNING_SEEDS_FROM = 1000
"""First seed of tuning; comparisons do not use these seeds, so results are never reported on tuning seeds."""

MOST_CONTRASTS = 6
"""Contrasts that may be registered: Holm's correction over more would leave little of each."""
BAR = "bar"
"""What a registered contrast calls the best free row of each setting."""

VALIDATED = ("macro_recall", "minority_recall")
"""Scores that are computed on the rows that clients hold out."""
ValidationScore = Literal["macro_recall", "minority_recall"]

EQUAL = (
    "rounds",
    "local.epochs",
    "local.batch_size",
    "evaluation.every",
    "evaluation.last_k",
    "data",
    "clients",
    "partition",
)
"""Keys that no row may set: all rows make the same local steps on the same data, and are scored in the same rounds."""

Words = tuple[str, ...]
Grid = dict[str, list[object]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Strict):
    """One row of the comparison: its settings, and its own grid, which is tuned together with the study's."""

    words: Words = ()
    tune: Grid = Field(default_factory=dict)
    about: str = ""


class Tuning(_Strict):
    """How rows are tuned: the same number of configurations each, on separate seeds.

    Attributes:
        grid: values to try by key.
        seeds: number of tuning seeds.
        score: score to choose by.
        configurations: number of configurations per row, as a check; null: the size of ``grid``. A row with its own
            grid must have as many.
        extend: how often the range is extended when the best value is at its end.
        on: settings to tune in, whose choice all settings share; null: tune in each setting separately.
        validation: share of each client's training rows that are held out to choose on, at the study's own first seeds;
            null: choose on the test rows of separate seeds, which are other rows only where the test set is drawn by
            seed.
    """

    grid: Grid
    seeds: int = Field(default=5, ge=1)
    score: str = "macro_recall"
    configurations: int | None = Field(default=None, ge=1)
    extend: int = Field(default=2, ge=0)
    on: Annotated[list[str], Field(min_length=1)] | None = None
    validation: float | None = Field(default=None, gt=0, lt=1)


class Gains(_Strict):
    """Rows whose gain over plain FedAvg is taken apart (`fedimb.study.gains`): each runs also as given, without tuning.

    Attributes:
        rows: their labels.
        control: the scalar control: a plain row that spends the same number of trials on its learning rate and local
            steps. Its own ``tune`` may hold ``local.epochs``, which no other row may change.
    """

    rows: tuple[str, ...] = Field(min_length=1)
    control: str = "fedavg"


class BarSettings(_Strict):
    """The bar: the best of the free rows, chosen on validation rows in every setting (`fedimb.study.bars`).

    Attributes:
        rows: the free rows to choose from, at a minimum count of 1; their twins ``<row>@5`` are those at 5.
        min_counts: rows of all clients that a class needs to be predicted by a free row; a bar is chosen for each.
        score: score to choose by.
        validation: share of each client's training rows that are held out to choose on.
        seeds: number of the study's seeds (its first ones) whose validation rows count.
        margin: smallest difference to the bar that matters, in the unit of the score.
    """

    rows: tuple[str, ...] = FREE
    min_counts: tuple[Literal[1, 5], ...] = MIN_COUNTS
    score: ValidationScore = "macro_recall"
    validation: float = Field(default=0.2, gt=0, lt=1)
    seeds: int = Field(default=3, ge=1)
    margin: float = Field(default=0.01, gt=0)


class Registration(_Strict):
    """What a study fixes before its runs (`fedimb.study.registration`).

    Attributes:
        primary: score of the registered contrasts.
        contrasts: pairs of rows, of which the second may be ``bar``; six at most.
        margin_reason: why the bar's margin is the smallest difference that matters.
    """

    primary: str = "macro_recall"
    contrasts: tuple[tuple[str, str], ...] = Field(min_length=1, max_length=MOST_CONTRASTS)
    margin_reason: str = Field(min_length=1)


class Costs(_Strict):
    """The cost of mistakes: a matrix [C][C] (true, predicted) or a name; and the class frequencies in deployment."""

    matrix: list[list[float]] | str = "uniform"
    deployment: list[float] | Literal["training", "balanced"] = "training"


class Study(_Strict):
    """A study's YAML file. ``rows`` come after the ``references``; ``seeds`` is a number (0, 1, ...) or a list."""

    name: str = Field(pattern=STUDY)
    about: str = ""
    base: Words = ()
    data_sets: dict[str, Words] = Field(default_factory=dict)
    settings: dict[str, Words] = Field(default_factory=dict)
    grid: Grid = Field(default_factory=dict)
    rows: dict[str, Row] = Field(default_factory=dict)
    references: bool | list[str] = True
    seeds: int | list[int] = 3
    tune: Tuning | None = None
    gains: Gains | None = None
    control: str | None = None
    margin: float = Field(default=0.02, gt=0)
    bar: bool | BarSettings | None = None
    registration: Registration | None = None
    costs: Costs = Costs()
    takeaway: str = ""

    @field_validator("data_sets", mode="before")
    @classmethod
    def _data_sets(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return value
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list of data sets, or a mapping of names to settings; got {value!r}")
        if wrong := [one for one in value if not isinstance(one, str)]:
            raise ValueError(f"expected names of data sets, or a mapping of names to settings; got {wrong[0]!r}")
        if len(set(value)) < len(value):
            raise ValueError("a data set is named twice")
        return {name: (f"data={name}",) for name in value}

    @field_validator("rows", mode="before")
    @classmethod
    def _rows(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {label: row if isinstance(row, Mapping | Row) else {"words": row or ()} for label, row in value.items()}

    @field_validator("tune", mode="before")
    @classmethod
    def _tune(cls, value: object) -> object:  # to YAML 1.1 the key ``on`` is true
        return {"on" if k is True else k: v for k, v in value.items()} if isinstance(value, Mapping) else value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: int | list[int]) -> int | list[int]:
        seeds = list(range(value)) if isinstance(value, int) else value
        if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
            raise ValueError("give a number of at least 1, or a list of different seeds of at least 0")
        if max(seeds) >= TUNING_SEEDS_FROM:
            raise ValueError(f"seeds from {TUNING_SEEDS_FROM} on are for tuning")
        return value

    @property
    def seed_list(self) -> list[int]:
        """The seeds, in order."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    @property
    def reference_labels(self) -> list[str]:
        """Labels of the reference rows."""
        if self.references is not True:
            return list(self.references or ())
        asked = self.bar if isinstance(self.bar, BarSettings) else BarSettings()
        counts = () if self.bar is False else asked.min_counts
        free = {at_min_count(label, count) for label in asked.rows for count in (1, *counts)}
        every = {at_min_count(label, count) for label in FREE for count in MIN_COUNTS}
        return [r for r in REFERENCES if not REFERENCES[r].by_name and (r in free or r not in every)]

    @property
    def bar_settings(self) -> BarSettings | None:
        """How the bar is chosen; None with ``bar: false``, or if the references are a list without the free rows."""
        if isinstance(self.bar, BarSettings):
            return self.bar
        if self.bar is None:
            counts = tuple(c for c in MIN_COUNTS if all(at_min_count(label, c) in self.labels for label in FREE))
            return BarSettings(min_counts=counts) if counts else None
        return BarSettings() if self.bar else None

    @property
    def setting_words(self) -> dict[str, Words]:
        """Key=value words by setting: data sets crossed with named settings and the grid; ``default`` if there is one
        only.
        """
        return {name: words for name, (_, words) in self._crossed.items()}

    @property
    def data_set_of(self) -> dict[str, str]:
        """The data set of every setting; ``""`` if the study names none."""
        return {name: data_set for name, (data_set, _) in self._crossed.items()}

    @property
    def _crossed(self) -> dict[str, tuple[str, Words]]:
        sets, named = dict(self.data_sets) or {"": ()}, dict(self.settings) or {"": ()}
        crossed = {
            " ".join(part for part in (data_set, name, *shown) if part): (data_set, (*first, *words, *more))
            for data_set, first in sets.items()
            for name, words in named.items()
            for shown, more in _points(self.grid)
        }
        return {name or "default": found for name, found in crossed.items()}

    @property
    def all_rows(self) -> dict[str, Row]:
        """Rows that are runs, by label, references first; the study's own rows override references."""
        references = {
            label: Row(words=REFERENCES[label].words, about=REFERENCES[label].about)
            for label in self.reference_labels
            if REFERENCES[label].computed is None
        }
        rows = references | dict(self.rows)
        return rows | {as_given(label): rows[label] for label in self.taken_apart if label in rows}

    @property
    def taken_apart(self) -> tuple[str, ...]:
        """Labels of the rows that also run as given: the control and those whose gain is taken apart."""
        return (self.gains.control, *self.gains.rows) if self.gains is not None else ()

    @property
    def tuned_rows(self) -> dict[str, Row]:
        """Rows that tuning tries: all runs but the references that train nothing, and those as given."""
        given = set(map(as_given, self.taken_apart))
        return {
            label: row
            for label, row in self.all_rows.items()
            if label not in given and (label in self.rows or not REFERENCES[label].sums_only)
        }

    @property
    def labels(self) -> list[str]:
        """Every row's label, computed ones included, in the order of tables."""
        return list(dict.fromkeys([*self.reference_labels, *self.rows, *map(as_given, self.taken_apart)]))


def as_given(label: str) -> str:
    """The label of a row that runs without tuning, beside its tuned twin."""
    return f"{label} (as given)"


def grid_points(grid: Mapping[str, Sequence[object]]) -> list[Words]:
    """Every combination of a grid, as words: ``{lr: [1, 2]}`` -> ``[("lr=1",), ("lr=2",)]``; one empty for no grid."""
    return [words for _, words in _points(grid)]


def _points(grid: Mapping[str, Sequence[object]]) -> list[tuple[tuple[str, ...], Words]]:
    """((short names, words)) of every combination: the last part of a dotted key is enough to tell settings apart."""
    pairs = [[(f"{key.rpartition('.')[2]}={_text(v)}", f"{key}={_text(v)}") for v in vs] for key, vs in grid.items()]
    return [(tuple(s for s, _ in point), tuple(w for _, w in point)) for point in itertools.product(*pairs)]


def _text(value: Any) -> str:
    """A value as a word: lists and mappings in YAML's flow style, which the command line reads."""
    if isinstance(value, str):
        return value
    return str(yaml.safe_dump(value, default_flow_style=True, width=2**20)).split("\n...")[0].strip()


def read_study(path: Path) -> Study:
    """A study's YAML file. Raises ConfigError: no file, no YAML, an unknown key or label (with the nearest), a type."""
    try:
        tree = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; give the path of a study's YAML file, or two runs") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is not a study: it needs a mapping with name, rows, seeds")
    return study_of({"name": path.stem} | tree, str(path))


def study_of(tree: Mapping[str, object], where: str) -> Study:
    """Validate a study given as plain data; errors name ``where``. Raises ConfigError, see `read_study`."""
    try:
        study = Study.model_validate(dict(tree))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first(error)}") from None
    if unknown := [label for label in study.reference_labels if label not in REFERENCES]:
        raise ConfigError(f"{where}: no reference row '{unknown[0]}'.{nearest(unknown[0], REFERENCES)}")
    if not study.labels:
        raise ConfigError(f"{where}: the study has no rows; give rows, or references")
    if study.control is not None and study.control not in study.labels:
        raise ConfigError(f"{where}: control '{study.control}' is not a row.{nearest(study.control, study.labels)}")
    _check_bar(study, where)
    _check_gains(study, where)
    _check_registration(study, where)
    for keys in (study.grid, *(row.tune for row in study.rows.values()), study.tune.grid if study.tune else {}):
        for key, values in keys.items():
            if len({_text(value) for value in values}) != len(values) or not values:
                raise ConfigError(f"{where}: {key} has no values, or one twice; give different values to try")
    if study.tune is not None:
        if study.tune.score not in COLUMNS:
            raise ConfigError(
                f"{where}: tune.score: no score '{study.tune.score}'.{nearest(study.tune.score, COLUMNS)}"
            )
        for setting in study.tune.on or ():
            if setting not in study.setting_words:
                raise ConfigError(f"{where}: tune.on: no setting '{setting}'.{nearest(setting, study.setting_words)}")
        _check_validation(study, study.tune, where)
        _equal_tuning(study, where)
    return study


def _check_validation(study: Study, tune: Tuning, where: str) -> None:
    if tune.validation is None:
        return
    if tune.score not in VALIDATED:
        raise ConfigError(
            f"{where}: tune.score: '{tune.score}' is not computed on validation rows; give {' or '.join(VALIDATED)}"
        )
    if tune.seeds > len(study.seed_list):
        raise ConfigError(
            f"{where}: tune.seeds: with tune.validation the study's own seeds are used, and it has "
            f"{len(study.seed_list)}; give at most that many"
        )


def _check_bar(study: Study, where: str) -> None:
    if not study.bar or (settings := study.bar_settings) is None:
        return
    if not settings.rows or not settings.min_counts:
        raise ConfigError(f"{where}: bar: give rows to choose from and minimum counts, or bar: false")
    if unknown := [label for label in settings.rows if label not in FREE]:
        choices = f"choose from these.{nearest(unknown[0], FREE)}"
        raise ConfigError(f"{where}: bar.rows: '{unknown[0]}' is not a free row; {choices}")
    wanted = [at_min_count(label, count) for count in settings.min_counts for label in settings.rows]
    if absent := [label for label in wanted if label not in study.labels]:
        raise ConfigError(
            f"{where}: the bar is chosen from {', '.join(wanted)}: add {', '.join(absent)} to references, or "
            "leave some out: bar: {rows: [...], min_counts: [1]}"
        )


def _check_gains(study: Study, where: str) -> None:
    for label, row in study.rows.items():
        control = study.gains is not None and label == study.gains.control
        if wrong := [key for key in row.tune if key in EQUAL and not (control and key == "local.epochs")]:
            raise ConfigError(
                f"{where}: row '{label}' tunes {wrong[0]}: rows are compared at equal local steps, data and "
                "evaluation; only the control of gains: may be tuned over local.epochs"
            )
    if study.gains is None:
        return
    if study.tune is None:
        raise ConfigError(f"{where}: gains are taken apart into tuning and the rest: give tune:, or leave out gains:")
    runs = [label for label in study.all_rows if label in study.tuned_rows]
    for label in study.taken_apart:
        if label not in runs:
            raise ConfigError(f"{where}: gains: '{label}' is not a row that is tuned.{nearest(label, runs)}")
    if len(set(study.taken_apart)) < len(study.taken_apart):
        raise ConfigError(f"{where}: gains: a row is named twice, or is the control itself")


def _check_registration(study: Study, where: str) -> None:
    if (registered := study.registration) is None:
        return
    if registered.primary not in COLUMNS:
        raise ConfigError(
            f"{where}: registration.primary: no score '{registered.primary}'.{nearest(registered.primary, COLUMNS)}"
        )
    if len(study.data_sets) < 2:
        raise ConfigError(
            f"{where}: registration: contrasts are tested over data sets, and the study has {len(study.data_sets)}: "
            "give data_sets, 12 or more for claims"
        )
    if BAR in study.labels:
        raise ConfigError(f"{where}: a row called '{BAR}' would be taken for the bar in registration; rename it")
    if len(set(registered.contrasts)) < len(registered.contrasts):
        raise ConfigError(f"{where}: registration.contrasts: one is given twice")
    for first, second in registered.contrasts:
        for label in (first, second):
            if label != BAR and label not in study.labels:
                known = [*study.labels, BAR]
                raise ConfigError(f"{where}: registration.contrasts: no row '{label}'.{nearest(label, known)}")
        if first in (second, BAR):
            raise ConfigError(
                f"{where}: registration.contrasts: [{first}, {second}]: give two different rows, the bar second"
            )
        if second == BAR and study.bar_settings is None:
            raise ConfigError(
                f"{where}: registration.contrasts name the bar, and the study has none: give references: true, or a "
                f"list with {', '.join(FREE)}"
            )


def _equal_tuning(study: Study, where: str) -> None:
    """Require the same number of configurations for every row: else the row that tries most wins by luck."""
    for label, row in study.tuned_rows.items():
        if len(points_of(study, row)) != allowed(study):
            raise ConfigError(
                f"{where}: row '{label}' tries {len(points_of(study, row))} configurations, but each row must try "
                f"{allowed(study)}; give the row its own tune: grid, which replaces or extends tune.grid "
                "(a setting that the row fixes is not tuned)"
            )


def allowed(study: Study) -> int:
    """The number of configurations per row."""
    assert study.tune is not None
    return study.tune.configurations or len(grid_points(study.tune.grid))


def points_of(study: Study, row: Row) -> list[Words]:
    """The configurations a row tries: its own grid, and the study's grid without the settings the row fixes."""
    assert study.tune is not None
    fixed = {word.partition("=")[0] for word in row.words}
    return grid_points({k: v for k, v in study.tune.grid.items() if k not in fixed} | dict(row.tune))


def _first(error: ValidationError) -> str:
    """The first of pydantic's problems as a message; unknown keys come first, as they often explain the others."""
    # Of `bar`, true or a mapping, pydantic tells what is wrong with each; the mapping is what somebody wrote.
    found = min(error.errors(), key=lambda one: (one["type"] != "extra_forbidden", one["loc"][1:2] == ("bool",)))
    path = [str(part) for part in found["loc"] if part not in ("bool", BarSettings.__name__)]
    if found["type"] == "extra_forbidden":
        model = _INNER.get(path[0], Study) if len(path) > 1 else Study
        return f"no key '{'.'.join(path)}' in a study.{nearest(path[-1], model.model_fields)}"
    if found["type"] != "value_error" and path[0] in _EXPECTED:
        return f"{path[0]}: expected {_EXPECTED[path[0]]}"
    return f"{'.'.join(path) or 'the study'}: {_KINDS.get(found['type'], found['msg'].removeprefix('Value error, '))}"


_INNER: dict[str, type[BaseModel]] = {
    "rows": Row,
    "tune": Tuning,
    "costs": Costs,
    "bar": BarSettings,
    "gains": Gains,
    "registration": Registration,
}
_EXPECTED = {"seeds": "a number of seeds, or a list of them", "references": "true, false, or a list of row labels"}
_KINDS = {
    "too_long": f"at most {MOST_CONTRASTS}",
    "too_short": "give at least one",
    "string_too_short": "give one",
    "tuple_type": "expected a list of settings, e.g. [loss=focal, local.lr=0.1]",
    "list_type": "expected a list of values, e.g. [0.1, 0.2]",
    "missing": "is missing",
    "string_pattern_mismatch": PATTERNS[STUDY],
}
