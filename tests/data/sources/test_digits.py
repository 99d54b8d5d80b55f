import numpy as np
import pytest

from fedimb.data.sources.digits import Digits
from fedimb.errors import DataError


def test_the_known_images():
    data = Digits().load()
    assert data.x.shape == (1797, 1, 8, 8)
    assert data.x.dtype == np.uint8
    assert data.x.max() * data.scale == 1.0
    assert np.bincount(data.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.class_names == tuple("0123456789")


@pytest.mark.slow  # imports scikit-learn
def test_scikit_learn_is_asked_where_its_file_has_moved(monkeypatch):
    read = Digits().load()
    monkeypatch.setattr("fedimb.data.sources.digits.find_spec", lambda name: None)
    asked = Digits().load()
    assert np.array_equal(asked.x, read.x)
    assert np.array_equal(asked.y, read.y)


def test_other_images_under_the_same_name_are_refused(monkeypatch):
    monkeypatch.setattr("fedimb.data.sources.digits.SHA256", "0" * 64)
    with pytest.raises(DataError, match="not the known"):
        Digits().load()
