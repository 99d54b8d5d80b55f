import numpy as np

from fedimb.data.exposure import exposure


def test_by_hand():
    found = exposure(np.array([[4, 10, 0], [4, 0, 0], [2, 0, 0]]))
    assert found["holders"].tolist() == [3, 1, 0]
    assert np.allclose(found["n_eff"], [100 / 36, 1, np.nan], equal_nan=True)
    assert np.allclose(found["top1_mass"], [0.4, 1, np.nan], equal_nan=True)
