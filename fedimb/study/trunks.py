"""Runs that differ in post-hoc calibrations alone share their training: one run, several rows of scores."""

from collections.abc import Mapping, Sequence

from fedimb.config.load import from_json, to_json
from fedimb.plain import Settings
from fedimb.schema import RunConfig, calibration_part
from fedimb.serverapp.temperature import folds_needed
from fedimb.study.work import Task


def trunk_of(config: RunConfig) -> str:
    """Text of all that determines the trained model: equal for runs that may share it."""
    return to_json(config.model_copy(update={"calibration": {}}))


def merge_calibrations(given: Sequence[Mapping[str, Settings]]) -> tuple[dict[str, Settings], list[dict[str, str]]]:
    """The calibrations of several runs as those of one, and each run's keys in it.

    >>> merge_calibrations([{"la_post": {"tau": 1}}, {"none": {}}, {"la_post": {"tau": 2}}])[1]
    [{'la_post': 'la_post'}, {'none': 'none'}, {'la_post': 'la_post:2'}]
    """
    merged: dict[str, Settings] = {}
    keys: list[dict[str, str]] = []
    for own in given:
        found = {}
        for key, args in own.items():
            part = calibration_part(key)
            alike = [name for name in merged if calibration_part(name) == part]
            name = next((name for name in alike if merged[name] == args), None)
            found[key] = name or (f"{part}:{len(alike) + 1}" if alike else part)
            merged[found[key]] = args
        keys.append(found)
    return merged, keys


def fold_trainings(tasks: Sequence[Task]) -> int:
    """Trainings without a fold that these runs make beside their own (``calibration.la_post.tau: temperature``)."""
    return sum(folds_needed(from_json(task.config)) for task in tasks if task.kind == "run")


def share_trunks(
    tasks: Sequence[Task], same_parts: bool = False
) -> tuple[list[Task], dict[str, tuple[str, dict[str, str]]]]:
    """Join tasks that train the same model.

    Args:
        same_parts: join only runs of the same calibrations, which then differ in arguments.

    Returns:
        the tasks; and by the key of each one given: the key of its task now, and its calibrations' keys in that.
    """
    groups: dict[tuple[str, ...], list[tuple[Task, RunConfig]]] = {}
    for task in tasks:
        config = from_json(task.config)
        parts = sorted(map(calibration_part, config.calibration)) if same_parts else []
        alone = [task.key] if task.kind != "run" else []
        groups.setdefault((trunk_of(config), task.kind, *parts, *alone), []).append((task, config))
    joined: list[Task] = []
    places: dict[str, tuple[str, dict[str, str]]] = {}
    for members in groups.values():
        merged, keys = merge_calibrations([config.calibration for _, config in members])
        task, config = members[0]
        if len(members) > 1:
            what = f"{task.what}, and {len(members) - 1} more on its trunk"
            rows = dict.fromkeys(row for member, _ in members for row in member.rows)
            task = Task.of("run", config.model_copy(update={"calibration": merged}), what, tuple(rows))
        joined.append(task)
        places |= {member.key: (task.key, own) for (member, _), own in zip(members, keys, strict=True)}
    return joined, places
