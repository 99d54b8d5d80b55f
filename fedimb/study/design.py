"""The design of a study: settings x rows x seeds, read from a YAML file or from the arguments of a sweep.

```yaml
name: baselines
about: What plain baselines find.
base: [data=digits, model=mlp, local.lr=0.4]       # settings of every run
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
from fedimb.study.references import REFERENCES
from fedimb.study.results import COLUMNS

TUNING_SEEDS_FROM = 1000
"""First seed of tuning; comparisons do not use these seeds, so results are never reported on tuning seeds."""

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
    """

    grid: Grid
    seeds: int = Field(default=5, ge=1)
    score: str = "macro_recall"
    configurations: int | None = Field(default=None, ge=1)
    extend: int = Field(default=2, ge=0)
    on: Annotated[list[str], Field(min_length=1)] | None = None


class Costs(_Strict):
    """The cost of mistakes: a matrix [C][C] (true, predicted) or a name; and the class frequencies in deployment."""

    matrix: list[list[float]] | str = "uniform"
    deployment: list[float] | Literal["training", "balanced"] = "training"


class Study(_Strict):
    """A study's YAML file. ``rows`` come after the ``references``; ``seeds`` is a number (0, 1, ...) or a list."""

    name: str = Field(pattern=STUDY)
    about: str = ""
    base: Words = ()
    settings: dict[str, Words] = Field(default_factory=dict)
    grid: Grid = Field(default_factory=dict)
    rows: dict[str, Row] = Field(default_factory=dict)
    references: bool | list[str] = True
    seeds: int | list[int] = 3
    tune: Tuning | None = None
    control: str | None = None
    margin: float = Field(default=0.02, gt=0)
    costs: Costs = Costs()
    takeaway: str = ""

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
        return (
            list(self.references or ())
            if self.references is not True
            else [r for r in REFERENCES if not REFERENCES[r].by_name]
        )

    @property
    def setting_words(self) -> dict[str, Words]:
        """Key=value words by setting: named settings crossed with the grid; ``default`` if there is only one."""
        named = dict(self.settings) or {"": ()}
        crossed = {
            " ".join(part for part in (name, *shown) if part): (*words, *more)
            for name, words in named.items()
            for shown, more in _points(self.grid)
        }
        return {name or "default": words for name, words in crossed.items()}

    @property
    def all_rows(self) -> dict[str, Row]:
        """Rows that are runs, by label, references first; the study's own rows override references."""
        references = {
            label: Row(words=REFERENCES[label].words, about=REFERENCES[label].about)
            for label in self.reference_labels
            if REFERENCES[label].computed is None
        }
        return references | dict(self.rows)

    @property
    def labels(self) -> list[str]:
        """Every row's label, computed ones included, in the order of tables."""
        return list(dict.fromkeys([*self.reference_labels, *self.rows]))


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
        _equal_tuning(study, where)
    return study


def _equal_tuning(study: Study, where: str) -> None:
    """Require the same number of configurations for every row: else the row that tries most wins by luck."""
    for label, row in study.all_rows.items():
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
    found = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    path = [str(part) for part in found["loc"]]
    if found["type"] == "extra_forbidden":
        model = _INNER.get(path[0], Study) if len(path) > 1 else Study
        return f"no key '{'.'.join(path)}' in a study.{nearest(path[-1], model.model_fields)}"
    if found["type"] != "value_error" and path[0] in _EXPECTED:
        return f"{path[0]}: expected {_EXPECTED[path[0]]}"
    return f"{'.'.join(path) or 'the study'}: {_KINDS.get(found['type'], found['msg'].removeprefix('Value error, '))}"


_INNER: dict[str, type[BaseModel]] = {"rows": Row, "tune": Tuning, "costs": Costs}
_EXPECTED = {"seeds": "a number of seeds, or a list of them", "references": "true, false, or a list of row labels"}
_KINDS = {
    "tuple_type": "expected a list of settings, e.g. [loss=focal, local.lr=0.1]",
    "list_type": "expected a list of values, e.g. [0.1, 0.2]",
    "missing": "is missing",
    "string_pattern_mismatch": PATTERNS[STUDY],
}
