"""How a study looks when its charts open in MLflow: rare classes first, runs by row and setting, useful columns.

MLflow keeps a shared view as an experiment tag, `mlflow.sharedViewState.<name>`, and applies it to an address that
ends in ``viewStateShareKey=<name>``. The fields are those of MLflow 3.17's page (its RunsCharts cards and sections); an
older or newer page ignores what it does not know and shows its own order.
"""

import json

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
    }


_STATE = {
    "groupBy": {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": tag} for tag in ("fedimb.strategy", SETTING_TAG)],
    },
    "groupsExpanded": {},
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
