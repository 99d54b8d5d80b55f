"""Corrected heads in exact rational arithmetic, without NumPy: python by_fractions.py > corrected.json

Every row is left out by computing the whole head again without it. Only square roots and logarithms are rounded.
"""

import json
import math
from fractions import Fraction
from pathlib import Path

HERE = Path(__file__).parent


def inverse(matrix):
    """Gauss and Jordan."""
    size = len(matrix)
    rows = [list(row) + [Fraction(int(i == j)) for j in range(size)] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = next(k for k in range(i, size) if rows[k][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(size):
            if k != i and rows[k][i]:
                rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[size:] for row in rows]


def dot(a, b):
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def times(matrix, vector):
    return [dot(row, vector) for row in matrix]


def trace_of_product(a, b):
    return sum(dot(row, [b[k][i] for k in range(len(b))]) for i, row in enumerate(a))


def means(rows, labels, classes):
    groups = [[x for x, c in zip(rows, labels, strict=True) if c == k] for k in range(classes)]
    return [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups], list(
        map(len, groups)
    )


def within(rows, labels, centres, counts):
    width, freedom = len(rows[0]), len(rows) - len(counts)
    off = [[a - b for a, b in zip(x, centres[c], strict=True)] for x, c in zip(rows, labels, strict=True)]
    return [[sum(x[i] * x[j] for x in off) / freedom for j in range(width)] for i in range(width)], freedom


def mean_variance(matrix):
    return sum(matrix[i][i] for i in range(len(matrix))) / len(matrix)


def shrunk(matrix, a, mean):
    width = len(matrix)
    return [[(1 - a) * matrix[i][j] + (a * mean if i == j else 0) for j in range(width)] for i in range(width)]


def lda(rows, labels, classes, a, mean=None):
    centres, counts = means(rows, labels, classes)
    matrix, freedom = within(rows, labels, centres, counts)
    precision = inverse(shrunk(matrix, a, mean_variance(matrix) if mean is None else mean))
    trace = trace_of_product(precision, matrix)
    return centres, counts, precision, trace / (1 - (1 - a) * trace / freedom)


def linear(centres, counts, precision, effective):
    weight = [times(precision, m) for m in centres]
    return weight, [-dot(m, w) / 2 + effective / (2 * n) for m, w, n in zip(centres, weight, counts, strict=True)]


def left_out(rows, labels, classes, a):
    """Scores of each row by the head of all others, less their mean; width and trace are those of all."""
    centres, counts, _, effective = lda(rows, labels, classes, a)
    mean, found = mean_variance(within(rows, labels, centres, counts)[0]), []
    for i, x in enumerate(rows):
        others, known = rows[:i] + rows[i + 1 :], labels[:i] + labels[i + 1 :]
        centres, counts, precision, _ = lda(others, known, classes, a, mean)
        weight, bias = linear(centres, counts, precision, effective)
        scores = [dot(w, x) + b for w, b in zip(weight, bias, strict=True)]
        found.append([float(s - sum(scores) / classes) for s in scores])
    return found


def qda(rows, labels, classes, a, test):
    centres, counts = means(rows, labels, classes)
    matrix, _ = within(rows, labels, centres, counts)
    width, scores = len(rows[0]), []
    for c in range(classes):
        own = [[v - m for v, m in zip(x, centres[c], strict=True)] for x, k in zip(rows, labels, strict=True) if k == c]
        before = [
            [(sum(x[i] * x[j] for x in own) + width * matrix[i][j]) / (counts[c] - 1 + width) for j in range(width)]
            for i in range(width)
        ]
        after = shrunk(before, a, mean_variance(before))
        precision = inverse(after)
        constant = trace_of_product(precision, before) / (2 * counts[c])
        off = [[v - m for v, m in zip(x, centres[c], strict=True)] for x in test]
        scores.append(
            [float(constant - dot(x, times(precision, x)) / 2) - math.log(determinant(after)) / 2 for x in off]
        )
    return [list(row) for row in zip(*scores, strict=True)]


def determinant(matrix):
    if len(matrix) == 1:
        return matrix[0][0]
    minors = [[row[:j] + row[j + 1 :] for row in matrix[1:]] for j in range(len(matrix))]
    return sum((-1) ** j * matrix[0][j] * determinant(minor) for j, minor in enumerate(minors))


def corrected(given):
    """The reference values, from the rows in ``input.json``."""
    exact = lambda rows: [[Fraction(str(v)) for v in x] for x in rows]  # noqa: E731
    rows = [x for client in given["clients"] for x in exact(client["rows"])]
    labels = [c for client in given["clients"] for c in client["labels"]]
    test, classes, found = exact(given["test"]), 4, {}
    for a in ("0.05", "0.5"):
        head = lda(rows, labels, classes, Fraction(a))
        weight, bias = linear(*head)
        found[f"lda {a}"] = {
            "effective_width": float(head[3]),
            "weight": [list(map(float, w)) for w in weight],
            "bias": list(map(float, bias)),
            "left_out": left_out(rows, labels, classes, Fraction(a)),
        }
    found["qda 0.2"] = qda(rows, labels, classes, Fraction("0.2"), test)
    centres, counts = means(rows, labels, classes)
    matrix, _ = within(rows, labels, centres, counts)
    trace = sum(matrix[i][i] for i in range(3))
    squared = [dot(m, m) for m in centres]
    length = [math.sqrt(max(s - trace / n, s / 4)) for s, n in zip(squared, counts, strict=True)]
    found["ncm"] = {
        "euclidean": [float(-s / 2 + trace / (2 * n)) for s, n in zip(squared, counts, strict=True)],
        "cosine": [[float(v) / one for v in m] for m, one in zip(centres, length, strict=True)],
    }
    return found


if __name__ == "__main__":
    print(json.dumps(corrected(json.loads((HERE / "input.json").read_text())), separators=(",", ":")))
