"""The same values in NumPy, from the definitions: distances instead of linear scores, explicit inverses.

python by_refitting.py prints how far they are from corrected.json.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def covariance(x, y, classes):
    parts = [x[y == c] - x[y == c].mean(0) for c in range(classes)]
    return np.concatenate(parts).T @ np.concatenate(parts) / (len(x) - classes)


def shrink(matrix, a, like=None):
    return (1 - a) * matrix + a * np.diag(matrix if like is None else like).mean() * np.eye(len(matrix))


def effective_width(x, y, classes, a):
    pooled = covariance(x, y, classes)
    trace = np.trace(np.linalg.inv(shrink(pooled, a)) @ pooled)
    return trace / (1 - (1 - a) * trace / (len(x) - classes))


def distances(x, y, classes, a, at, effective, like=None):
    """Log densities of rows ``at``, up to a constant, corrected."""
    precision = np.linalg.inv(shrink(covariance(x, y, classes), a, like))
    found = []
    for c in range(classes):
        off = at - x[y == c].mean(0)
        found.append(-np.einsum("nd,de,ne->n", off, precision, off) / 2 + effective / (2 * (y == c).sum()))
    return np.stack(found, 1)


def corrected(given):
    """As `by_fractions.corrected`."""
    x = np.concatenate([np.array(client["rows"]) for client in given["clients"]])
    y = np.concatenate([np.array(client["labels"]) for client in given["clients"]])
    test, classes, found = np.array(given["test"]), 4, {}
    for a in (0.05, 0.5):
        effective = effective_width(x, y, classes, a)
        others = [np.arange(len(x)) != i for i in range(len(x))]
        out = [
            distances(x[keep], y[keep], classes, a, x[[i]], effective, covariance(x, y, classes))[0]
            for i, keep in enumerate(others)
        ]
        # weights and biases from scores at the origin and along the axes
        corner = distances(x, y, classes, a, np.vstack([np.zeros(3), np.eye(3)]), effective)
        precision = np.linalg.inv(shrink(covariance(x, y, classes), a))
        weight = corner[1:] - corner[0] + np.diag(precision)[:, None] / 2
        found[f"lda {a}"] = {
            "effective_width": effective,
            "weight": weight.T.tolist(),
            "bias": corner[0].tolist(),
            "left_out": [(row - row.mean()).tolist() for row in out],
        }
    pooled, means = covariance(x, y, classes), np.stack([x[y == c].mean(0) for c in range(classes)])
    counts, scores = np.bincount(y), []
    for c in range(classes):
        off = x[y == c] - means[c]
        before = (off.T @ off + 3 * pooled) / (counts[c] - 1 + 3)
        after = shrink(before, 0.2)
        gap = test - means[c]
        density = -(gap * np.linalg.solve(after, gap.T).T).sum(1) / 2 - np.linalg.slogdet(after)[1] / 2
        scores.append(density + np.trace(np.linalg.solve(after, before)) / (2 * counts[c]))
    found["qda 0.2"] = np.stack(scores, 1).tolist()
    excess = np.trace(pooled) / counts
    squared = np.linalg.norm(means, axis=1) ** 2
    found["ncm"] = {
        "euclidean": (-(squared - excess) / 2).tolist(),
        "cosine": (means / np.sqrt(np.maximum(squared - excess, squared / 4))[:, None]).tolist(),
    }
    return found


def furthest(one, other):
    """Largest difference of two nested results."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return max(furthest(one[key], other[key]) for key in one)
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


if __name__ == "__main__":
    made = corrected(json.loads((HERE / "input.json").read_text()))
    print(furthest(made, json.loads((HERE / "corrected.json").read_text())))
