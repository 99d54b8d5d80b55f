"""Made-up studies for the report's tests: known matrices, so that every number on the page can be computed by hand."""

import numpy as np

from fedimb.study.results import Result, Setting, StudyResults

HOSTILE = "<script>alert(1)</script>"


def matrix_of(hits, support=20):
    """[C, C]: so many of each class's rows are found, the others are called the class after it."""
    size = len(hits)
    matrix = np.zeros((size, size), np.int64)
    for c, n in enumerate(hits):
        matrix[c, c] = n
        matrix[c, (c + 1) % size] += support - n
    return matrix


def result(label, seed, hits, minority=(2,), setting="default", support=20, **more):
    """A finished run from how many rows of each class it finds."""
    matrix = matrix_of(hits, support)
    recall = np.diag(matrix) / matrix.sum(1)
    scores = {
        "minority_recall": float(recall[list(minority)].mean()),
        "macro_recall": float(recall.mean()),
        "up_bytes": 2e6,
        "down_bytes": 3e6,
        "client_seconds": 1.5 + seed,
    }
    curve = [(at, {k: scores[k] * at / 3 for k in ("minority_recall", "macro_recall")}) for at in (1, 2, 3)]
    return Result(
        setting, label, seed, scores=scores | more.pop("scores", {}), matrix=matrix, recall=recall, curve=curve, **more
    )


def failed(label, seed, status="failed", setting="default", error="RunFailed: client 3 left"):
    """A run without a result."""
    return Result(setting, label, seed, status, error=error)


def setting(name="default", names=("cat", "dog", "fox"), counts=((30, 6, 1), (10, 4, 1), (0, 2, 0)), minority=(2,)):
    """A problem of three clients."""
    counts = np.array(counts, np.int64)
    return Setting(name, ("data=digits",), tuple(names), tuple(minority), counts.sum(0), counts)


def study(results, settings=None, control="fedavg", **more):
    """A study of these results, labels in the order they are first seen."""
    settings = settings or [setting()]
    labels = tuple(dict.fromkeys(r.label for r in results))
    found = {one.name: one for one in settings}
    more = {"command": "fedimb compare s.yaml", "facts": {"machine": "a box"}} | more
    return StudyResults("trial", "A trial.", found, labels, control, tuple(results), **more)


def plain(seeds=3):
    """Two rows: the control finds few of the rare class, ``la_post`` finds more in every seed."""
    rows = [result("fedavg", s, (20, 15, 2 + s), sha="a" * 64) for s in range(seeds)]
    return study(rows + [result("la_post", s, (18, 15, 10 + s), sha="b" * 64) for s in range(seeds)])
