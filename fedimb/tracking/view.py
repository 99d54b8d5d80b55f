"""How a study looks when its charts open in MLflow: minority recall first and wide, runs by row and setting.

MLflow keeps a shared view as an experiment tag, `mlflow.sharedViewState.<name>`, and applies it to an address that
ends in ``viewStateShareKey=<name>``. The fields are those of MLflow 3.17's page (its RunsCharts cards and sections); an
older or newer page ignores what it does not know and shows its own order.
"""

import json
from pathlib import Path

from fedimb.tracking.naming import SETTING_TAG

VIEW = "fedimb"

_SECTIONS = {  # heading -> charts drawn first in it; the page adds the other metrics of that prefix below
    "test": ("test/minority_recall", "test/macro_recall", "test/min_class_recall", "test/g_mean"),
    "test/recall": (),
    "client": ("client/worst_minority_recall", "client/minority_recall"),
    "data": (),
    "train": (),
    "comm": (),
    "comm/up_bytes": (),
    "comm/down_bytes": (),
    "time": (),
}
_OPEN = ("test", "test/recall")
_WIDE = "test"
"""The section whose charts are one below the other: three in a row are too narrow for a legend at 1280 pixels."""
_COLUMNS = (
    f"tags.`{SETTING_TAG}`",
    "tags.`fedimb.seed`",
    "metrics.`test/minority_recall`",
    "metrics.`test/macro_recall`",
    "metrics.`test/min_class_recall`",
    "params.`data.imbalance_factor`",
    "params.`partition.alpha`",
    "params.`clients.count`",
    "params.`clients.participation`",
    "params.`local.lr`",
    "tags.`fedimb.prior`",
)


def _chart(section: str, metric: str) -> dict[str, object]:
    return {
        "uuid": f"fedimb-{metric}",
        "type": "LINE",
        "metricSectionId": f"fedimb-{section}",
        "isGenerated": True,
        "deleted": False,
        "runsCountToCompare": 20,
        "metricKey": metric,
        "displayName": metric.rpartition("/")[2],
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _section(name: str) -> dict[str, object]:
    return {
        "uuid": f"fedimb-{name}",
        "name": name,
        "display": name in _OPEN,
        "isReordered": True,
        "deleted": False,
        "isGenerated": True,
    } | ({"columns": 1, "cardHeight": 320} if name == _WIDE else {})


_STATE = {
    "groupBy": {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": tag} for tag in ("fedimb.strategy", SETTING_TAG)],
    },
    "groupsExpanded": {},
    "runListHidden": True,  # it would take half of the width; the handle at its side opens it
    "isAccordionReordered": True,
    "compareRunCharts": [_chart(section, metric) for section, metrics in _SECTIONS.items() for metric in metrics],
    "compareRunSections": [_section(name) for name in _SECTIONS],
    "selectedColumns": list(_COLUMNS),
}

EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    f"mlflow.sharedViewState.{VIEW}": json.dumps(_STATE, separators=(",", ":")),
}
"""Tags of every experiment that fedimb makes."""
NOTE_TAG, WRITTEN_TAG = "mlflow.note.content", "fedimb.note_sha"
"""Description of an experiment or run as MLflow shows it, and the hash of the one that fedimb wrote there."""


def experiment_note(experiment: str, folder: Path) -> str:
    """The description of a study's experiment, in Markdown: what it is, its first chart, where the report is.

    Args:
        experiment: its name.
        folder: the study's folder, as an absolute path.
    """
    report = folder / "report.html"
    about = _about(folder)
    first = (
        "First chart: minority recall, the mean recall of the rare classes on test rows, by round. A line is a row (a "
        "strategy) in a setting, the mean over its seeds; the band is their spread. Below it: macro recall, recall of "
        "the worst class, G-mean, then recall per class."
    )
    parts = [  # MLflow shows the first line until the description is unfolded
        f"Report with intervals and tests: [{report}]({report.as_uri()})",
        f"Browsers open it by its path, not from here; `fedimb compare` and `fedimb report {folder}` write it.",
        f"**{experiment}**" + (f": {about}" if about else ""),
        first,
    ]
    return "\n\n".join(parts)


def run_note(label: str, seed: object, folder: Path) -> str:
    """The description of a run, in Markdown: what it is and where its report comes from."""
    return f"Row `{label}`, seed {seed}. Run folder: `{folder}`\n\n`fedimb show {folder}`\n\n`fedimb report {folder}`"


def _about(folder: Path) -> str:
    """What a study's record says it is about; empty without a record, as for runs outside a study."""
    try:
        return str(json.loads((folder / "study.json").read_text(encoding="utf-8"))["study"]["about"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
