"""Facts about a registered data set: schema, rows and patients per class, and quality problems."""

import hashlib
from collections import Counter

import numpy as np

from fedimb.data.labels import class_counts
from fedimb.data.problems import IGNORED
from fedimb.deploy.registered_data.source_records import Reading
from fedimb.plain import JsonObject


def schema(reading: Reading, source: str) -> dict[str, object]:
    """What must be the same at all sites: kind, shape and columns of the rows, and the classes in order."""
    data = reading.data
    return {
        "source": source,
        "task": data.task,
        "dtype": data.x.dtype.name,
        "shape": list(data.x.shape[1:]),
        "scale": data.scale,
        "columns": list(reading.columns),
        "classes": list(data.class_names),
        **({} if data.signal is None else {"signal": data.signal.facts()}),
    }


def counts(reading: Reading) -> JsonObject:
    """Rows and patients, in total and per class. Without patient ids every row counts as one patient."""
    data = reading.data
    names = data.class_names
    of_class = class_counts(data.y, data.targets, len(names), slice(None))
    patients = of_class
    if data.patients is not None:
        held = data.targets == 1 if data.targets is not None else np.eye(len(names), dtype=bool)[data.y]
        patients = np.array([len(np.unique(data.patients[held[:, c]])) for c in range(len(names))])
    return {
        "rows": len(data.y),
        "class_counts": dict(zip(names, of_class.tolist(), strict=True)),
        "patients": None if data.patients is None else len(np.unique(data.patients)),
        "patients_per_class": dict(zip(names, patients.tolist(), strict=True)),
    }


def quality(reading: Reading) -> dict[str, object]:
    """Numbers of unreadable rows that were skipped, of duplicate rows (same values and label), and of missing values.

    ``missing``: column -> rows without a value; for a one-hot category, the rows that are in none of its columns.
    """
    data = reading.data
    seen = Counter(
        hashlib.sha256(np.ascontiguousarray(data.x[i]).tobytes() + reading.label(i)).digest()
        for i in range(len(data.y))
    )
    missing: dict[str, int] = {}
    if data.scaled is not None and reading.columns and data.signal is None:
        one_hot: dict[str, np.ndarray] = {}
        for j, name in enumerate(reading.columns):
            column, (category, of_category, _) = data.x[:, j], name.partition("=")
            if data.scaled[j]:
                missing[name] = int(np.isnan(column).sum())
            elif of_category:
                one_hot[category] = one_hot.get(category, np.zeros(len(column), bool)) | (column > 0)
        missing |= {name: int((~held).sum()) for name, held in one_hot.items()}
    return {
        "unreadable": sum(not line.endswith(IGNORED) for line in data.skipped),
        "duplicates": sum(times - 1 for times in seen.values()),
        "missing": {name: n for name, n in missing.items() if n},
    }
