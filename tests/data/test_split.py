import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedimb.data.split import split_fraction, split_test
from fedimb.errors import ConfigError, DataError

NAMES = ("a", "b", "c")
BALANCED = {"name": "balanced", "per_class": 4}
STRATIFIED = {"name": "stratified", "fraction": 0.25}


def rng(seed=0):
    return np.random.default_rng(seed)


def test_balanced_takes_exactly_per_class_and_the_rest_is_the_rest():
    y = np.repeat([0, 1, 2], [5, 50, 20])
    test, rest = split_test(y, NAMES, BALANCED, rng())
    assert np.bincount(y[test]).tolist() == [4, 4, 4]
    assert np.sort(np.concatenate([test, rest])).tolist() == list(range(75))
    assert not np.array_equal(test, split_test(y, NAMES, BALANCED, rng(1))[0])


def test_stratified_rounds_half_up_and_takes_at_least_one():
    y = np.repeat([0, 1, 2], [2, 10, 41])
    test, _ = split_test(y, NAMES, STRATIFIED, rng())
    assert np.bincount(y[test]).tolist() == [1, 3, 10]


@pytest.mark.parametrize(
    ("rows", "rule", "says"),
    [
        ([4, 50, 50], BALANCED, "class 'a' has 4 rows: a balanced test set needs 4 and training 1"),
        ([50, 50, 0], BALANCED, "class 'c' has 0 rows"),
        ([50, 1, 50], STRATIFIED, "class 'b' has 1 rows"),
    ],
)
def test_too_few_rows_name_the_class_and_the_numbers(rows, rule, says):
    with pytest.raises(DataError, match=says):
        split_test(np.repeat([0, 1, 2], rows), NAMES, rule, rng())


def test_stratified_passes_over_a_class_without_rows():
    y = np.repeat([0, 2], [8, 8])
    assert np.bincount(y[split_test(y, NAMES, STRATIFIED, rng())[0]]).tolist() == [2, 0, 2]


def test_official_is_the_sources_own():
    official = np.array([False, True, False, True])
    test, rest = split_test(np.array([0, 1, 2, 0]), NAMES, {"name": "official"}, rng(), official=official)
    assert (test.tolist(), rest.tolist()) == ([1, 3], [0, 2])


@pytest.mark.parametrize("official", [None, np.zeros(4, bool), np.ones(4, bool)])
def test_official_without_one_is_refused(official):
    with pytest.raises(DataError, match="no official test set"):
        split_test(np.array([0, 1, 2, 0]), NAMES, {"name": "official"}, rng(), official=official)


def test_official_that_parts_a_patient_is_refused():
    with pytest.raises(DataError, match="shares 1 patients with the training rows, first 7"):
        split_test(
            np.array([0, 1, 2, 0]),
            NAMES,
            {"name": "official"},
            rng(),
            patients=np.array([7, 7, 8, 9]),
            official=np.array([False, True, False, True]),
        )


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 25)), min_size=30, max_size=90),
    rule=st.sampled_from([{"name": "balanced", "per_class": 3}, STRATIFIED]),
    seed=st.integers(0, 2**32),
)
def test_a_patient_is_never_on_both_sides_and_every_class_is(rows, rule, seed):
    y, patients = (np.array(column) for column in zip(*rows, strict=True))
    try:
        test, rest = split_test(y, NAMES, rule, rng(seed), patients)
    except DataError:
        assume(False)
    assert not set(patients[test]) & set(patients[rest])
    assert not set(test) & set(rest)
    have = np.bincount(y, minlength=3)
    assert ((np.bincount(y[rest], minlength=3) > 0) == (have > 0)).all()
    if rule is STRATIFIED:
        assert len(test) + len(rest) == len(y)
        assert ((np.bincount(y[test], minlength=3) > 0) == (have > 0)).all()
    else:
        assert np.bincount(y[test], minlength=3).tolist() == [3, 3, 3]


def test_patients_that_cannot_be_parted_are_refused_with_their_number():
    y = np.repeat([0, 1, 2], 10)
    with pytest.raises(DataError, match="class 'a' has 10 rows of 1 patients"):
        split_test(y, NAMES, STRATIFIED, rng(), np.where(y == 0, 99, np.arange(30)))


def test_stratified_by_patient_comes_near_the_fraction():
    y = np.arange(600) % 3
    patients = np.arange(600) // 6
    test, _ = split_test(y, NAMES, STRATIFIED, rng(), patients)
    assert 0.2 < len(test) / 600 < 0.3


@settings(deadline=None)
@given(
    y=st.lists(st.integers(0, 3), min_size=1, max_size=60).map(np.array),
    fraction=st.floats(0, 0.95),
    seed=st.integers(0, 2**32),
    by_patient=st.booleans(),
)
def test_validation_is_disjoint_and_never_takes_a_class_whole(y, fraction, seed, by_patient):
    rows = rng(seed).permutation(len(y))[: len(y) // 2 + 1]
    patients = rng(seed).integers(0, 8, len(y)) if by_patient else None
    kept, out = split_fraction(rows, y, fraction, rng(seed), patients)
    assert np.sort(np.concatenate([kept, out])).tolist() == np.sort(rows).tolist()
    assert set(y[kept]) == set(y[rows])
    if patients is not None:
        assert not set(patients[kept]) & set(patients[out])
    else:
        had = np.bincount(y[rows])
        wanted = np.minimum(np.floor(had * fraction + 0.5 + 1e-9), np.maximum(had - 1, 0))
        assert np.bincount(y[out], minlength=len(had)).tolist() == wanted.tolist()


def test_by_site_takes_the_fraction_of_each_class_at_each_site():
    y = np.tile(np.repeat([0, 1], [20, 10]), 2)
    sites = np.repeat([0, 3], 30)
    test, rest = split_test(y, NAMES[:2], {"name": "by_site", "fraction": 0.2}, rng(), sites=sites)
    for site in (0, 3):
        assert np.bincount(y[test[sites[test] == site]]).tolist() == [4, 2]
    assert np.sort(np.concatenate([test, rest])).tolist() == list(range(60))


def test_by_site_keeps_whole_patients_and_their_sites():
    y, patients = np.arange(300) % 3, np.arange(300) // 5
    sites = patients % 4
    test, rest = split_test(y, NAMES, {"name": "by_site", "fraction": 0.25}, rng(), patients, sites=sites)
    assert not set(patients[test]) & set(patients[rest])
    for site in range(4):
        assert 0.15 < (sites[test] == site).sum() / (sites == site).sum() < 0.35


@pytest.mark.parametrize(
    ("patients", "sites", "says"),
    [
        (None, None, "needs a source with sites"),
        (np.array([1, 1, 2, 3]), np.array([0, 1, 0, 0]), "1 patients have rows at two sites"),
        (None, np.array([0, 1, 0, 1]), "class 'a' has 2 rows and a test set of 0.2 of each site gets none"),
    ],
)
def test_by_site_that_cannot_be_cut_is_refused(patients, sites, says):
    with pytest.raises(DataError, match=says):
        split_test(np.array([0, 0, 1, 1]), NAMES, {"name": "by_site", "fraction": 0.2}, rng(), patients, sites=sites)


def test_a_fold_is_the_same_for_every_run_seed_and_another_for_every_repeat():
    y = np.arange(60) % 3
    fold = {"name": "fold", "folds": 5, "fold": 2, "repeat": 0}
    test, rest = split_test(y, NAMES, fold, rng(0))
    assert np.array_equal(test, split_test(y, NAMES, fold, rng(7))[0])
    assert not np.array_equal(test, split_test(y, NAMES, fold | {"repeat": 1}, rng(0))[0])
    assert np.sort(np.concatenate([test, rest])).tolist() == list(range(60))
    assert np.bincount(y[test]).tolist() == [4, 4, 4]


def test_a_fold_that_takes_a_class_whole_is_refused():
    y = np.array([0, 0, 0, 0, 0, 1])
    says = []
    for fold in range(2):
        try:
            split_test(y, NAMES[:2], {"name": "fold", "folds": 2, "fold": fold, "repeat": 0}, rng())
        except DataError as error:
            says.append(str(error))
    assert len(says) == 1
    assert "class 'b' has 1 rows and training beside fold" in says[0]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"name": "by_site", "fraction": 2}, "fraction=2: give a number between 0 and 1"),
        ({"name": "fold", "folds": 1, "fold": 0, "repeat": 0}, "folds=1: give a whole number of at least 2"),
        ({"name": "fold", "folds": 5, "fold": 5, "repeat": 0}, "fold=5: folds=5 are counted from 0 to 4"),
        ({"name": "fold", "folds": 5, "fold": 0}, "repeat=None: give a whole number of at least 0"),
        ({"name": "fold", "folds": 5, "fold": True, "repeat": 0}, "fold=True"),
        ({"name": "balance"}, "Did you mean 'balanced'"),
        ({"name": "balanced", "perclass": 3}, "no argument 'perclass'. Did you mean 'per_class'"),
        ({"name": "balanced"}, "per_class=None"),
        ({"name": "balanced", "per_class": True}, "per_class=True"),
        ({"name": "balanced", "per_class": 0}, "per_class=0"),
        ({"name": "stratified", "fraction": 1.0}, "fraction=1.0"),
        ({"name": "stratified", "fraction": "a"}, "fraction='a'"),
        ({"name": "official", "fraction": 0.2}, "no argument 'fraction'"),
    ],
)
def test_a_wrong_rule_is_refused(rule, says):
    with pytest.raises(ConfigError, match=says):
        split_test(np.array([0, 1]), NAMES, rule, rng())
