"""Folds of a repeat: disjoint, covering, stratified, patients whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.folds import fold_of_rows
from fedimb.errors import DataError


def spread(fold, rows, folds):
    """Most less fewest rows of a fold."""
    return int(np.ptp(np.bincount(fold[rows], minlength=folds)))


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=6, max_size=80),
    folds=st.integers(2, 6),
    repeat=st.integers(0, 9),
    sites=st.booleans(),
)
def test_strata_classes_and_folds_are_even_within_one_row(rows, folds, repeat, sites):
    y, site = (np.array(column) for column in zip(*rows, strict=True))
    fold = fold_of_rows(y, folds, repeat, None, site if sites else None)
    assert fold.shape == y.shape
    assert set(fold) == set(range(folds))
    assert spread(fold, slice(None), folds) <= 1
    for c in range(3):
        assert spread(fold, y == c, folds) <= 1
        for s in range(4):
            assert not sites or spread(fold, (y == c) & (site == s), folds) <= 1
    assert np.array_equal(fold, fold_of_rows(y, folds, repeat, None, site if sites else None))


@settings(max_examples=15, deadline=None)
@given(
    owners=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15)), min_size=30, max_size=50),
    folds=st.integers(2, 4),
    repeat=st.integers(0, 9),
)
def test_a_patient_is_in_one_fold_and_every_row_in_one(owners, folds, repeat):
    y, patients = (np.array(column) for column in zip(*owners, strict=True))
    if len(np.unique(patients)) < folds:
        with pytest.raises(DataError, match="patients cannot fill"):
            fold_of_rows(y, folds, repeat, patients)
        return
    fold = fold_of_rows(y, folds, repeat, patients)
    assert set(fold) == set(range(folds))
    assert all(len(set(fold[patients == p])) == 1 for p in patients)


def test_patients_of_one_row_are_dealt_as_evenly_as_rows():
    y, site = np.repeat([0, 1, 0, 1], [40, 10, 20, 10]), np.repeat([0, 1], [50, 30])
    fold = fold_of_rows(y, 5, 0, np.arange(80) + 100, site)
    for c in range(2):
        for s in range(2):
            assert spread(fold, (y == c) & (site == s), 5) == 0


def test_patients_of_many_rows_are_dealt_nearly_evenly():
    sizes = np.random.default_rng(0).integers(1, 8, 120)
    patients = np.repeat(np.arange(120), sizes)
    y = (patients % 10 == 0).astype(np.int64)  # a tenth of the patients are of the rare class
    fold = fold_of_rows(y, 5, 0, patients)
    share = np.bincount(fold[y == 1], minlength=5) / (y == 1).sum()
    assert 0.1 < share.min() <= share.max() < 0.3
    assert np.ptp(np.bincount(fold)) < 0.1 * len(y)


def test_repeats_differ_and_too_few_rows_are_refused():
    y = np.arange(40) % 2
    assert not np.array_equal(fold_of_rows(y, 5, 0), fold_of_rows(y, 5, 1))
    with pytest.raises(DataError, match="3 rows cannot fill 5 folds"):
        fold_of_rows(np.zeros(3, np.int64), 5, 0)
