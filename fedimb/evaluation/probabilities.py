"""Scores of predicted probabilities: calibration error, ranking, log-loss, Brier score.

A confusion matrix only contains the top prediction; these scores measure whether probabilities are calibrated, and
whether the rows of a class rank before the others at any threshold. NumPy only: scikit-learn has the ranking scores
too, but importing it takes seconds at the end of every run. The tests compare with scikit-learn.

Undefined values are NaN, and means are over the defined classes. Probabilities that are not finite (a model that
diverged) make every score NaN.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.evaluation.ratios import Floats, mean_defined, ratio

if TYPE_CHECKING:
    from torch import Tensor

PROBABILITY_SCORES = ("ece", "classwise_ece", "log_loss", "brier", "auroc", "auprc")

BINS = 15
_SUM_TOLERANCE = 1e-3  # a row of float16 probabilities of many classes adds up to 1 within this tolerance


class ProbabilityScores(NamedTuple):
    """Result of `probability_scores`.

    Attributes:
        means: one number for each name of `PROBABILITY_SCORES`.
        auroc, auprc: per class [C] float64.
    """

    means: dict[str, float]
    auroc: Floats
    auprc: Floats


def probabilities_of(logits: "Tensor", several: bool) -> Floats:
    """Probabilities [n, C] from logits [n, C]: their softmax, or their sigmoid if rows have several labels.

    In float64, so that confident rows are not all rounded to 1.
    """
    exact = logits.double()
    found: Floats = (exact.sigmoid() if several else exact.softmax(1)).numpy()
    return found


def _check(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_], bool, NDArray[np.bool_]]:
    """(probabilities [n, C], targets [n, C], whether rows have several labels, which targets are known [n, C])."""
    shares, given = np.asarray(probabilities, np.float64), np.asarray(labels)
    if shares.ndim != 2 or shares.shape[1] == 0:
        raise ValueError(f"probabilities must have shape [n, C]; got {shares.shape}")
    several = given.ndim == 2
    if several:
        known = ~np.isnan(given) if given.dtype.kind == "f" else np.ones(given.shape, bool)
        if given.shape != shares.shape or not np.isin(given[known], (0, 1)).all():
            raise ValueError(f"targets {given.shape} must be 0 or 1 and of the probabilities' shape {shares.shape}")
        targets = known & (given == 1)
    else:
        if given.shape != shares.shape[:1] or (given.size and given.dtype.kind not in "iu"):
            raise ValueError(f"labels must be {len(shares)} integer class ids; got {given.dtype} {given.shape}")
        if given.size and not (given.min() >= 0 and given.max() < shares.shape[1]):
            raise ValueError(f"labels must lie in 0 to {shares.shape[1] - 1}; got {given.min()} to {given.max()}")
        targets = given[:, None] == np.arange(shares.shape[1])
        known = np.ones(targets.shape, bool)
    if np.isfinite(shares).all():
        wrong = ((shares < 0) | (shares > 1)).any()
        if wrong or not (several or np.allclose(shares.sum(1), 1, rtol=0, atol=_SUM_TOLERANCE)):
            meant = "sigmoid" if several else "softmax"
            raise ValueError(f"probabilities lie in 0 to 1, and add up to 1 where a row has one label; logits? {meant}")
    return shares, targets, several, known


def _binned_gaps(
    confidence: Floats, hit: NDArray[np.bool_], bins: int, known: NDArray[np.bool_] | None = None
) -> Floats:
    """sum_b |B_b| / n |hits / |B_b| - mean confidence| by column, [n, m] -> [m]; NaN if one is not finite.

    Only cells that are ``known`` [n, m] count; NaN for a column without any.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1; got {bins}")
    rows, columns = confidence.shape
    if rows == 0 or not np.isfinite(confidence).all():
        return np.full(columns, np.nan)
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    cell = np.searchsorted(inner, confidence, side="right") + bins * np.arange(columns)
    # |B| / n |hits / |B| - sum / |B|| = |hits - sum| / n: an empty bin needs no special case.
    off = hit - confidence if known is None else np.where(known, hit - confidence, 0.0)
    gaps = np.bincount(cell.ravel(), off.ravel(), minlength=bins * columns)
    held = rows if known is None else known.sum(0)
    found: Floats = ratio(np.abs(gaps).reshape(columns, bins).sum(1), held)
    return found


def top_label_ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error of the predicted class (Guo et al. 2017, arXiv 1706.04599).

    ECE = sum_b |B_b| / n |accuracy(B_b) - mean confidence(B_b)| over equal-width bins of the largest probability: what
    torchmetrics' ``MulticlassCalibrationError`` computes by default (15 bins, L1; bins closed below, a tie goes to
    the lower class id). There a confidence of exactly 1 has a separate bin, here it is in the last one.

    Args:
        probabilities: [n, C], rows adding up to 1.
        labels: class ids [n] integers.
        bins: how many.

    Returns:
        0 (calibrated) to 1. NaN without rows, and with targets [n, C], because a row with several labels has no top
        label.

    Raises:
        ValueError: other shapes, class ids outside 0..C-1, or values that are not probabilities; bins below 1.

    Example:
        >>> sure = [[0.9, 0.1]] * 10
        >>> round(top_label_ece(sure, [0] * 6 + [1] * 4), 2)  # confidence 90 %, accuracy 60 %
        0.3
    """
    shares, targets, several, _ = _check(probabilities, labels)
    if several:
        return float("nan")
    top = shares.argmax(1)[:, None]
    confidence = np.take_along_axis(shares, top, axis=1)
    return float(_binned_gaps(confidence, np.take_along_axis(targets, top, axis=1), bins)[0])


def classwise_ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Floats:
    """Calibration error of each class's own probability, whether it was predicted or not.

    Class c has sum_b |B_bc| / n |share of c in B_bc - mean probability of c in B_bc|, and the class-wise ECE is the
    mean over all C classes (Kull et al. 2019, arXiv 1910.12656; Nixon et al. 2019, arXiv 1904.01685, call it static
    calibration error). Top-label ECE hardly reflects a class that is rarely predicted. A rare class mostly has
    probabilities near 0, so its own value is small: compare it between methods, not between classes.

    Args:
        probabilities: [n, C].
        labels: class ids [n] integers, or targets [n, C] of 0 and 1, NaN where unknown: then each label's binary ECE.
        bins: how many.

    Returns:
        float64 [C]. A class without rows is defined: all its probability is excess. NaN without any row.

    Raises:
        ValueError: see `top_label_ece`.
    """
    shares, targets, _, known = _check(probabilities, labels)
    return _binned_gaps(shares, targets, bins, known)


def ranking_scores(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """Area under the ROC curve and average precision of each class against the rest.

    AUROC is the chance that a row of the class has a higher probability for it than another row, with ties counting
    half: .5 for guessing, at any prevalence. AUPRC is sum_i (recall_i - recall_(i-1)) precision_i over the distinct
    scores (scikit-learn's ``average_precision_score``, no interpolation); guessing gives the *prevalence* of the class
    in these rows, so values are comparable only on the same test set.

    Args:
        probabilities: [n, C].
        labels: class ids [n] integers, or targets [n, C] of 0 and 1, NaN where unknown.

    Returns:
        (AUROC, AUPRC), float64 [C] each; NaN for a class that no row, or every row, has.

    Raises:
        ValueError: see `top_label_ece`.
    """
    shares, targets, _, known = _check(probabilities, labels)
    classes = shares.shape[1]
    auroc, auprc = np.full(classes, np.nan), np.full(classes, np.nan)
    if not np.isfinite(shares).all():
        return auroc, auprc
    positives, held = targets.sum(0), known.sum(0)
    for c in np.flatnonzero((positives > 0) & (positives < held)):
        own, rows = shares[known[:, c], c], int(held[c])
        order = np.argsort(-own, kind="stable")
        # One point of the curve per distinct score: tied rows are on the same side of a threshold.
        points = np.append(np.flatnonzero(np.diff(own[order])), rows - 1)
        found = np.cumsum(targets[known[:, c], c][order])[points].astype(np.float64)
        called = points + 1.0
        new, false = np.diff(found, prepend=0.0), called - found
        below = found - new / 2
        auroc[c] = (np.diff(false, prepend=0.0) * below).sum() / (positives[c] * (rows - positives[c]))
        auprc[c] = (new * found / called).sum() / positives[c]
    return auroc, auprc


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log p(true class), natural logarithm; equal probabilities give log C.

    With targets [n, C], the mean over rows and labels of the binary log-loss. Probabilities are clipped at 2.2e-16 from
    0 (and, with targets, from 1), as in scikit-learn: a row that is certain and wrong costs 36, not infinity.

    Args, Raises:
        see `classwise_ece`.

    Returns:
        at least 0; NaN without rows.
    """
    shares, targets, several, known = _check(probabilities, labels)
    tiny = np.finfo(np.float64).eps
    if shares.shape[0] == 0 or not np.isfinite(shares).all():
        return float("nan")
    if several:
        clipped = np.clip(shares, tiny, 1 - tiny)
        return _mean(-np.log(np.where(targets, clipped, 1 - clipped)), known)
    return float(-np.log(np.clip(shares[targets], tiny, 1)).mean())


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance between the probabilities and the truth (Brier 1950).

    With one label per row summed over classes, 0 to 2 (scikit-learn's ``brier_score_loss`` of many classes; of two
    classes it halves this). With targets [n, C] the mean over labels too, 0 to 1.

    Args, Raises:
        see `classwise_ece`.

    Returns:
        at least 0 (certain and correct); NaN without rows.
    """
    shares, targets, several, known = _check(probabilities, labels)
    if shares.shape[0] == 0 or not np.isfinite(shares).all():
        return float("nan")
    square = (shares - targets) ** 2
    return _mean(square, known) if several else float(square.sum(1).mean())


def _mean(cells: Floats, known: NDArray[np.bool_]) -> float:
    """The mean over the known cells; NaN without any."""
    return float(cells.mean() if known.all() else ratio(cells[known].sum(), known.sum()))


def probability_scores(probabilities: ArrayLike, labels: ArrayLike) -> ProbabilityScores:
    """Every score of this file at once.

    Args:
        probabilities: [n, C]: rows of a softmax, or of a sigmoid if rows have several labels.
        labels: class ids [n] integers, or targets [n, C] of 0 and 1, NaN where unknown.

    Returns:
        see `ProbabilityScores`; ``auroc`` and ``auprc`` among the means are over the defined classes, and
        ``classwise_ece`` over all with a known row. ``ece`` is NaN if rows have several labels.

    Raises:
        ValueError: see `top_label_ece`.
    """
    auroc, auprc = ranking_scores(probabilities, labels)
    gaps = classwise_ece(probabilities, labels)
    means = {
        "ece": top_label_ece(probabilities, labels),
        "classwise_ece": float(gaps.mean() if np.isfinite(gaps).all() else mean_defined(gaps)),
        "log_loss": log_loss(probabilities, labels),
        "brier": brier(probabilities, labels),
        "auroc": float(mean_defined(auroc)),
        "auprc": float(mean_defined(auprc)),
    }
    return ProbabilityScores(means, auroc, auprc)
