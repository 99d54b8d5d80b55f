"""Do a node's registered data fit a study: verified, readable, of the plan's classes and shape."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fedimb.deploy.checks import Check
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data.datasets import DataVersion, data_sets, find
from fedimb.errors import DataError, FedimbError
from fedimb.plain import JsonObject

if TYPE_CHECKING:
    from fedimb.deploy.study_plan.plan import StudyPlan  # loads torch: only where there is a plan

_MEANING = ("thresholds", "target_map", "categorical", "missing_values", "indicators", "size", "mode", "l2_normalise")
"""Settings of a source that decide what a value or a label means."""
_OWN = ("target_map", "missing_values")
"""Of these, what a site may write otherwise, for its own codes."""
_DEFAULTS = {"indicators": True, "mode": "RGB"}
_SHOWN = 6


def data_checks(home: NodeHome, plan: "StudyPlan | None") -> Iterator[Check]:
    """Verify the data the plan asks for, or every data set registered, and compare it with the plan.

    A line for each data set (verified, rows, patients per class), one for each thing wrong with its records, one for
    each thing in which it differs from the plan. A level ``fail`` means: this node must not train. Raises nothing.
    """
    try:
        versions = data_sets(home) if plan is None else [find(home, plan.tags)]
    except FedimbError as error:
        yield Check("fail", "data", str(error), "register the data: fedimb node data add")
        return
    if not versions:
        yield Check("fail", "data", "nothing is registered", "fedimb node data add PATH --name NAME --tags TAG")
    for version in versions:
        name = f"data {version.name}"
        try:
            version.verify(full=True)
        except FedimbError as error:
            yield Check("fail", name, str(error), "mend it, or take the node out of the study")
            continue
        yield Check("ok", name, f"version {version.version[:12]} verified; {holdings(version)}")
        yield from _quality(name, version, home.config.sharing.min_patients)
        if plan is not None:
            yield from against(name, version, plan)


def refuse_unfit(home: NodeHome, plan: "StudyPlan") -> DataVersion:
    """The data a plan asks for, verified completely; a node calls it before it trains.

    Raises:
        ConfigError: no data set, or several, have the plan's tags.
        DataError: the data are not what was registered, or do not fit the plan.
    """
    version = find(home, plan.tags)
    version.verify(full=True)
    for check in against(f"data set '{version.name}'", version, plan):
        if check.level == "fail":
            raise DataError(f"{check.name}: {check.found}: {check.remedy}")
    return version


def holdings(version: DataVersion) -> str:
    """Rows, and patients per class, in one line."""
    facts = version.facts
    per_class = [f"{name} {n:,}" for name, n in facts["patients_per_class"].items()]
    listed = ", ".join(per_class[:_SHOWN]) + (f", ... ({len(per_class)} classes)" if len(per_class) > _SHOWN else "")
    if facts["patients"] is None:
        return f"{facts['rows']:,} rows, each counted as a patient: {listed}"
    return f"{facts['rows']:,} rows of {facts['patients']:,} patients: {listed}"


def against(name: str, version: DataVersion, plan: "StudyPlan") -> Iterator[Check]:
    """Schema and classes against the plan; nothing where all is as the plan has it but an ``ok``."""
    facts, found = version.facts, []
    schema = facts["schema"]
    if schema["classes"] != plan.classes:
        found.append(
            Check(
                "fail",
                name,
                f"classes {', '.join(schema['classes'])}, the plan's are {', '.join(plan.classes)}",
                "register the data with the plan's classes in its order, if the labels can express them; else leave "
                "the study",
            )
        )
    elif mute := [c for c in plan.classes if c not in facts["recordable"]]:
        found.append(
            Check(
                "fail",
                name,
                f"its labels cannot express class {', '.join(mute)}: such rows would count as another",
                "leave the study, or register the data from labels that can",
            )
        )
    if list(schema["shape"]) != list(plan.input_shape):
        columns = f" ({', '.join(schema['columns'][:_SHOWN])}, ...)" if schema["columns"] else ""
        found.append(
            Check(
                "fail",
                name,
                f"rows are {_shape(schema['shape'])}{columns}, the plan's {_shape(plan.input_shape)}",
                "register it with the coordinator's data group: --like FILE",
            )
        )
    yield from found or [Check("ok", name, "classes and shape are the plan's")]
    yield from _meaning(name, version.about["source"], plan.config.get("data", {}).get("source", {}))


def _meaning(name: str, own: JsonObject, asked: JsonObject) -> Iterator[Check]:
    """Where the site reads its labels or values otherwise than the plan's own source of the same kind."""
    if own.get("name") != asked.get("name"):
        return
    for key in _MEANING:
        # Left out, null and empty are one: what the source does by itself.
        here, there = (source.get(key, _DEFAULTS.get(key)) or None for source in (own, asked))
        if here != there:
            level = "warn" if key in _OWN else "fail"
            remedy = (
                "is that this site's own coding?" if key in _OWN else "register it with the data group: --like FILE"
            )
            yield Check(level, name, f"{key} is {here}, in the plan {there}", remedy)


def _quality(name: str, version: DataVersion, least: int) -> Iterator[Check]:
    facts = version.facts
    quality, rows = facts["quality"], facts["rows"]
    if quality["unreadable"]:
        yield Check(
            "warn", name, f"rows that cannot be read and are left out: {quality['unreadable']:,}", "see node data list"
        )
    if quality["duplicates"]:
        yield Check(
            "warn",
            name,
            f"rows that repeat another's values and label: {quality['duplicates']:,}",
            "one patient twice?",
        )
    for column, n in quality["missing"].items():
        if n == rows:
            yield Check("warn", name, f"column {column} has no value in any row", "is it recorded here?")
    if total := sum(quality["missing"].values()):
        worst = sorted(quality["missing"].items(), key=lambda item: -item[1])[:_SHOWN]
        yield Check(
            "ok", name, f"values missing: {total:,} (" + ", ".join(f"{column} {n:,}" for column, n in worst) + ")"
        )
    few = [c for c, n in facts["patients_per_class"].items() if 0 < n < least]
    if few:
        yield Check(
            "warn",
            name,
            f"fewer than {least} patients of class {', '.join(few)}: statistics of them do not leave",
            "tell the coordinator, or lower sharing.min_patients",
        )


def _shape(shape: Any) -> str:
    return " x ".join(str(size) for size in shape)
