"""Several labels per row: one 2 x 2 table per class, and the scores and intervals computed from these tables.

A table counts rows by truth (0, 1) and prediction (0, 1) of the class. Tables of disjoint rows can be added, so the sum
over clients is exactly that of the pooled rows. Scores that need to know which class was confused with which (accuracy,
the multiclass Matthews coefficient) are absent, never 0.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.evaluation.ratios import Floats, mean_defined, minority_ids, percentiles, ratio

LABEL_SCORES = (
    "macro_recall",
    "minority_recall",
    "min_class_recall",
    "g_mean",
    "macro_f1",
    "macro_precision",
    "macro_specificity",
    "defined_classes",
    "predicted_classes",
)

_UNKNOWN = 2  # a number for NaN
_CHUNK_CELLS = 4_000_000  # as in `intervals`: 32 MB of int64 at a time


def label_confusion(targets: ArrayLike, predictions: ArrayLike) -> NDArray[np.int64]:
    """Count (true, predicted) for each class separately.

    Args:
        targets: 0 and 1 (or bool), shape [n, C]; n may be 0. NaN: unknown, which counts for neither.
        predictions: same format, without NaN.

    Returns:
        int64 [C, 2, 2]: class, true 0 or 1, predicted 0 or 1; each class's four counts sum to the number of rows
        whose label of the class is known.

    Raises:
        ValueError: shapes that differ or are not [n, C], or values other than 0 and 1.
    """
    true, predicted = np.asarray(targets), np.asarray(predictions)
    if true.ndim != 2 or true.shape != predicted.shape or true.shape[1] == 0:
        raise ValueError(f"targets {true.shape} and predictions {predicted.shape} must both be [n, C]")
    known = ~np.isnan(true) if true.dtype.kind == "f" else np.ones(true.shape, bool)
    if not (np.isin(true[known], (0, 1)).all() and np.isin(predicted, (0, 1)).all()):
        raise ValueError("targets and predictions must be 0 or 1 (probabilities? compare them with .5 first)")
    yes, said = known & (true == 1), known & predicted.astype(bool)
    hits, found, called = (yes & said).sum(0), yes.sum(0), said.sum(0)
    return _tables(hits, found, called, known.sum(axis=0))


def _tables(hits: ArrayLike, positives: ArrayLike, called: ArrayLike, rows: ArrayLike) -> NDArray[np.int64]:
    """[..., C] counts each -> [..., C, 2, 2]."""
    hits, positives, called = (np.asarray(part, np.int64) for part in (hits, positives, called))
    true_negative = np.asarray(rows, np.int64) - positives - called + hits
    cells = [true_negative, called - hits, positives - hits, hits]
    return np.stack(cells, axis=-1).reshape(*hits.shape, 2, 2)


def check_tables(tables: ArrayLike) -> NDArray[np.int64]:
    """The tables as int64 [..., C, 2, 2].

    Raises:
        ValueError: another shape, or counts that are not integers of at least 0.
    """
    counts = np.asarray(tables)
    if counts.ndim < 3 or counts.shape[-2:] != (2, 2) or counts.shape[-3] == 0:
        raise ValueError(f"tables of several labels have shape [C, 2, 2]; got {counts.shape}")
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError("tables of several labels hold integers of at least 0")
    return counts.astype(np.int64)


def label_score_arrays(tables: ArrayLike, minority: Sequence[int]) -> dict[str, Floats]:
    """Every score of `LABEL_SCORES`, for one or a stack of tables. With a class's true positives TP and so on:

    ============================ ===========================================================================
    macro_recall                 mean of TP / (TP + FN) over the classes with a positive row (the defined classes)
    minority_recall              the same over the minority classes, the headline; NaN if none is defined
    min_class_recall             lowest recall of a defined class
    g_mean                       mean over defined classes of sqrt(recall * specificity): each class is a problem of
                                 its own here, and one that is never found costs its share and no more
    macro_f1                     mean over defined classes of 2 TP / (2 TP + FP + FN)
    macro_precision              mean of TP / (TP + FP) over the classes predicted at least once
    macro_specificity            mean of TN / (TN + FP) over the classes with a negative row
    defined_classes              classes with a positive row
    predicted_classes            classes predicted at least once: the classes in macro_precision
    ============================ ===========================================================================

    Args:
        tables: integers [..., C, 2, 2].
        minority: class ids; may be empty.

    Returns:
        float64 [...] each; NaN if undefined.

    Raises:
        ValueError: see `check_tables`; a minority class id that does not exist or is given twice.
    """
    counts = check_tables(tables)
    rare = minority_ids(minority, counts.shape[-3])
    hits, missed = counts[..., 1, 1], counts[..., 1, 0]
    false, rejected = counts[..., 0, 1], counts[..., 0, 0]
    recall, specificity = ratio(hits, hits + missed), ratio(rejected, rejected + false)
    defined = ~np.isnan(recall)
    # A class that every row has cannot be a false positive: its recall is sufficient.
    balanced = np.sqrt(recall * np.where(np.isnan(specificity), recall, specificity))
    lowest = np.where(defined, recall, np.inf).min(-1)
    return {
        "macro_recall": mean_defined(recall),
        "minority_recall": mean_defined(recall[..., rare]),
        "min_class_recall": np.where(np.isinf(lowest), np.nan, lowest),
        "g_mean": mean_defined(balanced),
        "macro_f1": mean_defined(np.where(defined, ratio(2 * hits, 2 * hits + false + missed), np.nan)),
        "macro_precision": mean_defined(ratio(hits, hits + false)),
        "macro_specificity": mean_defined(specificity),
        "defined_classes": defined.sum(-1).astype(np.float64),
        "predicted_classes": (hits + false > 0).sum(-1).astype(np.float64),
    }


def bootstrap_labels(
    targets: ArrayLike,
    predictions: ArrayLike,
    strata: ArrayLike,
    minority: Sequence[int],
    resamples: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of `LABEL_SCORES` by a stratified bootstrap of whole rows (Efron 1979).

    It needs the rows: 2 x 2 tables do not contain which labels occur together, and resampling each class separately
    would make the intervals of class means too narrow.

    Args:
        targets, predictions: as for `label_confusion`, n >= 1.
        strata: [n] integers, the strata for resampling: the primary class, so that a rare class keeps its rows; of rows
            without a known positive another number.
        minority: class ids.
        resamples: B, at least 1.
        rng: the generator drawn from.
        level: confidence level.

    Returns:
        {score: (low, high)}; NaN, NaN if the score itself is undefined. Resamples with an undefined score are left out.

    Raises:
        ValueError: see `label_confusion` and `label_score_arrays`; resamples below 1, a level outside (0, 1).
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"give at least 1 resample and a level between 0 and 1; got {resamples} and {level}")
    point = label_score_arrays(label_confusion(targets, predictions), minority)
    # Rows that agree in all of this are drawn together: 20,000 rows have only a few hundred distinct kinds.
    given = np.asarray(targets)
    cells = np.where(np.isnan(given), _UNKNOWN, given) if given.dtype.kind == "f" else given
    kinds, held = np.unique(np.column_stack([strata, cells, predictions]).astype(np.int64), axis=0, return_counts=True)
    cells, said = np.split(kinds[:, 1:], 2, axis=1)
    true, known = (cells == 1).astype(np.float64), (cells != _UNKNOWN).astype(np.float64)
    said = said * known
    groups = [np.flatnonzero(kinds[:, 0] == group) for group in np.unique(kinds[:, 0])]
    parts = []
    size = max(1, _CHUNK_CELLS // max(1, len(kinds)))
    for start in range(0, resamples, size):
        drawn = min(size, resamples - start)
        times = np.zeros((drawn, len(kinds)))
        for rows in groups:
            total = held[rows].sum()
            times[:, rows] = rng.multinomial(total, held[rows] / total, size=drawn)
        # Whole numbers far below 2^53: the products are exact.
        tables = _tables(times @ (true * said), times @ true, times @ said, times @ known)
        parts.append(label_score_arrays(tables, minority))
    return {
        name: percentiles(float(value), np.concatenate([part[name] for part in parts]), level)
        for name, value in point.items()
    }
