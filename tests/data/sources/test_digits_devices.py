import numpy as np
import pytest
from scipy.ndimage import correlate1d

from fedimb.data.sources.digits import Digits
from fedimb.data.sources.digits_devices import DEVICES, DigitsDevices, apply_device
from fedimb.errors import ConfigError

PLAIN = Digits().load()
V = np.repeat(PLAIN.x / 16, 3, axis=1)


def test_the_same_digits_with_a_device_each():
    data = DigitsDevices().load()
    assert data.x.shape == (1797, 3, 8, 8)
    assert np.array_equal(data.y, PLAIN.y)
    assert data.site_names == ("cast", "blur", "vignette")
    assert np.bincount(data.sites).min() > 550
    again = DigitsDevices().load()
    assert np.array_equal(again.x, data.x)
    assert np.array_equal(again.sites, data.sites)
    assert not np.array_equal(DigitsDevices(seed=1).load().sites, data.sites)
    # Whose digit it was says nothing about its device: each class is spread over all, 60 +- 6.3 rows a device.
    cells = np.stack([np.bincount(data.sites[data.y == c], minlength=3) for c in range(10)])
    assert cells.min() > 35


def test_each_row_is_as_its_device_sees_it():
    data = DigitsDevices(devices=4).load()
    red, ground = data.x[data.sites == 0] / 255, np.array([0.25, 0.1, 0.5])
    ink = V[data.sites == 0]
    assert np.allclose(red, ink * np.array([0.75, 0.45, 0.2])[:, None, None] + ground[:, None, None], atol=1 / 500)
    blur = V[data.sites == 1]
    for axis in (2, 3):
        blur = correlate1d(blur, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    assert np.allclose(data.x[data.sites == 1] / 255, blur, atol=1 / 500)
    vignette, whole = data.x[data.sites == 2] / 255, V[data.sites == 2]
    assert np.allclose(vignette[..., 0, 0], 0.1 * whole[..., 0, 0], atol=1 / 500)
    assert np.allclose(vignette[..., 3, 4], whole[..., 3, 4] * (1 - 0.9 / 49), atol=1 / 500)
    assert np.allclose(data.x[data.sites == 3] / 255, V[data.sites == 3], atol=1 / 500)


@pytest.mark.parametrize("device", DEVICES)
def test_no_device_leaves_the_range(device):
    extremes = np.stack([np.zeros((3, 8, 8)), np.ones((3, 8, 8))])
    made = apply_device(extremes, device)
    assert made.min() >= 0
    assert made.max() <= 1


def test_without_strength_all_devices_are_neutral_and_half_is_half_way():
    none, half, full = (DigitsDevices(strength=s).load().x / 255 for s in (0.0, 0.5, 1.0))
    assert np.allclose(none, V, atol=1 / 500)
    assert np.allclose(half, (none + full) / 2, atol=1 / 250)


def test_the_fingerprint_tells_the_settings_apart():
    prints = {DigitsDevices(*args).fingerprint() for args in ((), (4,), (3, 0.5), (3, 1.0, 1))}
    assert len(prints) == 4
    assert DigitsDevices(3, 1).fingerprint() == DigitsDevices(3, 1.0).fingerprint()


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"devices": 5}, {"strength": 1.5}, {"seed": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DigitsDevices(**wrong)
