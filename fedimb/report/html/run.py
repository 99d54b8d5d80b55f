"""Shows one run as a study: one setting, a row per calibration, one seed."""

import json
from collections.abc import Mapping
from pathlib import Path

from fedimb.config.catalogue import data_set_about
from fedimb.errors import ConfigError
from fedimb.plain import Settings
from fedimb.report.html.classes import partition_of
from fedimb.report.phases import AT_ONCE, trained_at_once
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.identity import read_identity
from fedimb.rundir.result import RunResult
from fedimb.study.collect import REPORTED, read_run, setting_of
from fedimb.study.design import Costs
from fedimb.study.results import StudyResults

_GROUPS = (
    "data",
    "partition",
    "model",
    "strategy",
    "aggregator",
    "loss",
    "sampler",
    "calibration",
    "explanation",
    "engine",
    "tracking",
)
_SPECIAL = set(" '\"[](){}*?$&|;<>!#~`\\")


def study_of_run(path: str | Path) -> StudyResults:
    """Read a finished run's folder as a study; the first of several rows is the control.

    Raises:
        FedimbError: not a run folder, or not finished; says how to continue it.
    """
    done = RunResult.read(path)
    folder = RunFolder.open(done.folder)
    folder.check_sealed(*REPORTED)
    config = folder.read_json("config.json")
    results = tuple(read_run(done.folder, "default", Costs()))
    setting = setting_of("default", _words(config), results)
    return StudyResults(
        name=done.folder.name,
        about="One run" + (", scored in several ways." if len(results) > 1 else "."),
        settings={setting.name: setting},
        labels=tuple(r.label for r in results),
        control=results[0].label if len(results) > 1 else None,
        results=results,
        command=command(config),
        facts=_facts(folder) | ({"phases": AT_ONCE} if trained_at_once(done) else {}),
    )


def command(config: Settings) -> str:
    """The ``fedimb run`` command that gives this configuration again, checked by composing it.

    Args:
        config: a resolved configuration, as in ``config.json``.

    Returns:
        the command; where words cannot give it (a data set or part of the user's own), where to find it.
    """
    from fedimb.config.compose import compose
    from fedimb.config.load import to_json
    from fedimb.config.validate import validate

    groups = [f"{group}={_chosen(config, group)}" for group in _GROUPS if group in config]
    try:
        words = [*groups, *_different(compose(groups), config)]
        made = validate(compose((), shared=words))
    except ConfigError:
        made = None
    if made is None or to_json(made) != to_json(type(made).model_validate(dict(config))):
        return "# fedimb.run with the configuration that config.json in the run folder holds"
    quoted = ["'" + word.replace("'", "'\\''") + "'" if set(word) & _SPECIAL else word for word in words]
    return " ".join(["fedimb run", *quoted])


def _chosen(config: Settings, group: str) -> str:
    """The option of a group that a configuration was made with: for data of a shipped set its YAML, else the source."""
    about = config[group].get("about") if group == "data" else None
    return (about and data_set_about(about)) or _name(config[group])


def _name(part: Settings) -> str:
    """How a group's choice is written: ``mlp``, or ``[none,la_post]`` where several are chosen."""
    part = part.get("source", part)
    if "name" in part:
        return str(part["name"])
    return next(iter(part)) if len(part) == 1 else f"[{','.join(part)}]"


def _different(default: Mapping[str, object], wanted: Mapping[str, object], prefix: str = "") -> list[str]:
    words = []
    for key, value in wanted.items():
        before = default.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            words += _different(before, value, f"{prefix}{key}.")
        elif value != before:
            words.append(f"{prefix}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return words


def _words(config: Settings) -> tuple[str, ...]:
    """The settings that define the problem: data, partition, clients, model and rounds."""
    words = [f"{group}={_chosen(config, group)}" for group in ("data", "partition", "model")]
    words += [f"rounds={config['rounds']}", f"data.imbalance_factor={config['data']['imbalance_factor']}"]
    words += [f"clients.{key}={config['clients'][key]}" for key in ("count", "participation")]
    alpha = config["partition"].get("alpha")
    return tuple(words if alpha is None else [*words, f"partition.alpha={alpha}"])


def _facts(folder: RunFolder) -> dict[str, str]:
    environment = folder.read_json("environment.json", {})
    facts = {"run folder": folder.path.name, "partition": str(partition_of(folder.path).get("sha", "not known"))}
    about = folder.read_json("config.json", {}).get("data", {}).get("about") or {}
    facts |= {f"{key} of the data": about[key] for key in ("licence", "citation") if key in about}
    if (identity := read_identity(folder.path)) is not None:
        facts |= {"identity": identity.sha, "data": identity.data, "code": identity.code_sha}
    if packages := environment.get("packages"):
        facts["versions"] = ", ".join(f"{name} {number}" for name, number in packages.items())
    machine = [environment.get("platform"), f"Python {environment['python']}" if "python" in environment else None]
    if shown := [str(part) for part in machine if part]:
        facts["machine"] = ", ".join(shown)
    return facts
