import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.placement import RULES, Placement, place_minority
from fedimb.errors import ConfigError

MINORITY = (1, 3)


def table(lists, y, n_classes=4):
    return np.stack([np.bincount(y[rows], minlength=n_classes) for rows in lists])


def random_lists(rng, n, clients):
    owner = rng.integers(0, clients, n)
    return [np.flatnonzero(owner == k) for k in range(clients)]


def place(lists, y, rule, n_holders, seed=0, patients=None):
    return place_minority(lists, y, MINORITY, rule, n_holders, np.random.default_rng(seed), patients)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 60), st.integers(2, 9), st.sampled_from(RULES), st.integers(0, 2**32), st.data())
def test_only_minority_rows_move_each_used_once(n, clients, rule, seed, data):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    lists = random_lists(rng, n, clients)
    holders = data.draw(st.integers(1, clients - (rule == "absent")))
    placed, again = (place(lists, y, rule, holders, seed) for _ in "ab")
    assert np.sort(np.concatenate(placed)).tolist() == list(range(n))
    assert all(rows.dtype == np.int64 and (np.diff(rows) > 0).all() for rows in placed)
    assert all(np.array_equal(a, b) for a, b in zip(placed, again, strict=True))
    before, after = table(lists, y), table(placed, y)
    assert np.array_equal(before[:, [0, 2]], after[:, [0, 2]])
    rare = after[:, MINORITY]
    if rule == "spread":
        assert (np.ptp(rare, axis=0) <= 1).all()
    if rule == "concentrated":
        assert (rare.sum(axis=1) > 0).sum() <= holders
        for column in rare.T:
            assert (column > 0).sum() == min(holders, column.sum())
            assert np.ptp(np.sort(column)[-holders:]) <= 1
    if rule == "absent":
        assert (rare.sum(axis=1) == 0).sum() >= holders
        lacking = rare.sum(axis=1) == 0
        assert (rare[~lacking] >= before[:, MINORITY][~lacking]).all()  # whoever may hold keeps what it had


def test_absent_rows_go_to_the_others_by_their_shares():
    y = np.repeat([1, 0], [40, 4])
    lists = [np.arange(0, 24), np.arange(24, 32), np.arange(32, 36), np.arange(36, 44)]  # class 1: 24, 8, 4, 4
    seen = set()
    for seed in range(30):
        after = table(place(lists, y, "absent", 1, seed), y)[:, 1].tolist()
        seen.add(tuple(after))
    assert (0, 20, 10, 10) in seen  # 24 rows at 8 : 4 : 4 are 12, 6, 6
    assert len(seen) == 4  # any client may be the one


def test_absent_where_nobody_else_has_any_is_equal():
    y = np.ones(12, np.int64)
    lists = [np.arange(12), *[np.empty(0, np.int64)] * 3]
    after = {tuple(map(len, place(lists, y, "absent", 1, seed))) for seed in range(20)}
    assert after == {(12, 0, 0, 0), (0, 4, 4, 4)}


def test_holders_are_drawn_and_shared_by_all_minority_classes():
    y = np.tile(np.arange(4), 20)
    lists = random_lists(np.random.default_rng(0), 80, 8)
    sets = set()
    for seed in range(10):
        rare = table(place(lists, y, "concentrated", 2, seed), y)[:, MINORITY]
        assert rare[rare.sum(axis=1) > 0].tolist() == [[10, 10], [10, 10]]
        sets.add(tuple(np.flatnonzero(rare.sum(axis=1))))
    assert len(sets) > 3


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 60), st.integers(2, 6), st.sampled_from(RULES), st.integers(1, 20), st.integers(0, 2**32))
def test_patients_stay_whole_and_the_absent_stay_without(n, clients, rule, cohort, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    patients = rng.integers(0, cohort, n) * 3 - 9
    lists = [np.flatnonzero(patients % clients == k) for k in range(clients)]
    placed = place(lists, y, rule, 1, seed, patients)
    assert np.sort(np.concatenate(placed)).tolist() == list(range(n))
    assert sum(len(set(patients[rows])) for rows in placed) == len(np.unique(patients))
    touched = np.isin(patients, patients[np.isin(y, MINORITY)])
    for old, new in zip(lists, placed, strict=True):
        assert old[~touched[old]].tolist() == new[~touched[new]].tolist()
    with_minority = (table(placed, y)[:, MINORITY].sum(axis=1) > 0).sum()
    if rule == "absent":
        assert with_minority < clients
    if rule == "concentrated":
        assert with_minority <= 1


def test_without_minority_rows_or_rule_nothing_moves():
    y = np.zeros(9, np.int64)
    lists = random_lists(np.random.default_rng(1), 9, 3)
    for rule in (*RULES, None):
        assert all(np.array_equal(a, b) for a, b in zip(lists, place(lists, y, rule, 1), strict=True))


@pytest.mark.parametrize(
    ("rule", "given", "clients", "n"),
    [
        ("concentrated", 0.2, 10, 2),
        ("concentrated", 0.25, 10, 3),  # a half rounds up
        ("concentrated", 0.01, 10, 1),
        ("concentrated", 10, 10, 10),
        ("absent", 0.9, 2, 1),  # somebody must hold it
        ("absent", 9, 10, 9),
        ("spread", 500, 10, 10),
        (None, 500, 10, 10),
    ],
)
def test_how_many_clients(rule, given, clients, n):
    assert Placement(rule, given).holders(clients) == n


@pytest.mark.parametrize(
    ("keys", "clients", "says"),
    [
        ({"minority_placement": "spred"}, 3, "no rule 'spred'. Did you mean 'spread'"),
        ({"minority_placement": True}, 3, "no rule 'True'"),
        ({"minority_clients": 0}, 3, "partition.minority_clients=0: give a whole number"),
        ({"minority_clients": 1.0}, 3, "partition.minority_clients=1.0"),
        ({"minority_clients": True}, 3, "partition.minority_clients=True"),
        ({"minority_clients": "all"}, 3, "partition.minority_clients='all'"),
        ({"minority_placement": "concentrated", "minority_clients": 4}, 3, "at most 3 of 3 .* set it to 3 or less"),
        ({"minority_placement": "absent", "minority_clients": 3}, 3, "at most 2 of 3 .*somebody must hold it"),
        ({"minority_placement": "absent"}, 1, "raise clients.count"),
    ],
)
def test_wrong_settings_name_the_key_and_the_remedy(keys, clients, says):
    with pytest.raises(ConfigError, match=says):
        Placement.split({"name": "iid", **keys})[0].holders(clients)
