import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.partitioners.pathological import Pathological, assign
from fedimb.errors import ConfigError


def table(y, lists, n_classes):
    return np.stack([np.bincount(y[rows], minlength=n_classes) for rows in lists])


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 8), st.integers(1, 12), st.integers(1, 10), st.integers(0, 2**32))
def test_every_client_holds_that_many_classes_cut_into_equal_shards(classes, clients, wanted, seed):
    y = np.repeat(np.arange(classes), 30)
    counts = table(y, Pathological(wanted)(y, clients, np.random.default_rng(seed)), classes)
    if clients * wanted >= classes:
        assert ((counts > 0).sum(axis=1) == min(wanted, classes)).all()
    else:  # the classes left over are given out, one each
        held = (counts > 0).sum(axis=1)
        assert held.sum() == classes
        assert np.ptp(held) <= 1
    holders = (counts > 0).sum(axis=0)
    assert np.ptp(holders) <= 1
    for c in range(classes):
        shards = counts[counts[:, c] > 0, c]
        assert np.ptp(shards) <= 1


def test_a_class_with_fewer_rows_than_holders_does_not_cost_a_client_its_second_class():
    y = np.repeat([0, 1, 2, 3], [100, 100, 100, 1])
    for seed in range(5):
        counts = table(y, Pathological(2)(y, 8, np.random.default_rng(seed)), 4)
        assert ((counts > 0).sum(axis=1) == 2).all()
        assert (counts > 0).sum(axis=0).tolist()[3] == 1


def test_scarce_classes_come_to_any_client():
    y = np.repeat([0, 1, 2, 3], [100, 100, 100, 1])
    at = [int(table(y, Pathological(2)(y, 8, np.random.default_rng(s)), 4)[:, 3].argmax()) for s in range(40)]
    assert len(set(at)) > 4


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=7), st.integers(1, 9), st.integers(1, 9))
def test_slots_are_filled_as_far_as_rows_reach(available, clients, wanted):
    holds = assign(np.array(available), clients, wanted, np.random.default_rng(0))
    holders = holds.sum(axis=0)
    most = np.minimum(available, clients)
    assert (holders >= 1).all()
    assert (holders <= most).all()
    assert holders.sum() == min(most.sum(), max(clients * min(wanted, len(available)), len(available)))
    assert np.ptp(holds.sum(axis=1)) <= 1


def test_needs_at_least_one_class():
    with pytest.raises(ConfigError, match="classes_per_client=0"):
        Pathological(0)
