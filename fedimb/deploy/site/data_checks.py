"""Checks whether a node's registered data fit a study: unchanged, readable, with the plan's classes and shape."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fedimb.data.findings.stage import unresolved
from fedimb.deploy.checks import Check
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data.datasets import DataVersion, data_sets, find_data_set
from fedimb.errors import FedimbError
from fedimb.plain import JsonObject

if TYPE_CHECKING:
    from fedimb.deploy.study_plan.plan import StudyPlan  # imports torch: only needed with a plan

_MEANING = ("thresholds", "target_map", "categorical", "missing_values", "indicators", "size", "mode", "l2_normalise")
"""Source settings that decide what a value or a label means."""
_OWN = ("target_map", "missing_values")
"""Those of them that may differ at a site, for its own coding."""
_DEFAULTS = {"indicators": True, "mode": "RGB"}
_SHOWN = 6


def data_checks(home: NodeHome, plan: "StudyPlan | None") -> Iterator[Check]:
    """Verify the data the plan asks for (without a plan: all registered data sets) and compare them with the plan.

    Yields one line per data set (verified, rows, patients per class), one per problem with its records, and one per
    difference from the plan. Level ``fail`` means that this node must not train. Never raises.
    """
    if plan is not None and plan.config["clients"].get("regions") is not None:
        yield Check("ok", "data", "none is needed: a region answers with the sum of its sites")
        return
    try:
        versions = data_sets(home) if plan is None else [find_data_set(home, plan.tags)]
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
            yield Check("fail", name, str(error), "fix the data, or take the node out of the study")
            continue
        yield Check("ok", name, f"version {version.version[:12]} verified; {describe_holdings(version)}")
        yield from _findings(name, version)
        yield from _quality(name, version, home.config.sharing.min_patients)
        if plan is not None:
            yield from plan_checks(name, version, plan)


def describe_holdings(version: DataVersion) -> str:
    """Rows, and patients per class, in one line."""
    facts = version.facts
    per_class = [f"{name} {n:,}" for name, n in facts["patients_per_class"].items()]
    listed = ", ".join(per_class[:_SHOWN]) + (f", ... ({len(per_class)} classes)" if len(per_class) > _SHOWN else "")
    if facts["patients"] is None:
        return f"{facts['rows']:,} rows, each counted as a patient: {listed}"
    return f"{facts['rows']:,} rows of {facts['patients']:,} patients: {listed}"


def plan_checks(name: str, version: DataVersion, plan: "StudyPlan") -> Iterator[Check]:
    """Compare schema, classes and what values mean with the plan. Yields one ``ok`` if schema and classes match.

    A node asks this before it joins a run, too: level ``fail`` keeps it out.
    """
    facts, found = version.facts, []
    schema = facts["schema"]
    if schema["task"] != "multiclass":
        found.append(
            Check(
                "fail",
                name,
                "rows have several labels each, in a study one: a row would count for several classes",
                "register the data with one label per row, or leave the study",
            )
        )
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
                f"its labels cannot express class {', '.join(mute)}: such rows would count as another class",
                "leave the study, or register the data with labels that can",
            )
        )
    if list(schema["shape"]) != list(plan.input_shape):
        columns = f" ({', '.join(schema['columns'][:_SHOWN])}, ...)" if schema["columns"] else ""
        found.append(
            Check(
                "fail",
                name,
                f"rows are {_shape(schema['shape'])}{columns}, the plan's {_shape(plan.input_shape)}",
                "register the data with the coordinator's data group: --like FILE",
            )
        )
    yield from found or [Check("ok", name, "classes and shape match the plan")]
    counted = facts["class_counts"]
    if held := [c for c in plan.minority if c in counted and not counted[c]]:
        yield Check(
            "warn",
            name,
            f"no row of {', '.join(held)}, which the study is about ({', '.join(plan.minority)})",
            "tell the coordinator: if no other site has one either, the study has nothing to find",
        )
    yield from _meaning(name, version.about["source"], plan.config.get("data", {}).get("source", {}))


def _meaning(name: str, own: JsonObject, asked: JsonObject) -> Iterator[Check]:
    """Where the site reads labels or values differently from the plan's own source of the same kind."""
    if own.get("name") != asked.get("name"):
        return
    for key in _MEANING:
        # Missing, null and empty are the same: the source's default.
        here, there = (source.get(key, _DEFAULTS.get(key)) or None for source in (own, asked))
        if here != there:
            level = "warn" if key in _OWN else "fail"
            remedy = (
                "check that this is this site's own coding"
                if key in _OWN
                else "register the data with the data group: --like FILE"
            )
            yield Check(level, name, f"{key} is {here}, in the plan {there}", remedy)


def _findings(name: str, version: DataVersion) -> Iterator[Check]:
    """What looks wrong in the data: a node with one that is refused, or not accepted, does not join a run."""
    findings = version.open_store().findings or ()
    stopping = unresolved(findings, version.accept)
    for one in findings:
        if one in stopping:
            remedy = "fix the data and register them again"
            if one.severity == "ask":
                remedy = f"register them again: fix them, or say data.accept=[{one.name}]"
            yield Check("fail", name, one.line, remedy)
        elif one.severity == "note" and one.name != "repeated_rows":  # `_quality` counts these by label
            yield Check("warn", name, one.line, "look at it")


def _quality(name: str, version: DataVersion, least: int) -> Iterator[Check]:
    facts = version.facts
    quality, rows = facts["quality"], facts["rows"]
    if quality["unreadable"]:
        yield Check("warn", name, f"unreadable rows, left out: {quality['unreadable']:,}", "see fedimb node data list")
    if quality["duplicates"]:
        yield Check(
            "warn",
            name,
            f"rows with the same values and label as another: {quality['duplicates']:,}",
            "check whether a patient was entered twice",
        )
    for column, n in quality["missing"].items():
        if n == rows:
            yield Check("warn", name, f"column {column} has no value in any row", "check whether this site records it")
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
            f"fewer than {least} patients of class {', '.join(few)}: statistics about them do not leave",
            "tell the coordinator, or lower sharing.min_patients",
        )


def _shape(shape: Any) -> str:
    return " x ".join(str(size) for size in shape)
