"""The `data` and `partition` groups of the configuration, checked before any work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fedimb import registry
from fedimb.data.findings.finding import check_accepted
from fedimb.data.groups import SplitConfig
from fedimb.data.label_spaces import LabelsConfig
from fedimb.data.longtail import SHAPES
from fedimb.data.normalize import check_normalize
from fedimb.data.placement import Placement
from fedimb.data.problems import ON_BAD
from fedimb.data.split_rules import check_test_rule
from fedimb.data.subgroups import parse_subgroups
from fedimb.errors import ConfigError, nearest
from fedimb.plain import Settings

ABOUT = ("source", "licence", "citation", "split", "flaws")
"""What `data.about` may say of a data set: where it is from, terms of use, whom to cite, the split, known flaws."""

WRAPS = ("annotates", "phased")
"""Flags of partitions around another one: they draw what clients annotate, or when a class appears."""


@dataclass(frozen=True)
class DataConfig:
    """One `data` group. Keys and defaults as in configs/data/*.yaml; `source` and `test` have none.

    ``about`` (`ABOUT`) is shown by `fedimb data` and stored with the run; it decides nothing and is not hashed.
    """

    source: Settings
    test: dict[str, object]
    validation: float = 0.0
    long_tail: str = "natural"
    imbalance_factor: float = 1.0
    n_max: int | None = None
    class_order: str = "seeded"
    minority: str | list[int | str] = "rarest_30pct"
    on_bad: str = "refuse"
    public: int | None = None
    split: Settings | None = None
    about: dict[str, str] | None = None
    accept: Sequence[str] = ()
    subgroups: Sequence[object] = ()
    normalize: Any = None
    labels: Any = None

    @staticmethod
    def parse(raw: Settings) -> "DataConfig":
        """Check keys, types and ranges; ConfigError names the dotted key and the remedy.

        What depends on the data (n_max against the available rows, class ids of `minority`) is checked when they are
        read.
        """
        known = [f.name for f in fields(DataConfig)]
        for key in raw:
            if key not in known:
                near = nearest(f"data.{key}", [f"data.{name}" for name in known])
                raise ConfigError(f"no setting 'data.{key}'.{near}")
        for key in ("source", "test"):
            if not isinstance(raw.get(key), dict) or not isinstance(raw[key].get("name"), str):
                raise ConfigError(
                    f"data.{key}={raw.get(key)!r}: give a name, as in data.{key}.name=NAME, "
                    f"or with arguments, {key}: {{name: NAME, ...}}"
                )
        config = DataConfig(**raw)
        check_test_rule(config.test)
        SplitConfig.parse(config.split)
        if config.test["name"] == "file" and (config.public is not None or config.validation):
            key = "validation" if config.validation else "public"
            raise ConfigError(f"data.{key} beside data.test=file: the file says which rows these are; leave it out")
        _check_about(config.about)
        if not (_number(config.validation) and 0 <= config.validation < 1):
            raise ConfigError(f"data.validation={config.validation!r}: give a fraction from 0 to below 1")
        if config.long_tail not in (*SHAPES, "natural"):
            valid = nearest(str(config.long_tail), [*SHAPES, "natural"])
            raise ConfigError(f"data.long_tail: no shape '{config.long_tail}'.{valid}")
        if not (_number(config.imbalance_factor) and config.imbalance_factor >= 1):
            raise ConfigError(f"data.imbalance_factor={config.imbalance_factor!r}: give a number of at least 1")
        if config.n_max is not None and not (_whole(config.n_max) and config.n_max >= 1):
            raise ConfigError(f"data.n_max={config.n_max!r}: give a whole number of at least 1, or null")
        if config.public is not None and not (_whole(config.public) and config.public >= 1):
            raise ConfigError(f"data.public={config.public!r}: give rows per class for the server, at least 1, or null")
        if config.on_bad not in ON_BAD:
            raise ConfigError(f"data.on_bad: no rule '{config.on_bad}'.{nearest(str(config.on_bad), ON_BAD)}")
        check_accepted(config.accept)
        parse_subgroups(config.subgroups)
        check_normalize(config.normalize)
        LabelsConfig.parse(config.labels)
        if config.class_order not in ("seeded", "fixed"):
            valid = nearest(str(config.class_order), ("seeded", "fixed"))
            raise ConfigError(f"data.class_order: no order '{config.class_order}'.{valid}")
        return config


def _check_about(about: object) -> None:
    if about is None:
        return
    if not isinstance(about, dict):
        raise ConfigError(f"data.about={about!r}: give a mapping of {', '.join(ABOUT)}, each a text")
    for key, text in about.items():
        if key not in ABOUT:
            near = nearest(f"data.about.{key}", [f"data.about.{name}" for name in ABOUT])
            raise ConfigError(f"no setting 'data.about.{key}'.{near}")
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"data.about.{key}={text!r}: give a text, or leave it out")


def partition_parts(raw: dict[str, object]) -> tuple[str, dict[str, object]]:
    """(name, the partitioner's arguments) of a `partition` group; ConfigError without a name or a wrong placement."""
    _, args = Placement.split(raw)
    name = args.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError("partition needs a name, for example partition: {name: dirichlet, alpha: 0.5}")
    return name, args


def inner_partition(args: Settings) -> tuple[str, Settings]:
    """(name, arguments) of the partition that deals the rows for one that says something of the classes (`WRAPS`).

    Args:
        args: its arguments; ``rows`` is that partition, ``iid`` without one.

    Raises:
        ConfigError: no name, or a partition that does not deal rows itself.
    """
    rows = args.get("rows")
    if rows is None:
        return "iid", {}
    if not isinstance(rows, dict) or not isinstance(rows.get("name"), str):
        raise ConfigError(f"partition.rows={rows!r}: give a partition, as in partition.rows={{name: iid}}")
    name = str(rows["name"])
    if wraps(name):
        raise ConfigError(
            f"partition.rows: partition '{name}' has its rows dealt by another itself; give one that deals rows"
        )
    if registry.flags("partition", name).get("virtual"):
        raise ConfigError(
            f"partition.rows: partition '{name}' deals no rows, as its clients are drawn when they are asked; give "
            "another, such as dirichlet"
        )
    return name, {key: value for key, value in rows.items() if key != "name"}


def wraps(name: str) -> bool:
    """Whether a partition has its rows dealt by another one, and itself says something of the classes (`WRAPS`)."""
    return any(registry.flags("partition", name).get(flag) for flag in WRAPS)


def inner_dealer(rows: Settings | None, columns: Mapping[str, Any]) -> Callable[..., Any]:
    """The partitioner that deals the rows for another, built.

    Args:
        rows: its name and arguments; None: ``iid``.
        columns: ``patients``, ``sites``, ``site_names`` of the rows, of which it gets those that it takes.

    Raises:
        ConfigError: as `inner_partition`.
    """
    name, args = inner_partition({"rows": rows})
    built: Callable[..., Any] = registry.build("partition", name, given=columns, **args)
    return built


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
