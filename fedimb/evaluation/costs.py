"""Costs of mistakes, and what a confusion matrix implies under a different class prevalence.

Every value here is a mean over test rows, so it can be re-weighted from the test set's class shares (development) to
any other (deployment, the training prior, one client's rows): sum_i pi_i (value of a row of class i). This is valid if
the rows of a class have the same distribution in both places. If a class has weight there but no test row, the value is
NaN.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fedimb.errors import ConfigError, nearest
from fedimb.evaluation.confusion import check_matrix
from fedimb.evaluation.metrics import per_class_recall
from fedimb.evaluation.ratios import Floats, minority_ids, ratio

NAMED_COSTS = ("uniform", "minority:<w>")


def named_costs(name: str, n_classes: int, minority: Sequence[int]) -> Floats:
    """A cost matrix by name.

    ``uniform``: every mistake costs 1, so that weighted accuracy is accuracy. ``minority:<w>``: missing a minority
    class costs w, any other mistake 1; for example ``minority:10``.

    Args:
        name: one of these.
        n_classes: C, at least 2.
        minority: class ids of the minority classes.

    Returns:
        float64 [C, C], rows = true class, 0 on the diagonal.

    Raises:
        ConfigError: another name, or a w that is not a finite number above 0.
        ValueError: fewer than 2 classes; a minority class id outside 0..C-1 or given twice.
    """
    if n_classes < 2:
        raise ValueError(f"costs of mistakes need at least 2 classes; got {n_classes}")
    costs = 1.0 - np.eye(n_classes)
    kind, _, weight = str(name).partition(":")
    if name == "uniform":
        return costs
    if kind != "minority":
        raise ConfigError(f"no cost matrix '{name}'.{nearest(str(name), NAMED_COSTS)}")
    try:
        times = float(weight)
    except ValueError:
        times = math.nan
    if not (math.isfinite(times) and times > 0):
        raise ConfigError(f"cost matrix '{name}': give the cost of a missed minority class, such as minority:10")
    costs[minority_ids(minority, n_classes)] *= times
    return costs


def check_costs(costs: ArrayLike, n_classes: int) -> Floats:
    """The checked cost matrix as float64 [C, C].

    Args:
        costs: cost of a row of true class i predicted as j, in any unit; the diagonal need not be 0 (a correct decision
            can also have a cost, or a benefit: a negative number).
        n_classes: C.

    Raises:
        ValueError: not [C, C] or not finite; a mistake that costs less than the correct decision (Elkan 2001 calls such
            costs unreasonable), or a class for which no mistake costs more.
    """
    table = np.asarray(costs, np.float64)
    if table.shape != (n_classes, n_classes):
        raise ValueError(f"the cost matrix must be [{n_classes}, {n_classes}], true by predicted; got {table.shape}")
    if not np.isfinite(table).all():
        i, j = np.argwhere(~np.isfinite(table))[0]
        raise ValueError(f"the cost of class {i} predicted as {j} is {table[i, j]}; give a finite number")
    extra = table - np.diagonal(table)[:, None]
    if (extra < 0).any():
        i, j = np.argwhere(extra < 0)[0]
        raise ValueError(
            f"class {i} predicted as {j} costs {table[i, j]:g}, less than the correct decision ({table[i, i]:g}): "
            "rows are true classes, columns predicted ones; transposed?"
        )
    if (free := np.flatnonzero(extra.max(1) == 0)).size:
        raise ValueError(f"no mistake about class {free[0]} costs anything; give its row a cost off the diagonal")
    return table


def _counts(matrix: ArrayLike) -> Floats:
    counts = check_matrix(matrix)
    if counts.ndim != 2:
        raise ValueError(
            f"this needs one confusion matrix [C, C]; got {counts.shape} (rows with several labels have none)"
        )
    return counts.astype(np.float64)


def _shares(prevalence: ArrayLike, n_classes: int) -> Floats:
    """[..., C] shares or counts -> shares that add up to 1; NaN if all are 0."""
    shares = np.asarray(prevalence, np.float64)
    if shares.ndim == 0 or shares.shape[-1] != n_classes:
        raise ValueError(f"give the prevalence of each of {n_classes} classes; got shape {shares.shape}")
    if not np.isfinite(shares).all() or (shares < 0).any():
        raise ValueError("a prevalence holds finite shares (or counts) of at least 0")
    return ratio(shares, shares.sum(-1, keepdims=True))


def _one_share(prevalence: ArrayLike | None, counts: Floats) -> Floats:
    if prevalence is None:
        return _shares(counts.sum(1), len(counts))
    shares = _shares(prevalence, len(counts))
    if shares.ndim != 1 or np.isnan(shares).any():
        raise ValueError(f"the prevalence must be [{len(counts)}] and not all 0; got {np.asarray(prevalence).tolist()}")
    return shares


def _expected(per_class: Floats, shares: Floats) -> Floats:
    """sum_c shares[..., c] per_class[c], NaN if a class with a share is undefined."""
    undefined = np.isnan(per_class)
    total: Floats = shares @ np.where(undefined, 0.0, per_class)
    return np.where((shares[..., undefined] > 0).any(-1), np.nan, total)


def prior_accuracy(matrix: ArrayLike, prevalence: ArrayLike) -> float:
    """Expected accuracy under this class prevalence: sum_c pi_c recall_c.

    With the training counts it is the accuracy of a deployment with the training prior; with equal shares it is macro
    recall.

    Args:
        matrix: counts [C, C], rows = true class.
        prevalence: shares or counts [C], not all 0; only their proportions matter.

    Returns:
        0 to 1; NaN if a class with a share has no test row.

    Raises:
        ValueError: not a confusion matrix, or not a prevalence.
    """
    counts = _counts(matrix)
    return float(_expected(per_class_recall(counts), _one_share(prevalence, counts)))


def client_accuracies(matrix: ArrayLike, held: ArrayLike) -> Floats:
    """Expected accuracy of one model at each client, given the classes the client holds: sum_c pi_kc recall_c.

    Exact only if clients differ only in label mix; if their rows of one class differ too (scanners, hospitals), use the
    scores from the clients' own rows (``client/*``).

    Args:
        matrix: the model's confusion matrix on the server's test set [C, C], rows = true class.
        held: rows of each class at each client [K, C].

    Returns:
        float64 [K]; NaN for a client without rows, and for one that holds a class without a test row.

    Raises:
        ValueError: not a confusion matrix, or not [K, C] finite counts of at least 0.
    """
    counts = _counts(matrix)
    shares = _shares(held, len(counts))
    if shares.ndim != 2:
        raise ValueError(f"give the clients' rows by class, [K, {len(counts)}]; got shape {shares.shape}")
    empty = np.isnan(shares[:, 0])
    shares = np.where(np.isnan(shares), 0.0, shares)
    return np.where(empty, np.nan, _expected(per_class_recall(counts), shares))


def total_cost(matrix: ArrayLike, costs: ArrayLike, prevalence: ArrayLike | None = None, rows: float = 1000) -> float:
    """Expected cost of ``rows`` cases, in the cost matrix's unit, including correct decisions.

    rows sum_i pi_i sum_j M_ij N_ij / n_i: TCC of Lombardo et al. (arXiv 2510.22016), for many classes and a different
    prevalence.

    Args:
        matrix: counts [C, C], rows = true class.
        costs: M, see `check_costs`.
        prevalence: shares or counts [C] of the classes where the model is used; None: the test set's own.
        rows: number of cases, above 0.

    Returns:
        the cost; NaN without test rows, or if a class with a share has none.

    Raises:
        ValueError: see `check_costs`; not a confusion matrix, not a prevalence, or rows not above 0.
    """
    if not (math.isfinite(rows) and rows > 0):
        raise ValueError(f"rows must be a finite number above 0; got {rows}")
    counts = _counts(matrix)
    table = check_costs(costs, len(counts))
    per_class = ratio((table * counts).sum(1), counts.sum(1))
    return rows * float(_expected(per_class, _one_share(prevalence, counts)))


def weighted_accuracy(matrix: ArrayLike, costs: ArrayLike, prevalence: ArrayLike | None = None) -> float:
    """1 - cost of the mistakes / cost of the worst possible mistakes.

    1 - sum_ij M_ij N_ij / sum_i n_i max_j M_ij, M shifted to a zero diagonal. For two classes it is WA of Lombardo et
    al. (arXiv 2510.22016), (w TP + (1 - w) TN) / (w P + (1 - w) N) with w = C_FN / (C_FN + C_FP), so that the highest
    WA means the lowest cost; the formula is extended to more classes. Uniform costs give accuracy.

    Args:
        matrix: counts [C, C], rows = true class.
        costs: M, see `check_costs`; its unit does not matter.
        prevalence: shares or counts [C] of the classes where the model is used; None: the test set's own.

    Returns:
        1 without a mistake, 0 if every row is the worst one; NaN without test rows, or if a class with a share has
        none.

    Raises:
        ValueError: see `total_cost`.
    """
    counts = _counts(matrix)
    table = check_costs(costs, len(counts))
    extra = table - np.diagonal(table)[:, None]
    shares = _one_share(prevalence, counts)
    cost = _expected(ratio((extra * counts).sum(1), counts.sum(1)), shares)
    return float(1 - ratio(cost, (shares * extra.max(1)).sum()))
