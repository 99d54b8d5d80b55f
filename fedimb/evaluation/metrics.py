"""All scores from a confusion matrix, so that every reported number has one source.

Undefined values are NaN, never a silent 0, and `defined_classes` is the number of classes in a mean. A class without
true samples has no recall; it is left out of every mean even if it was predicted (its false positives already lower the
recall of the true classes). This is scikit-learn's ``recall_score`` and ``f1_score`` with ``labels=`` the classes
present, and its ``balanced_accuracy_score``; it is not ``recall_score(average="macro")`` by default, which counts an
absent but predicted class as 0.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.evaluation.confusion import check_matrix, hits_and_support
from fedimb.evaluation.multilabel import LABEL_SCORES, label_score_arrays
from fedimb.evaluation.ratios import Floats, mean_defined, minority_ids, ratio

SCORES = (
    "accuracy",
    "macro_recall",
    "minority_recall",
    "min_class_recall",
    "g_mean",
    "macro_f1",
    "mcc",
    "defined_classes",
)

Counts = NDArray[Any]

_LONGEST_NAME = 100  # MLflow refuses keys over 250 characters; prefixes need room too


def per_class_recall(matrix: ArrayLike) -> Floats:
    """Share of each class's samples that were predicted correctly: diagonal / row sum.

    Args:
        matrix: counts [..., C, C], rows = true class.

    Returns:
        float64 [..., C]; NaN for a class without true samples.

    Raises:
        ValueError: not a confusion matrix.

    Example:
        >>> per_class_recall([[3, 1, 0], [1, 1, 0], [0, 0, 0]]).tolist()
        [0.75, 0.5, nan]
    """
    counts = check_matrix(matrix)
    return ratio(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1))


def _root(square: ArrayLike) -> Floats:
    return np.sqrt(np.maximum(np.asarray(square, np.float64), 0.0))


def _mcc(hits: Counts, true: Counts, predicted: Counts) -> Floats:
    """Gorodkin's R_K: (c s - sum_k p_k t_k) / sqrt((s^2 - sum p_k^2)(s^2 - sum t_k^2))."""
    total, correct = true.sum(-1), hits.sum(-1)
    top = correct * total - (predicted * true).sum(-1)
    # Separate roots: the product of two squared counts would overflow int64 beyond about 50,000 samples.
    spread_true = _root(total * total - (true * true).sum(-1))
    spread_predicted = _root(total * total - (predicted * predicted).sum(-1))
    return ratio(top, spread_true * spread_predicted)


def score_arrays(matrix: ArrayLike, minority: Sequence[int]) -> dict[str, Floats]:
    """`scores` for a stack of matrices at once, for the bootstrap.

    Args:
        matrix: counts [..., C, C].
        minority: class ids of the minority classes; may be empty.

    Returns:
        float64 [...] for each name of `SCORES`.

    Raises:
        ValueError: not a confusion matrix, or a minority class id outside 0..C-1 or given twice.
    """
    counts = check_matrix(matrix)
    return margin_scores(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2), minority)


def margin_scores(hits: Counts, support: Counts, called: Counts, minority: Sequence[int]) -> dict[str, Floats]:
    """`score_arrays` from what these scores need of a matrix: its diagonal and the sums of its rows and columns.

    Args:
        hits, support, called: rows of each class that were found, that there are, that were predicted, [..., C] each.
        minority: class ids of the minority classes; may be empty.

    Returns:
        float64 [...] for each name of `SCORES`.

    Raises:
        ValueError: a minority class id outside 0..C-1 or given twice.
    """
    rare = minority_ids(minority, hits.shape[-1])
    recall = ratio(hits, support)
    defined = ~np.isnan(recall)
    some = defined.any(-1)
    with np.errstate(divide="ignore"):  # log 0 = -inf makes the G-mean 0 if one class is never found
        logs = np.log(np.where(defined, recall, 1.0))
    f1 = np.where(defined, ratio(2 * hits, support + called), np.nan)
    return {
        "accuracy": ratio(hits.sum(-1), support.sum(-1)),
        "macro_recall": mean_defined(recall),
        "minority_recall": mean_defined(recall[..., rare]),
        "min_class_recall": np.where(some, np.where(defined, recall, np.inf).min(-1), np.nan),
        "g_mean": np.exp(ratio(logs.sum(-1), defined.sum(-1))),
        "macro_f1": mean_defined(f1),
        "mcc": _mcc(hits, support, called),
        "defined_classes": defined.sum(-1).astype(np.float64),
    }


def scores(matrix: ArrayLike, minority: Sequence[int]) -> dict[str, float]:
    """Every score of one confusion matrix.

    ============================ ===========================================================================
    accuracy                     correct / all
    macro_recall                 mean recall of the defined classes (= balanced accuracy)
    minority_recall              mean recall of the defined minority classes, the headline; NaN if none
    min_class_recall             lowest recall of a defined class
    g_mean                       geometric mean of the recalls; 0 as soon as one defined class is never found
    macro_f1                     mean over defined classes of 2 TP / (true + predicted)
    mcc                          Matthews correlation for many classes (Gorodkin 2004, doi:10.1016/
                                 j.compbiolchem.2004.09.006); NaN where the formula is 0/0, that is a single
                                 true class or a single predicted class. scikit-learn returns 0 there.
    defined_classes              classes with at least one true sample: the classes in the means above
    ============================ ===========================================================================

    Args:
        matrix: counts [C, C], rows = true class, columns = predicted class; or [C, 2, 2] if rows have several labels.
        minority: class ids of the minority classes; may be empty.

    Returns:
        the names of `SCORES`, in that order, as Python floats; NaN if undefined. If rows have several labels, those of
        `LABEL_SCORES` (`fedimb.evaluation.multilabel`).

    Raises:
        ValueError: see `score_arrays`.

    Example:
        >>> found = scores([[96, 0], [4, 0]], minority=[1])  # 96 % accuracy, and no rare case found
        >>> found["accuracy"], found["macro_recall"], found["minority_recall"]
        (0.96, 0.5, 0.0)
    """
    counts = np.asarray(matrix)
    if counts.ndim == 3 and counts.shape[1:] == (2, 2):
        return {name: float(value) for name, value in label_score_arrays(counts, minority).items()}
    if check_matrix(counts).ndim != 2:
        raise ValueError(f"scores needs one matrix [C, C]; got {counts.shape} (score_arrays takes stacks)")
    return {name: float(value) for name, value in score_arrays(counts, minority).items()}


def numbered(prefix: str, names: Sequence[str]) -> list[str]:
    """``<prefix>/<id>_<name>`` for each name: valid MLflow keys that sort by id.

    Ids are padded with zeros (at least two digits), so class 10 comes after class 9. In names, everything except
    letters, digits, ``_ - .`` and space becomes ``_``: a slash would nest the key, and Windows does not allow a colon.
    """
    width = max(2, len(str(len(names) - 1)))
    keys = []
    for number, name in enumerate(names):
        legal = re.sub(r"[^\w.\- ]", "_", str(name))[:_LONGEST_NAME].strip()
        keys.append(f"{prefix}/{number:0{width}d}" + (f"_{legal}" if legal else ""))
    return keys


def recall_keys(class_names: Sequence[str]) -> list[str]:
    """``recall/<id>_<name>`` for each class (`numbered`)."""
    return numbered("recall", class_names)


TESTED = "/tested/"
"""In the names of metrics, in place of ``/recall/``: how many rows of the class the clients' recall is over."""


def metric_names(class_names: Sequence[str], prefix: str = "test", task: str = "multiclass") -> list[str]:
    """The keys that `named_scores` returns, in the same order."""
    names = LABEL_SCORES if task == "multilabel" else SCORES
    return [f"{prefix}/{name}" for name in (*names, *recall_keys(class_names))]


def named_scores(
    matrix: ArrayLike, minority: Sequence[int], class_names: Sequence[str], prefix: str = "test"
) -> dict[str, float]:
    """`scores` and every class's recall under the names used for logging.

    Args:
        matrix: counts [C, C], or [C, 2, 2] if rows have several labels.
        minority: class ids of the minority classes.
        class_names: C names, by class id.
        prefix: ``test`` for the server's test set, ``client`` for the clients' summed matrices.

    Returns:
        ``test/macro_recall``, ..., ``test/recall/00_<name>``, ...; NaN if undefined. Scores that the matrix does not
        determine are absent.

    Raises:
        ValueError: as `scores`, or the number of names is not C.
    """
    values = scores(matrix, minority)
    recall = ratio(*hits_and_support(matrix))
    if len(class_names) != recall.size:
        raise ValueError(f"{len(class_names)} class names for a matrix of {recall.size} classes")
    task = "multilabel" if np.ndim(matrix) == 3 else "multiclass"
    return dict(zip(metric_names(class_names, prefix, task), [*values.values(), *recall.tolist()], strict=True))
