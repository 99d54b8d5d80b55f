"""The inputs of ``fedimb deploy plan``: ranges and days as typed, and facts read from the configured data."""

import re
from collections.abc import Sequence
from pathlib import Path

from fedimb.atomic import write_atomic
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.study_plan.page import as_html, as_markdown
from fedimb.deploy.study_plan.plan import StudyPlan, parse_time
from fedimb.deploy.study_plan.ranges import Range, Scalar
from fedimb.errors import ConfigError
from fedimb.schema import RunConfig

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
        federation = prepare(config.data, {"name": "iid"}, 1, config.seed)
        own = list(federation.class_names)
        if names is not None and names != own and (rare is None or shape is None):
            raise ConfigError(
                f"--classes {','.join(names)}, but the configured data have {', '.join(own)}: also give --minority and "
                "--input-shape, or leave out --classes"
            )
        rare = rare or [own[label] for label in federation.minority]
        names, shape = names or own, shape or list(federation.input_shape)
    return names, rare, shape


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
