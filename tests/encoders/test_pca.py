import numpy as np
import pytest
import torch

from fedimb.encoders.pca import Pca
from fedimb.errors import ConfigError, DataError


def public(folder, rows=40, shape=(2, 5), kind=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, *shape)) * np.arange(1, 1 + np.prod(shape)).reshape(shape)
    x = (x * 4 + 100).clip(0, 255).astype(np.uint8) if kind is np.uint8 else x.astype(kind)
    np.savez(folder / "public.npz", x=x)
    return str(folder / "public.npz"), x


def test_components_are_those_of_the_public_rows(tmp_path):
    path, x = public(tmp_path)
    encoder = Pca(3, path, input_shape=(2, 5))
    rows = np.random.default_rng(1).normal(size=(6, 2, 5)).astype(np.float32)
    flat = x.reshape(40, 10).astype(np.float64)
    _, axes = np.linalg.eigh(np.cov(flat.T))  # ascending
    expected = (rows.reshape(6, 10) - flat.mean(0)) @ axes[:, :-4:-1]
    found = encoder.encode(torch.from_numpy(rows)).numpy()
    assert np.allclose(np.abs(found), np.abs(expected), atol=1e-3)
    assert encoder.provenance == "external"


def test_grey_levels_are_scaled_as_the_data_are(tmp_path):
    path, x = public(tmp_path, kind=np.uint8)
    scaled = torch.from_numpy(x.astype(np.float32) / 255)
    found = Pca(10, path, scale=1 / 255, input_shape=(2, 5)).encode(scaled)
    assert torch.allclose(found.mean(0), torch.zeros(10), atol=1e-5)
    centred = (scaled - scaled.mean(0)).flatten(1)
    assert torch.allclose(found.norm(dim=1), centred.norm(dim=1), atol=1e-5)  # all components: a rotation


def test_random_directions_keep_angles():
    x = torch.randn(60, 300, generator=torch.Generator().manual_seed(0))
    x[30:] += 1
    found = Pca(2000, input_shape=(300,)).encode(x)
    wanted = torch.nn.functional.cosine_similarity(x[:30], x[30:])
    assert torch.allclose(torch.nn.functional.cosine_similarity(found[:30], found[30:]), wanted, atol=0.1)
    assert torch.allclose(found.norm(dim=1) / x.norm(dim=1), torch.ones(60), atol=0.1)


def test_random_directions_depend_on_the_seed_alone():
    x = torch.rand(2, 4, 4)
    one, same, other = (Pca(5, seed=s, input_shape=(4, 4)) for s in (0, 0, 1))
    assert torch.equal(one.encode(x), same.encode(x))
    assert not torch.allclose(one.encode(x), other.encode(x))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert one.provenance == "none"


@pytest.mark.parametrize(
    ("args", "words"), [({"dims": 0}, "dims=0"), ({"seed": -1}, "seed=-1"), ({"scale": 0.0}, "scale=0.0")]
)
def test_numbers_out_of_range(args, words):
    with pytest.raises(ConfigError, match=words):
        Pca(**args, input_shape=(4,))


def test_public_rows_that_do_not_fit(tmp_path):
    path, _ = public(tmp_path, rows=4)
    with pytest.raises(DataError, match=r"rows of \[2, 5\], the data \[10\]"):
        Pca(2, path, input_shape=(10,))
    with pytest.raises(DataError, match="4 rows of 10 values; dims=5"):
        Pca(5, path, input_shape=(2, 5))
    np.savez(tmp_path / "nan.npz", x=np.full((9, 3), np.nan))
    with pytest.raises(DataError, match="NaN"):
        Pca(2, str(tmp_path / "nan.npz"), input_shape=(3,))
