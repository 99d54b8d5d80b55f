"""How a row's run is named in MLflow, and the setting by which charts keep runs apart.

Charts average the runs of a group over seeds. A group is a row label and a setting, so a setting has to tell apart all
configurations that differ in more than the seed: two learning rates of a row have the same label.
"""

import hashlib
import json
from collections.abc import Mapping

SETTING_TAG = "fedimb.setting"

_SHOWN = {  # parameter -> how it is written; the hash tells the rest apart
    "data.source.name": "{}",
    "data.imbalance_factor": "imbalance={}",
    "partition.alpha": "alpha={}",
    "clients.count": "clients={}",
    "model.name": "{}",
    "local.lr": "lr={}",
}
_SAME = ("seed", "engine.", "tracking.", "output_dir", "name", "study", "checkpoint.", "resolved.", "calibration.")
"""Parameters in which the runs of a setting may differ: the seed, what changes no score, and other rows of the run."""


def setting_of(row: Mapping[str, object]) -> str:
    """The setting of a row of ``rows.json``: equal for runs that differ in nothing but the seed.

    ``digits imbalance=50 alpha=0.5 clients=10 mlp lr=0.4 #1f0c9a2e``
    """
    params, tags = (dict(row.get(part) or {}) for part in ("params", "tags"))  # type: ignore[call-overload]
    own = f"calibration.{tags.get('fedimb.calibration', 'none')}"
    kept = {
        key: str(value)
        for key, value in params.items()
        if key == own or key.startswith(f"{own}.") or not _left_out(str(key))
    }
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]
    shown = [
        text.format(params[key])
        for key, text in _SHOWN.items()
        if params.get(key) is not None and str(params[key]) != "null"
    ]
    return " ".join([*shown, f"#{digest}"])


def _left_out(key: str) -> bool:
    return any(key.startswith(part) if part.endswith(".") else key == part for part in _SAME)


def run_name(label: str, row: Mapping[str, object]) -> str:
    """``fedavg, digits ... #1f0c9a2e, seed 3``: row, setting and seed, as MLflow lists it."""
    tags: dict[str, object] = dict(row.get("tags") or {})  # type: ignore[call-overload]
    return f"{label}, {setting_of(row)}, seed {tags.get('fedimb.seed', '?')}"
