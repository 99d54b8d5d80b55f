import numpy as np
import pytest

from fedimb.data.sources import synthetic_table
from fedimb.data.sources.synthetic_table import SyntheticTable
from fedimb.errors import ConfigError


def test_same_arguments_same_table_whatever_the_chunk(monkeypatch):
    whole = SyntheticTable(rows=1000, features=7, classes=3).load()
    monkeypatch.setattr(synthetic_table, "_CHUNK", 64)
    cut = SyntheticTable(rows=1000, features=7, classes=3).load()
    assert np.array_equal(whole.x, cut.x)
    other = SyntheticTable(rows=1000, features=7, classes=3, seed=1)
    assert not np.array_equal(whole.x, other.load().x)
    assert other.fingerprint() != SyntheticTable(rows=1000, features=7, classes=3).fingerprint()


def test_classes_are_balanced_and_as_far_apart_as_asked():
    data = SyntheticTable(rows=50_000, features=41, classes=5, separation=3.0).load()
    assert data.x.dtype == np.float32
    assert np.bincount(data.y).tolist() == [10_000] * 5
    means = np.stack([data.x[data.y == c].mean(axis=0) for c in range(5)])
    assert np.allclose(np.linalg.norm(means, axis=1), 3 / np.sqrt(2), atol=0.1)
    residual = data.x - means[data.y]
    assert np.allclose(residual.std(axis=0), 1, atol=0.02)


@pytest.mark.parametrize(
    "wrong",
    [{"rows": 4}, {"features": 0}, {"classes": 0}, {"separation": -1.0}, {"separation": float("nan")}],
)
def test_refuses_a_table_that_cannot_be(wrong):
    with pytest.raises(ConfigError, match="at least"):
        SyntheticTable(**wrong)
