"""CLAHE against OpenCV's createCLAHE, whose results are written down here, and as an option of sources."""

import hashlib

import numpy as np
import pytest
from tiny_images import put

from fedimb.data.inputs import Inputs
from fedimb.data.sources.clahe import Clahe, clahe, clahe_of, equalised
from fedimb.data.sources.image_csv import ImageCsv
from fedimb.data.sources.image_folder import ImageFolder
from fedimb.errors import ConfigError
from fedimb.rundir.new_data import source_for


def picture(h, w):
    y, x = np.mgrid[:h, :w]
    return ((x * 7 + y * y * 3) % 97 + (x // 3) * 5).astype(np.uint8)


def sha(pixels):
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("size", "clip", "tiles", "total", "digest"),
    [
        ((8, 8), 2.0, 2, 9224, "0aae96ec957d0489"),
        ((9, 13), 3.0, 4, 17419, "f74baa9fab9b2ea7"),  # neither side fits
        ((16, 12), 40.0, 1, 24783, "07d436d59a9c61c6"),  # one tile, nothing cut: plain equalisation
        ((12, 12), 0.5, 3, 20069, "27d1b2e6d03a694e"),
        ((10, 8), 2.0, 4, 11855, "e2b8d8fafccf2b15"),  # one side fits
    ],
)
def test_opencvs_results(size, clip, tiles, total, digest):
    found = clahe(picture(*size), clip, tiles)
    assert found.shape == size
    assert int(found.sum()) == total
    assert sha(found) == digest


@pytest.mark.parametrize(
    ("seed", "clip", "tiles", "digest"),
    [(0, 2.0, 8, "415912cdf4039c40"), (1, 4.0, 5, "dc5f61a3ee737e35"), (2, 1.0, 3, "eb253f23784f065f")],
)
def test_opencvs_results_on_noise(seed, clip, tiles, digest):
    noise = np.random.default_rng(seed).integers(0, 256, (61 + seed, 47), dtype=np.uint8)
    assert sha(clahe(noise, clip, tiles)) == digest


def test_one_tile_without_a_cut_is_the_cumulative_histogram():
    grey = np.array([[0, 0, 10], [10, 10, 200]], np.uint8)
    assert clahe(grey, 1e6, 1).tolist() == [[85, 85, 212], [212, 212, 255]]  # 255 * 2/6, 5/6, 1; 212.5 is even below


def test_of_a_colour_picture_the_luma_is_equalised_and_the_chroma_stays():
    grey = picture(12, 12)
    shades = np.stack([grey] * 3)
    assert (equalised(shades, Clahe(2.0, 3))[0] == clahe(grey, 2.0, 3)).all()
    colour = np.stack([grey // 2 + 60, grey // 2 + 50, grey // 2 + 40])
    found = equalised(colour, Clahe(2.0, 3)).astype(int)
    inside = (found > 0).all(axis=0) & (found < 255).all(axis=0)
    assert inside.mean() > 0.5
    assert (found[0] - found[1])[inside].tolist() == [10] * int(inside.sum())
    assert equalised(colour, None) is colour


@pytest.mark.parametrize(
    ("given", "size", "says"),
    [
        ({"clip": 0}, None, "clip=0"),
        ({"tiles": 2.5}, None, "tiles=2.5: give a whole number"),
        ({"tile": 2}, None, "clahe has no 'tile'"),
        ({"tiles": 8}, (32, 4), "tiles=8, but pictures have 32 x 4 pixels"),
    ],
)
def test_settings_are_refused_by_name(given, size, says):
    with pytest.raises(ConfigError, match=says):
        clahe_of("image_folder", given, size)
    with pytest.raises(ConfigError, match=says):
        ImageFolder("nowhere", size=size, clahe=given)
    with pytest.raises(ConfigError, match=says):
        ImageCsv("nowhere.csv", size=size, clahe=given)


def test_a_source_equalises_what_it_reads_and_says_so_in_its_fingerprint(tmp_path):
    import io

    from PIL import Image

    files = {}
    for name in ("cat__0.png", "dog__0.png"):
        buffer = io.BytesIO()
        Image.fromarray(picture(16, 16)).save(buffer, "PNG")
        files[name.replace(".", "_")] = buffer.getvalue()
    put(tmp_path / "im", **files)
    plain = ImageFolder(str(tmp_path / "im"), mode="L")
    equal = ImageFolder(str(tmp_path / "im"), mode="L", clahe={"clip": 3.0, "tiles": 2})
    assert (plain.load().x[0, 0] == picture(16, 16)).all()
    assert (equal.load().x[0, 0] == clahe(picture(16, 16), 3.0, 2)).all()
    assert plain.fingerprint() != equal.fingerprint()
    trained = {"name": "image_folder", "path": "im", "mode": "L", "clahe": {"clip": 3.0, "tiles": 2}}
    found = source_for(tmp_path / "im", trained, Inputs((1, 16, 16), "uint8"))
    assert found["clahe"] == trained["clahe"]
    np.savez(tmp_path / "new.npz", x=np.zeros((1, 1, 16, 16), np.uint8))
    with pytest.raises(ConfigError, match=r"equalised as they were read \(clahe\), and source 'npz' cannot"):
        source_for(tmp_path / "new.npz", trained, Inputs((1, 16, 16), "uint8"))


def test_a_source_without_the_runs_clahe_is_refused_and_one_that_cannot_say_is_noted():
    from fedimb.data.new_rows import Expected, check_row_settings, open_new_rows
    from fedimb.data.row_settings import row_settings
    from fedimb.errors import DataError

    equal = {"name": "image_folder", "path": "x", "clahe": {"clip": 3.0}}
    trained = Inputs((3, 16, 16), "uint8", row_settings=row_settings(equal))
    assert Inputs.from_facts(trained.facts()) == trained
    assert trained.row_settings["clahe"] == {"clip": 3.0, "tiles": 8}
    plain = Inputs((3, 16, 16), "uint8", row_settings=row_settings({"name": "image_csv", "path": "x"}))
    for inputs, source, says in (
        (trained, {"name": "image_folder", "path": "x"}, r"with clahe=null, .*give clahe=\{clip: 3.0, tiles: 8\}"),
        (trained, equal | {"clahe": {"clip": 2.0}}, r"give clahe=\{clip: 3.0, tiles: 8\}"),
        (trained, {"name": "image_csv", "path": "x"}, r"source 'image_csv' reads rows with clahe=null"),
        (plain, equal, "give clahe=null"),
    ):
        with pytest.raises(DataError, match=says):
            open_new_rows(source, Expected(inputs, ("a", "b"), "multiclass"))
    expected = Expected(trained, ("a", "b"), "multiclass")
    check_row_settings("x", row_settings(equal | {"clahe": {"tiles": 8, "clip": 3}}), expected)
    assert not expected.notes
    check_row_settings("the array", {}, expected)
    assert expected.notes == [
        "the array: only the run's rows were read with clahe={clip: 3.0, tiles: 8}: the others are taken to be made "
        "alike"
    ]


@pytest.mark.parametrize(
    ("one", "other", "key"),
    [
        ({"name": "embeddings_npz", "l2_normalise": True}, {"name": "embeddings_npz"}, "l2_normalise"),
        ({"name": "signals_npz", "transform": {"name": "stft", "hop": 8}}, {"name": "signals_npz"}, "transform"),
        ({"name": "signals_npz", "zscore": "window"}, {"name": "recordings", "window_s": 1.0}, "zscore"),
        ({"name": "image_folder", "mode": "L"}, {"name": "image_csv"}, "mode"),
    ],
)
def test_other_settings_that_change_rows_are_refused_alike(one, other, key):
    from fedimb.data.new_rows import Expected, check_row_settings
    from fedimb.data.row_settings import row_settings
    from fedimb.errors import DataError

    inputs = Inputs((2,), "float32", row_settings=row_settings(one))
    with pytest.raises(DataError, match=f"with {key}="):
        check_row_settings("x", row_settings(other), Expected(inputs, ("a",), "multiclass"))
