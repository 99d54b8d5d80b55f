"""The prior of what arrived, by hand."""

import numpy as np
import pytest

from fedimb.serverapp.arrivals import DECAY, Arrivals

COUNTS = np.array([[90, 10], [5, 5]])


def test_the_prior_begins_with_all_clients_and_follows_what_arrives():
    made = Arrivals(COUNTS, ("a", "b"), COUNTS.__getitem__, whole=110.0)
    data = COUNTS.sum(axis=0).astype(float)
    assert made.prior(data).tolist() == data.tolist()
    made.add([0], [100.0])
    found = np.array([95 * DECAY + 90, 15 * DECAY + 10])
    assert made.prior(data) == pytest.approx(found * 110 / found.sum())
    made.add([1], [40.0])  # its update counts as four times its rows
    found = DECAY * found + np.array([20.0, 20.0])
    assert made.prior(data) == pytest.approx(found * 110 / found.sum())
    assert made.metrics() == pytest.approx({"exposure/arrived/a": 95 / 110, "exposure/arrived/b": 15 / 110})


def test_an_absent_class_never_reaches_zero():
    made = Arrivals(COUNTS, ("a", "b"), lambda client: np.array([1, 0]), whole=110.0)
    data = COUNTS.sum(axis=0).astype(float)
    made.prior(data)
    for _ in range(1000):
        made.add([0], [50.0])
    assert 0 < made.prior(data)[1] < 0.01


def test_a_client_that_told_nothing_is_left_out_and_a_checkpoint_holds_all():
    made = Arrivals(COUNTS, ("a", "b"), lambda client: None, whole=110.0)
    data = COUNTS.sum(axis=0).astype(float)
    made.prior(data)
    made.add([0], [100.0])
    assert made.prior(data) == pytest.approx(data)
    other = Arrivals(COUNTS, ("a", "b"), lambda client: None, whole=110.0)
    other.load({name: value.copy() for name, value in made.state().items()})
    assert other.metrics() == made.metrics()
    assert other.prior(data).tolist() == made.prior(data).tolist()


def test_a_prior_that_goes_on_from_a_checkpoint_is_the_same_to_the_last_bit():
    """Each round gives the prior of the one before; a run that goes on begins with the counts of the data again."""
    counts = np.random.default_rng(0).integers(1, 900, (9, 7))
    data = counts.sum(axis=0).astype(float)
    made = Arrivals(counts, tuple("abcdefg"), counts.__getitem__, whole=float(counts.sum()))
    present = data
    for number in range(60):
        present = made.prior(present)
        resumed = Arrivals(counts, tuple("abcdefg"), counts.__getitem__, whole=float(counts.sum()))
        resumed.load(made.state())
        assert resumed.prior(data).tolist() == present.tolist()
        made.add([number % 9, 3 * number % 9], [counts[number % 9].sum() / 3, 10.1])


def test_without_a_prior_or_a_clock_nothing_is_kept():
    made = Arrivals(None, ("a", "b"))
    made.add([0], [1.0])
    assert (made.sets_prior, made.metrics(), made.state()) == (False, {}, {})
