"""Federated scaling equals scaling the pooled rows; missing values become the mean."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb import registry
from fedimb.data.arrays import SourceData
from fedimb.data.federation import Federation
from fedimb.data.prepare import prepare
from fedimb.data.scaling import Scaling, federated_scaling
from fedimb.errors import DataError

NAN = np.float32("nan")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**31))
def test_sums_of_clients_give_the_pooled_statistics(clients, seed):
    rng = np.random.default_rng(seed)
    x = (rng.normal(50, 9, (40, 3)) * [1, 100, 0.01]).astype(np.float32)
    x[rng.random((40, 3)) < 0.2] = NAN
    parts = np.array_split(x, np.sort(rng.integers(0, 41, clients - 1)))
    scaling = federated_scaling(parts, np.array([True, True, False]))
    pooled = x[:, :2].astype(np.float64)
    assert np.allclose(scaling.mean[:2], np.nanmean(pooled, 0), rtol=1e-5)
    assert np.allclose(scaling.deviation[:2], np.nanstd(pooled, 0), rtol=1e-4)
    assert (scaling.mean[2], scaling.deviation[2]) == (0, 1)
    out = scaling(x)
    assert np.isfinite(out[:, :2]).all()
    assert (out[:, :2][np.isnan(x[:, :2])] == 0).all()


def test_a_constant_column_is_only_centred_and_an_empty_one_is_zero():
    x = np.array([[7.1, NAN], [7.1, NAN]], np.float32)
    out = federated_scaling([x], np.array([True, True]))(x)
    assert np.abs(out).max() < 1e-5


def test_facts_survive_json():
    scaling = Scaling(np.array([0.1, 3e-9], np.float32), np.array([1 / 3, 1], np.float32))
    back = Scaling.from_facts(json.loads(json.dumps(scaling.facts())))
    assert (back.mean == scaling.mean).all()
    assert (back.deviation == scaling.deviation).all()


def test_nan_is_allowed_in_scaled_columns_only():
    x, y = np.array([[1, NAN], [2, 3]], np.float32), np.array([0, 1])
    assert SourceData(x, y, ("a", "b"), scaled=np.array([False, True])).scaled is not None
    with pytest.raises(DataError, match="row 0: value 1 is NaN"):
        SourceData(x, y, ("a", "b"), scaled=np.array([True, False]))
    with pytest.raises(DataError, match="one bool per column"):
        SourceData(x, y, ("a", "b"), scaled=np.array([True]))


class Holey:
    def fingerprint(self):
        return "holey-1"

    def load(self):
        rng = np.random.default_rng(0)
        x = rng.normal(5, 2, (60, 2)).astype(np.float32)
        x[::7, 0] = NAN
        return SourceData(x, np.arange(60) % 2, ("a", "b"), scaled=np.array([True, True]))


def test_training_rows_set_the_scale_that_every_row_gets(tmp_path):
    with registry.isolated():
        registry.register("source", "holey")(Holey)
        data = {"source": {"name": "holey"}, "test": {"name": "stratified", "fraction": 0.5}, "validation": 0.2}
        federation = prepare(data, {"name": "iid"}, 3, 0)
        train = np.concatenate([federation.client(k).tensors("train")[0].numpy() for k in range(3)])
        assert np.abs(train[:, 1].mean()) < 1e-6
        assert train[:, 1].std() == pytest.approx(1, abs=1e-5)
        held_out = np.concatenate([federation.client(k).tensors("validation")[0].numpy() for k in range(3)])
        assert np.isfinite(held_out).all()
        assert abs(held_out[:, 1].mean()) > 1e-6
        federation.save(tmp_path)
        again = Federation.load(tmp_path)
        assert (again.client(1).tensors("train")[0] == federation.client(1).tensors("train")[0]).all()
