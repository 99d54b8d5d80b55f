"""The inputs of ``fedimb deploy plan``: ranges and days as typed, and facts read from the configured data."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedimb.atomic import write_atomic
from fedimb.config.effects import unread
from fedimb.config.load import to_json
from fedimb.config.overrides import set_value
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.files import parse_settings
from fedimb.deploy.study_plan.limits import SiteLimits, column_ranges
from fedimb.deploy.study_plan.page import as_html, as_markdown
from fedimb.deploy.study_plan.plan import StudyPlan, parse_time
from fedimb.deploy.study_plan.ranges import Range, Scalar
from fedimb.errors import ConfigError
from fedimb.plain import Settings
from fedimb.schema import RunConfig

MAX_WEIGHT_SHARE = 0.5
"""The largest share of one site in a mean, a sum or a score, unless the plan says another (from three sites on)."""
SUBGROUP_FLOOR = 10
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SPAN = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")


def parse_vary(words: Sequence[str]) -> dict[str, Range]:
    """Parse ``seed``, ``rounds=1..200``, ``loss.gamma=1,2`` into ranges by key.

    Raises:
        ConfigError: a key is given twice, or a range is empty.
    """
    found: dict[str, Range] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key or (equals and not text):
            raise ConfigError(f"--vary {word}: write KEY, KEY=1..50 or KEY=a,b,c")
        if key in found:
            raise ConfigError(f"--vary {key} is given twice: write one range or one list")
        span = _SPAN.fullmatch(text)
        if span is not None:
            low, high = (_number(part) for part in span.groups())
            if low > high:
                raise ConfigError(f"--vary {word}: the range is empty; write the smaller number first")
            found[key] = Range(low=low, high=high)
        else:
            found[key] = Range(among=[_scalar(part) for part in text.split(",")] if text else [])
    return found


def refuse_unread_ranges(config: RunConfig, vary: Mapping[str, Range]) -> None:
    """Refuse a setting that may vary and that no run of the plan reads: runs of other hashes would have equal numbers.

    It is asked with the plan's configuration, and with each value that another setting may have.

    Raises:
        ConfigError: names the setting, why it changes nothing, and what to do.
    """
    for key, own in vary.items():
        reasons: list[dict[str, str]] = []
        others = [(other, value) for other, one in vary.items() if other != key for value in _ends(one)]
        trials: list[list[tuple[str, Scalar]]] = [[], *([pair] for pair in others)]
        for said in trials:
            tree = json.loads(to_json(config))
            for setting, value in [*said, *((key, value) for value in _ends(own)[-1:])]:
                set_value(tree, setting, value)
            reasons.append(unread([key], {}, tree))
        if all(reasons):
            raise ConfigError(f"--vary {key}: {reasons[0][key]}")


def _ends(one: Range) -> list[Scalar]:
    """Listed values, or both ends of a range; none if any value is allowed."""
    return one.among or [end for end in (one.low, one.high) if end is not None]


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


def _scalar(text: str) -> Scalar:
    if text in ("true", "false"):
        return text == "true"
    return _number(text) if re.fullmatch(_NUMBER, text) else text


def end_of_day(day: str) -> str:
    """The end of a day in UTC: 2026-12-31 -> 2026-12-31T23:59:59Z. Raises ConfigError if it is not a date."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
        raise ConfigError(f"--expires {day}: write the last day as 2026-12-31")
    end = f"{day}T23:59:59Z"
    parse_time(end)
    return end


def _unlabelled(config: RunConfig) -> Settings:
    """The configured data without what the sites annotate: the one client that reads them here is none of the sites."""
    return config.data | {"labels": {}}


def describe_data(
    config: RunConfig, classes: str | None, minority: str | None, input_shape: str | None
) -> tuple[list[str], list[str], list[int]]:
    """(class names, minority names, input shape): as given, and the rest read from the configured data.

    Raises:
        ConfigError: ``input_shape`` is not a list of numbers. DataError: the data are missing or cannot be read.
    """
    names = classes.split(",") if classes else None
    rare = minority.split(",") if minority else None
    shape = _shape(input_shape) if input_shape else None
    if names is None or rare is None or shape is None:
        from fedimb.data.prepare import prepare

        # Not the configured partition: a study may be of fewer sites than the coordinator's data have.
        federation = prepare(_unlabelled(config), {"name": "iid"}, 1, config.seed)
        own = list(federation.class_names)
        if names is not None and names != own and (rare is None or shape is None):
            raise ConfigError(
                f"--classes {','.join(names)}, but the configured data have {', '.join(own)}: also give --minority and "
                "--input-shape, or leave out --classes"
            )
        held = federation.class_totals
        if rare is not None and (none := [name for name in rare if name in own and not held[own.index(name)]]):
            raise ConfigError(
                f"--minority {','.join(rare)}: the configured data have no training row of {', '.join(none)}, so "
                "nothing can be said of how it is found; name classes with rows"
            )
        rare = rare or [own[label] for label in federation.minority]
        names, shape = names or own, shape or list(federation.input_shape)
    return names, rare, shape


def describe_limits(
    config: RunConfig, sites: Sequence[str], rows: Sequence[str], values: Sequence[str], from_data: bool
) -> SiteLimits:
    """Rows and value ranges per site: as typed, and the rest read from the configured data.

    From the data: no site has more rows than all of them, and the values of a table's column lie at most its own span
    beyond them.

    Args:
        sites: names of the sites so far.
        rows: ``N`` for every site, or ``SITE=N``.
        values: ``LOW..HIGH`` for every column of a table, once; or once for each column, in order.
        from_data: False: the coordinator has no data, so what is not typed is the default of `SiteLimits`.

    Raises:
        ConfigError: not a number or range, or a site that does not exist. DataError: the data cannot be read.
    """
    by_site: dict[str, int] = {}
    tree: dict[str, object] = {"rows": by_site}
    for word in rows:
        site, equals, text = word.rpartition("=")
        if not re.fullmatch(r"[1-9]\d*", text) or (equals and site not in sites):
            known = f"sites are {', '.join(sites)}" if sites else "no site has been added yet"
            raise ConfigError(f"--rows {word}: write N for every site, or SITE=N; {known}")
        if site:
            by_site[site] = int(text)
        else:
            tree["most_rows"] = int(text)
    pairs = []
    for word in values:
        if (span := _SPAN.fullmatch(word)) is None or float(span[1]) > float(span[2]):
            raise ConfigError(f"--value-range {word}: write the smallest and largest value as in 0..120")
        pairs.append([float(span[1]), float(span[2])])
    found = _limits_of_data(config) if from_data and not ("most_rows" in tree and pairs) else {}
    tree = found | tree | ({"values": pairs} if pairs else {})
    return parse_settings(tree, SiteLimits, "limits")


def _limits_of_data(config: RunConfig) -> dict[str, object]:
    from fedimb.data.prepare import prepare

    federation = prepare(
        _unlabelled(config), {"name": "iid"}, 1, config.seed
    )  # not the configured partition: see above
    found: dict[str, object] = {"most_rows": len(federation.store)}
    if federation.store.scaled is not None:
        low, high = column_ranges(federation.store.x)
        low, high = np.nan_to_num(low), np.nan_to_num(high)
        span = np.maximum(high - low, 1.0)
        found["values"] = [[float(a), float(b)] for a, b in zip(low - span, high + span, strict=True)]
    return found


def with_deployment_defaults(words: Sequence[str]) -> list[str]:
    """A plan's settings with what a deployment sets unless it is typed: the largest share of one site, and the fewest
    people of a shown cell of ``data.subgroups``."""
    defaults = {"clients.max_weight_share": MAX_WEIGHT_SHARE}
    if any(word.lstrip("+").startswith("data.subgroups=") for word in words):
        defaults["evaluation.subgroup_floor"] = SUBGROUP_FLOOR
    given = {word.lstrip("+").partition("=")[0] for word in words}
    return [*words, *(f"{key}={value}" for key, value in defaults.items() if key not in given)]


def _shape(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise ConfigError(f"--input-shape {text}: write the size of one row as in 13 or 3,28,28")
    return [int(part) for part in text.split(",")]


def write_plan(deployment: Deployment, plan: StudyPlan) -> Path:
    """Write plans/<sha>/ and return the folder. An existing folder of that name holds the same plan."""
    folder = deployment.folder("plans", plan.sha)
    write_atomic(folder / "plan.md", as_markdown(plan).encode())
    write_atomic(folder / "plan.html", as_html(plan).encode())
    write_atomic(folder / "plan.json", plan.to_json().encode())
    return folder
