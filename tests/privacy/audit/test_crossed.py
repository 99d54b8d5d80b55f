import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leaky import batch, copying, gaussian

from fedimb.errors import DataError
from fedimb.privacy.audit.crossed import cross_audit, split_in_halves
from fedimb.privacy.audit.gate import GateSettings
from fedimb.privacy.audit.types import Batch

QUICK = GateSettings(draws=10, bootstrap=20)


def honest(rng):
    return lambda own: (lambda y: rng.normal(size=(len(y), 8)).astype(np.float32), None)


def memorising(rng):
    return lambda own: (lambda y: copying(rng, own.x, len(y)), lambda x, y, d: -np.abs(x).sum(1))


def test_each_half_trains_and_the_other_is_its_holdout():
    rng = np.random.default_rng(0)
    records, seen = batch(gaussian(rng, 200)[0]), []

    def train(own):
        seen.append(own)
        return honest(rng)(own)

    joined, folds = cross_audit(records, train, np.zeros(200, np.int64), QUICK, rng)
    assert [len(own) for own in seen] == [100, 100]
    rows = np.concatenate([own.x for own in seen])
    assert sorted(rows[:, 0].tolist()) == sorted(records.x[:, 0].tolist())
    assert joined.verdicts[0].state == "pass"
    both = [fold.verdicts[0].figures["nearest_ratio"] for fold in folds]
    assert joined.verdicts[0].figures["nearest_ratio"] == pytest.approx(np.mean(both))


def test_a_recipe_that_memorises_one_half_fails():
    rng = np.random.default_rng(1)
    turn = iter([honest(rng), memorising(rng)])
    joined, folds = cross_audit(
        batch(gaussian(rng, 200)[0]), lambda own: next(turn)(own), np.zeros(200, np.int64), QUICK, rng
    )
    assert [fold.verdicts[0].state for fold in folds] == ["pass", "fail"]
    assert joined.verdicts[0].state == "fail"
    assert joined.passed == ()
    assert joined.verdicts[0].reasons[0].startswith("half 2: ")
    assert np.isnan(joined.verdicts[0].figures["mia_auc"])  # only one half could be asked


def test_the_minimum_count_is_of_both_halves_together():
    rng = np.random.default_rng(2)
    for records, state in ((18, "refused"), (20, "undecidable")):
        joined, _ = cross_audit(batch(gaussian(rng, records)[0]), honest(rng), np.zeros(50, np.int64), QUICK, rng)
        assert joined.verdicts[0].state == state
    with pytest.raises(DataError, match="two patients"):
        cross_audit(
            batch(np.zeros((3, 8)), units=np.zeros(3, np.int64)), honest(rng), np.zeros(5, np.int64), QUICK, rng
        )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60), st.integers(0, 9))
def test_halves_hold_all_records_once_and_no_patient_twice(rows, seed):
    y, units = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    x = np.zeros((len(y), 1), np.float32)
    first, second = split_in_halves(Batch(x, y, units=units), np.random.default_rng(seed))
    assert sorted([*first, *second]) == list(range(len(y)))
    assert not set(units[first]) & set(units[second])
    plain = split_in_halves(Batch(x, y), np.random.default_rng(seed))
    for label in np.unique(y):
        assert abs(int((y[plain[0]] == label).sum()) - int((y[plain[1]] == label).sum())) <= 1
