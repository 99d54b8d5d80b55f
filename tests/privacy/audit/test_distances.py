import numpy as np
import pytest
from scipy.spatial.distance import cdist

from fedimb.errors import ConfigError, DataError
from fedimb.privacy.audit import distances
from fedimb.privacy.audit.distances import Scale, nearest_records, rounding_tolerance, squared_distances
from fedimb.privacy.audit.types import Batch, GateSettings


@pytest.mark.parametrize("block", [1, 50, 4_000_000])
def test_nearest_is_scipys_whatever_the_block(monkeypatch, block):
    monkeypatch.setattr(distances, "_BLOCK", block)
    rng = np.random.default_rng(0)
    points, records = rng.normal(size=(13, 4)), rng.normal(size=(9, 4))
    theirs = cdist(points, records)
    found, where = nearest_records(points, records)
    assert found == pytest.approx(theirs.min(1))
    assert (where == theirs.argmin(1)).all()
    assert squared_distances(points, records) == pytest.approx(theirs**2)
    own = cdist(records, records)
    np.fill_diagonal(own, np.inf)
    assert nearest_records(records, records, (np.arange(9), np.arange(9)))[0] == pytest.approx(own.min(1))


def test_nearest_of_nothing_is_infinity_and_of_itself_alone_too():
    found, where = nearest_records(np.zeros((2, 3)), np.zeros((0, 3)))
    assert np.isinf(found).all()
    assert (where == -1).all()
    found, where = nearest_records(np.zeros((1, 3)), np.zeros((1, 3)), (np.zeros(1, np.int64), np.zeros(1, np.int64)))
    assert (found[0], where[0]) == (np.inf, -1)


def test_scale_standardises_and_neither_constant_nor_hardly_varying_columns_explode():
    rng = np.random.default_rng(1)
    x = rng.normal(5, 3, size=(400, 6))
    x[:, 0], x[:, 1] = 7.0, 0.0
    x[0, 1] = 1e-3
    scale = Scale.of(x.reshape(400, 2, 3))
    shown = scale(x.reshape(400, 2, 3))
    assert shown[:, 2:].std(0) == pytest.approx(1)
    assert shown.mean(0) == pytest.approx(0, abs=1e-9)
    assert np.abs(shown[:, :2]).max() < 0.01


def test_rounding_finds_grids_and_takes_nothing_else_for_one():
    rng = np.random.default_rng(2)
    free = rng.normal(size=(40, 1, 4, 4)).astype(np.float32)
    assert rounding_tolerance(free, free).max() < 3e-6
    levels = (np.rint(rng.random((40, 1, 4, 4)) * 255) / 255).astype(np.float32)
    assert rounding_tolerance(levels, free) == pytest.approx(0.5 / 255, rel=1e-4)
    table = np.stack([rng.integers(20, 90, 60), rng.normal(size=60), rng.integers(0, 2, 60), np.zeros(60)], 1)
    assert rounding_tolerance(table, table) == pytest.approx([0.5, 0, 0.5, 1], abs=3e-6)
    # two values always lie on some grid: the real records tell
    assert rounding_tolerance(free[:1, 0, :1, 0], free[:, 0, :1, 0]).max() < 3e-6


def test_batches_and_settings_that_make_no_sense_are_refused():
    with pytest.raises(DataError, match="same n"):
        Batch(np.zeros((3, 2)), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="same n"):
        Batch(np.zeros((3, 2)), np.zeros(3, np.int64), units=np.zeros(1, np.int64))
    for wrong in ({"alpha": 0}, {"power": 1.0}, {"copied": -1}, {"near": 1}, {"draws": 0}, {"min_count": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            GateSettings(**wrong)
