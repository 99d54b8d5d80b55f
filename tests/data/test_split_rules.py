"""By patient, whole sites, nested folds, time, and class floors: no patient on two sides, or refused in words."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedimb.data.split import split_test
from fedimb.data.split_rules import check_test_rule, of_seed
from fedimb.errors import ConfigError, DataError

NAMES = ("a", "b", "c")
FOLD = {"name": "fold", "folds": 4, "fold": 1, "repeat": 0}
NESTED = FOLD | {"inner_folds": 3, "inner_fold": 2}
RULES = [
    {"name": "stratified", "fraction": 0.3},
    {"name": "by_patient", "fraction": 0.3},
    {"name": "balanced", "per_class": 2},
    {"name": "by_site", "fraction": 0.3},
    {"name": "leave_site_out", "sites": ["s1"]},
    {"name": "temporal", "fraction": 0.3},
    {"name": "temporal", "since": 6},
    FOLD,
    NESTED,
]
FLOORED = [rule | {"min_per_class": 2} for rule in RULES if rule["name"] != "balanced"]


def rng(seed=0):
    return np.random.default_rng(seed)


def cut(y, rule, seed=0, **columns):
    columns = {"site_names": ("s0", "s1", "s2")} | columns
    return split_test(np.asarray(y), NAMES, rule, rng(seed), **columns)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 14), st.integers(0, 9)), min_size=30, max_size=70),
    rule=st.sampled_from(RULES + FLOORED),
    seed=st.integers(0, 2**32),
)
def test_no_patient_is_on_two_sides_by_any_rule(rows, rule, seed):
    y, patients, times = (np.array(column) for column in zip(*rows, strict=True))
    sites = patients % 3
    try:
        test, rest = cut(y, rule, seed, patients=patients, sites=sites, times=times)
    except DataError:
        assume(False)
    assert not set(patients[test]) & set(patients[rest])
    assert not set(test) & set(rest)
    assert len(test)
    assert len(rest)
    assert (np.diff(test) > 0).all()
    assert (np.diff(rest) > 0).all()
    if "min_per_class" in rule:
        present = np.unique(y)
        for side in (test, rest):
            assert (np.bincount(y[side], minlength=3)[present] >= 2).all()
    if rule["name"] == "temporal":
        assert times[test].min() > times[rest].max()
    if rule["name"] == "leave_site_out":
        assert set(sites[test]) == {1}
        assert 1 not in sites[rest]


def test_by_patient_is_stratified_and_needs_patients():
    y, patients = np.arange(60) % 3, np.arange(60) // 4
    by_patient = cut(y, {"name": "by_patient", "fraction": 0.3}, patients=patients)
    assert np.array_equal(by_patient[0], cut(y, {"name": "stratified", "fraction": 0.3}, patients=patients)[0])
    with pytest.raises(DataError, match="needs a source with patients"):
        cut(y, {"name": "by_patient", "fraction": 0.3})


def test_a_floor_raises_a_small_classs_share():
    y = np.repeat([0, 1, 2], [60, 60, 8])
    rule = {"name": "stratified", "fraction": 0.1}
    assert np.bincount(y[cut(y, rule)[0]]).tolist() == [6, 6, 1]
    assert np.bincount(y[cut(y, rule | {"min_per_class": 4})[0]]).tolist() == [6, 6, 4]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"name": "stratified", "fraction": 0.2}, "no split can give it more than 2: set data.test.min_per_class=2"),
        (FOLD, "class 'c' has 5 rows: data.test=fold gives 1 to test and 4 to train on"),
        ({"name": "leave_site_out", "sites": ["s1"]}, "data.test=leave_site_out gives 1 to test and 4 to train on"),
        ({"name": "official"}, "class 'c' has 5 rows: data.test=official gives"),
    ],
)  # fmt: skip
def test_a_floor_that_cannot_be_met_is_refused_with_what_is_possible(rule, says):
    y = np.repeat([0, 1, 2], [40, 40, 5])
    columns = {"sites": np.arange(85) % 3, "official": np.arange(85) % 2 == 0}
    with pytest.raises(DataError, match=says) as refused:
        cut(y, rule | {"min_per_class": 3}, **columns)
    assert "\n" not in str(refused.value)


def test_what_whole_patients_make_possible_is_said():
    y = np.repeat([0, 1, 2], [40, 40, 9])
    patients = np.concatenate([np.arange(80), [100] * 7, [101] * 2])
    with pytest.raises(DataError, match=r"class 'c' has 9 rows of 2 patients: .* no split can give it more than 2"):
        cut(y, {"name": "stratified", "fraction": 0.4, "min_per_class": 4}, patients=patients)


def test_sites_held_out_are_whole_and_known():
    y, sites = np.arange(60) % 3, np.arange(60) % 4
    names = ("rome", "oslo", "9", "bonn")
    test, rest = cut(y, {"name": "leave_site_out", "sites": ["oslo", 9]}, sites=sites, site_names=names)
    assert set(sites[test]) == {1, 2}
    assert len(test) + len(rest) == 60
    for wrong, says in (
        (["osla"], "has no site 'osla'. Did you mean 'oslo'"),
        (list(names), r"leaves no rows to train on; the sites are rome, oslo, 9, bonn"),
    ):
        with pytest.raises(DataError, match=says):
            cut(y, {"name": "leave_site_out", "sites": wrong}, sites=sites, site_names=names)
    with pytest.raises(DataError, match="12 patients have rows at a held-out site and at another"):
        cut(
            y, {"name": "leave_site_out", "sites": ["oslo"]}, sites=sites, site_names=names, patients=np.arange(60) // 5
        )
    with pytest.raises(DataError, match="needs a source with sites"):
        cut(y, {"name": "leave_site_out", "sites": ["oslo"]})


def test_inner_folds_cover_the_outer_training_rows_once_and_never_meet_the_outer_test():
    y, patients = np.arange(120) % 3, np.arange(120) // 5
    outer, training = cut(y, FOLD, patients=patients)
    tested = []
    for inner in range(3):
        test, rest = cut(y, FOLD | {"inner_folds": 3, "inner_fold": inner}, seed=inner, patients=patients)
        assert not set(outer) & {*test, *rest}
        assert set(test) | set(rest) == set(training)
        tested.append(test)
    assert np.array_equal(np.sort(np.concatenate(tested)), training)
    other = cut(y, FOLD | {"fold": 2, "inner_folds": 3, "inner_fold": 0}, patients=patients)[0]
    assert not np.array_equal(other, tested[0])


def test_seeds_take_the_inner_folds_in_turn():
    assert [of_seed(FOLD | {"inner_folds": 4}, seed)["inner_fold"] for seed in range(1000, 1005)] == [0, 1, 2, 3, 0]
    assert of_seed(NESTED, 5) is NESTED
    assert of_seed(FOLD, 5) is FOLD


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (FOLD | {"inner_fold": 1}, "inner_fold needs inner_folds"),
        (FOLD | {"inner_folds": 3, "inner_fold": 3}, "inner_folds=3 are counted from 0 to 2"),
        (FOLD | {"inner_folds": 1}, "at least 2"),
        ({"name": "temporal"}, "give one of"),
        ({"name": "temporal", "fraction": 0.2, "since": "2023-01-01"}, "give one of"),
        ({"name": "temporal", "since": "1/2/2023"}, "give an ISO date"),
        ({"name": "temporal", "since": "2023-01-01T10:00+02:00"}, "has an offset from UTC: give the time without one"),
        ({"name": "temporal", "since": 2.5}, "give a date"),
        ({"name": "temporal", "since": True}, "give a date"),
        ({"name": "leave_site_out", "sites": []}, "names of the held-out sites"),
        ({"name": "leave_site_out", "sites": "oslo"}, "names of the held-out sites"),
        ({"name": "leave_site_out", "sites": ["a", "a"]}, "each once"),
        ({"name": "leave_site_out"}, "names of the held-out sites"),
        ({"name": "stratified", "fraction": 0.2, "min_per_class": 0}, "at least 1"),
        ({"name": "balanced", "per_class": 2, "min_per_class": 2}, "has no argument 'min_per_class'"),
        ({"name": "file"}, "fedimb data split"),
        ({"name": "by_time"}, "no test split 'by_time'"),
    ],
)
def test_wrong_arguments_are_refused(rule, says):
    with pytest.raises(ConfigError, match=says) as refused:
        check_test_rule(rule)
    assert "\n" not in str(refused.value)


def days(*numbers):
    return np.datetime64("2023-01-01", "us") + np.array(numbers) * np.timedelta64(86_400_000_000, "us")


def test_the_last_rows_in_time_are_tested_and_ties_stay_together():
    y = np.arange(10) % 2
    times = days(5, 1, 9, 3, 9, 7, 9, 2, 4, 6)
    test, rest = cut(y, {"name": "temporal", "fraction": 0.2}, times=times)
    assert sorted(test) == [2, 4, 6]  # three rows of one day: 30 % is nearer to 20 % than none or 40 %
    assert len(rest) == 7
    since = cut(y, {"name": "temporal", "since": "2023-01-07"}, times=times)[0]
    assert sorted(since) == [2, 4, 5, 6, 9]


def test_earlier_rows_of_test_patients_are_on_neither_side(caplog):
    y = np.arange(8) % 2
    patients, times = np.array([1, 1, 2, 2, 3, 3, 4, 4]), np.arange(8)
    test, rest = cut(y, {"name": "temporal", "since": 5}, patients=patients, times=times)
    assert (test.tolist(), rest.tolist()) == ([5, 6, 7], [0, 1, 2, 3])
    assert "1 earlier rows of 1 patients with test rows are on neither side" in caplog.text


@pytest.mark.parametrize(
    ("rule", "times", "patients", "says"),
    [
        ({"fraction": 0.2}, None, None, "name the column with data.source.time_column"),
        ({"fraction": 0.2}, days(1, 1, 1, 1), None, "all rows have the time 2023-01-02"),
        ({"since": "2024-01-01"}, days(0, 1, 2, 3), None, "no rows to test.* the times are 2023-01-01 to 2023-01-04"),
        ({"since": "2022-01-01"}, days(0, 1, 2, 3), None, "leaves no rows to train on: no row is earlier"),
        ({"since": 3}, days(0, 1, 2, 3), None, "the times are dates, such as 2023-01-01"),
        ({"since": "2022-01-01"}, np.arange(4), None, "the times are numbers, such as 0"),
        ({"since": 2}, np.arange(4), np.zeros(4, np.int64), "all patients have rows from 2 on"),
        ({"since": 1}, np.arange(4), None, "class 'b' has 1 rows and training before the cut in time gets none"),
    ],
)  # fmt: skip
def test_a_cut_in_time_that_cannot_be_made_is_refused(rule, times, patients, says):
    with pytest.raises(DataError, match=says) as refused:
        cut([0, 0, 1, 0], {"name": "temporal"} | rule, times=times, patients=patients)
    assert "\n" not in str(refused.value)


def test_a_floor_after_a_cut_in_time_names_the_latest_cut_that_meets_it():
    y = np.array([0, 1] * 10 + [0] * 5)
    says = r"class 'b' has 10 rows: data.test=temporal gives 0 to test .* set data.test.since='2023-01-18'"
    with pytest.raises(DataError, match=says):
        cut(y, {"name": "temporal", "fraction": 0.2, "min_per_class": 2}, times=days(*range(25)))
    test, _ = cut(y, {"name": "temporal", "since": "2023-01-18", "min_per_class": 2}, times=days(*range(25)))
    assert np.bincount(y[test]).tolist() == [6, 2]
