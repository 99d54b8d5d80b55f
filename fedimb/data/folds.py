"""Cross-validation: rows dealt into folds once per repeat, stratified by class and site, patients kept whole."""

import numpy as np
from numpy.typing import NDArray

from fedimb.data.rows import Rows
from fedimb.errors import DataError
from fedimb.plain import Settings
from fedimb.seeds import Stream, numpy_rng

_FOLDS = 1  # client slot of the SPLIT stream: no run's own test split draws from (0, SPLIT, repeat, 1)
_INNER = 2  # and from here on one slot for the inner folds of each outer fold


def fold_of_rows(
    y: NDArray[np.int64],
    folds: int,
    repeat: int,
    patients: NDArray[np.int64] | None = None,
    sites: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """[n] int64, the fold 0..folds-1 of each row: the same for every run seed, so folds of different runs fit.

    Without patients, the folds' sizes differ by at most one row within each class at each site, within each
    class, and in all. With patients, a patient goes to the fold that has least of what it brings.
    This is repeated stratified k-fold cross-validation.

    Args:
        y: [n] labels.
        folds: >= 2.
        repeat: >= 0; another repeat shuffles again.
        patients, sites: [n] ids, or None.

    Raises:
        DataError: fewer rows or patients than folds.
    """
    return _fold_of_rows(y, folds, numpy_rng(0, Stream.SPLIT, round=repeat, client=_FOLDS), patients, sites)


def inner_fold_of_rows(
    rows: Rows,
    y: NDArray[np.int64],
    rule: Settings,
    patients: NDArray[np.int64] | None = None,
    sites: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """[m] int64, the inner fold 0..inner_folds-1 of each of ``rows``, the training rows of an outer fold.

    As `fold_of_rows`, drawn within these rows alone: what is tuned on inner folds never meets the outer test rows. This
    is nested cross-validation (Varma and Simon, BMC Bioinformatics 7:91, 2006).

    Args:
        rows: [m] int64 rows of the store.
        y: [n] labels of the whole store; ``patients`` and ``sites`` [n] too.
        rule: ``{name: fold, folds, fold, repeat, inner_folds}``.

    Raises:
        DataError: fewer rows or patients than inner folds.
    """
    rng = numpy_rng(0, Stream.SPLIT, round=rule["repeat"], client=_INNER + rule["fold"])
    own = (None if column is None else np.asarray(column[rows]) for column in (patients, sites))
    return _fold_of_rows(y[rows], rule["inner_folds"], rng, *own)


def _fold_of_rows(
    y: NDArray[np.int64],
    folds: int,
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None,
    sites: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    units = len(y) if patients is None else len(np.unique(patients))
    if units < folds:
        raise DataError(
            f"{units} {'rows' if patients is None else 'patients'} cannot fill {folds} folds; use fewer folds"
        )
    return deal_rows(y, folds, rng, patients, sites)


def deal_rows(
    y: NDArray[np.int64],
    folds: int,
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None = None,
    sites: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """As `fold_of_rows` from any generator; fewer rows (or patients) than folds leave some folds empty, at random."""
    where = np.zeros_like(y) if sites is None else sites
    _, stratum = np.unique(np.stack([y, where]), axis=1, return_inverse=True)  # by class, then by site
    if patients is None:
        return _deal(stratum, folds, rng)
    found, of_row = np.unique(patients, return_inverse=True)
    return _deal_units(stratum, of_row, len(found), folds, rng)[of_row]


def _deal(stratum: NDArray[np.int64], folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    # Dealt in turn, stratum after stratum: any consecutive rows (a stratum, a class, all) are spread evenly over folds.
    shuffled = rng.permutation(len(stratum))
    deck = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    fold = np.empty(len(stratum), dtype=np.int64)
    fold[deck] = rng.permutation(folds)[np.arange(len(deck)) % folds]
    return fold


def _deal_units(
    stratum: NDArray[np.int64], of_row: NDArray[np.int64], units: int, folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """[units] fold per patient. The greedy rule of stratified group k-fold: large and rare patients first."""
    total = np.bincount(stratum)
    table = np.zeros((units, len(total)))
    np.add.at(table, (of_row, stratum), 1.0)
    share = table / total  # of all rows of a stratum, what each patient holds
    got = np.zeros((folds, len(total)))
    rows = np.zeros(folds)
    fold = np.empty(units, dtype=np.int64)
    shuffled = rng.permutation(units)
    for unit in shuffled[np.argsort(-share[shuffled].max(axis=1), kind="stable")]:
        # What a fold would hold of the strata this patient has, then its size: an empty fold wins the tie.
        crowded = np.round((got[:, table[unit] > 0] * share[unit, table[unit] > 0]).sum(axis=1), 9)
        best = int(np.lexsort((rows, crowded))[0])
        fold[unit] = best
        got[best] += share[unit]
        rows[best] += table[unit].sum()
    return fold
