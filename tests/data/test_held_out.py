"""Folds cut inside each client: by class, the same again, patients whole, no class without training rows."""

import numpy as np
import pytest
from small_runs import config

from fedimb.data.folds import deal_rows
from fedimb.data.held_out import FOLDS, KEPT, fold_federation, folds_of
from fedimb.data.prepare import prepare


@pytest.fixture(scope="module")
def federation(cache_dir):
    cfg = config("engine=inline")
    return prepare(cfg.data, cfg.partition, cfg.clients.count, cfg.seed)


def test_every_client_deals_each_class_evenly_and_again_the_same_way(federation):
    folds = folds_of(federation, list(federation.train), seed=3)
    again = folds_of(federation, list(federation.train), seed=3)
    other = folds_of(federation, list(federation.train), seed=4)
    assert all(np.array_equal(one, two) for one, two in zip(folds.numbers, again.numbers, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(folds.numbers, other.numbers, strict=True))
    y = federation.store.y
    for rows, numbers in zip(folds.rows, folds.numbers, strict=True):
        for c in np.unique(y[rows]):
            dealt = numbers[(y[rows] == c) & (numbers != KEPT)]
            counts = np.bincount(dealt, minlength=FOLDS)
            assert (numbers == KEPT).any() or counts.max() - counts.min() <= 1


def test_a_fold_trains_on_the_others_and_holds_its_own_rows_out(federation):
    folds = folds_of(federation, list(federation.train), seed=0)
    held = []
    for fold in range(FOLDS):
        made = fold_federation(federation, folds, fold)
        assert made.validation.sizes.sum() == folds.held_out(fold)
        for k in range(federation.n_clients):
            assert not set(made.train[k]) & set(made.validation[k])
            assert sorted([*made.train[k], *made.validation[k]]) == federation.train[k].tolist()
        held += np.concatenate([*made.validation]).tolist()
        trained = np.bincount(federation.store.y[np.concatenate([*made.train])], minlength=made.n_classes)
        assert (trained > 0).tolist() == (federation.counts.sum(axis=0) > 0).tolist()
    assert len(held) == len(set(held))


def test_a_class_of_one_row_is_never_held_out_and_named(federation):
    y = federation.store.y
    rare = int(np.argmin(federation.counts.sum(axis=0)))
    lone = next(row for own in federation.train for row in own if y[row] == rare)
    rows = [np.array([row for row in own if y[row] != rare or row == lone], np.int64) for own in federation.train]
    folds = folds_of(federation, rows, seed=0)
    assert rare in folds.never
    where = next(k for k, own in enumerate(rows) if lone in own)
    assert folds.numbers[where][folds.rows[where] == lone] == KEPT


def test_patients_stay_whole_and_few_rows_leave_folds_empty():
    y, patients = np.array([0, 0, 0, 1, 1, 0, 0, 1]), np.array([7, 7, 7, 2, 2, 3, 3, 4])
    numbers = deal_rows(y, FOLDS, np.random.default_rng(0), patients)
    for patient in np.unique(patients):
        assert len(set(numbers[patients == patient])) == 1
    assert len(set(numbers)) == 4
    assert len(set(deal_rows(np.array([0, 1]), FOLDS, np.random.default_rng(1)))) == 2
