"""DICOM: grey levels as the standard has them, patients kept together and unnamed. Only windows need no pydicom."""

import io
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_dicom import dicom
from tiny_images import packed

from fedimb.data.inputs import Inputs
from fedimb.data.new_rows import Expected
from fedimb.data.problems import Problems
from fedimb.data.sources.dicom import Dicom
from fedimb.data.sources.dicom_grey import apply_window, read_grey
from fedimb.data.store import open_source
from fedimb.deploy.registered_data.source_records import read_source
from fedimb.errors import ConfigError, DataError
from fedimb.testing import check_source

try:
    import pydicom
except ImportError:
    pydicom = None
needs_pydicom = pytest.mark.skipif(pydicom is None, reason="pydicom is not installed: pip install 'fedimb[dicom]'")


def fixture(name):
    """A file that pydicom itself ships."""
    from pydicom.data import get_testdata_file

    return Path(get_testdata_file(name, download=False)).read_bytes()


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """Files by name and label, with their CSV, in a zip; returns the source's configuration."""
    monkeypatch.setenv("FEDIMB_DATA_DIR", str(tmp_path))

    def make(files, columns="file,label", **args):
        packed(tmp_path / "scans.zip", {name: data for name, (_, data) in files.items()})
        rows = "".join(f"{name},{said}\n" for name, (said, _) in files.items())
        (tmp_path / "labels.csv").write_text(f"{columns}\n{rows}")
        return {"path": "scans.zip", "labels": "labels.csv", **args}

    return make


@pytest.mark.parametrize(
    ("function", "centre", "width", "values", "expected"),
    [
        ("LINEAR", 2048, 4096, [-1, 0, 2047.5, 4095, 5000], [0, 0, 0.5, 1, 1]),  # the standard's note 4
        ("LINEAR", 0, 100, [-50, -0.5, 49], [0, 0.5, 1]),
        ("LINEAR", 0, 1, [-0.5, 0], [0, 1]),
        ("LINEAR_EXACT", 2048, 4096, [0, 2048, 4096], [0, 0.5, 1]),
        ("LINEAR_EXACT", 0.5, 0.5, [0.25, 0.5, 0.625, 0.75], [0, 0.5, 0.75, 1]),
        ("SIGMOID", 10, 4, [10, 11, -1e9, 1e9], [0.5, 1 / (1 + np.exp(-1)), 0, 1]),
    ],
)
def test_windows_of_the_standard(function, centre, width, values, expected):
    got = apply_window(np.array(values, dtype=np.float64), centre, width, function)
    assert np.allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize(("function", "width"), [("LINEAR", 0.5), ("LINEAR_EXACT", 0), ("SIGMOID", -1), ("CUBIC", 9)])
def test_windows_that_are_none(function, width):
    with pytest.raises(DataError, match=r"is not defined for|is not one of"):
        apply_window(np.zeros(1), 0, width, function)


def test_without_pydicom_the_remedy_is_named(scans, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedimb\[dicom\]'"):
        Dicom(**scans({"a.dcm": ("x", b"a"), "b.dcm": ("y", b"b")})).load()


@needs_pydicom
def test_the_contract(scans):
    files = {f"{k}.dcm": ("ill" if k % 2 else "well", dicom(PatientID=f"p{k}")) for k in range(4)}
    check_source("dicom", **scans(files))


@needs_pydicom
@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, [[0, 26], [51, 255]]),  # minimum to maximum: 25.5 rounds to even
        ({"kind": "MONOCHROME1"}, [[255, 229], [204, 0]]),
        ({"WindowCenter": 100.5, "WindowWidth": 201}, [[0, 128], [255, 255]]),
        ({"WindowCenter": [100.5, 7], "WindowWidth": [201, 3]}, [[0, 128], [255, 255]]),
        ({"WindowCenter": 100, "WindowWidth": 200, "VOILUTFunction": "LINEAR_EXACT"}, [[0, 128], [255, 255]]),
        ({"RescaleSlope": 2, "RescaleIntercept": -400, "WindowCenter": 0.5, "WindowWidth": 801}, [[0, 64], [128, 255]]),
        ({"PixelPaddingValue": 1000}, [[0, 128], [255, 255]]),
        ({"stored": np.full((2, 2), 7, dtype=np.uint8)}, [[0, 0], [0, 0]]),
    ],
)
def test_grey_levels(entries, expected):
    assert read_grey(dicom(**entries)).pixels.tolist() == [expected]


@needs_pydicom
def test_a_voi_table_goes_before_the_window():
    table = pydicom.Dataset()
    table.LUTDescriptor = [256, 0, 8]
    table.LUTData = list(range(255, -1, -1))
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    small = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    pixels = read_grey(dicom(small, VOILUTSequence=[table], WindowCenter=9, WindowWidth=3)).pixels
    assert pixels.tolist() == [[[255, 155], [55, 0]]]


@needs_pydicom
@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"])
def test_one_image_in_several_encodings(name):
    assert np.array_equal(read_grey(fixture(name)).pixels, read_grey(fixture("MR_small.dcm")).pixels)


@needs_pydicom
@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_compressed_images(name):
    pytest.importorskip("gdcm", reason="python-gdcm is not installed: pip install 'fedimb[dicom]'")
    assert np.array_equal(read_grey(fixture(name)).pixels, read_grey(fixture("MR_small.dcm")).pixels)


@needs_pydicom
@pytest.mark.parametrize("name", ["MR_small.dcm", "liver_1frame.dcm", "image_dfl.dcm", "examples_overlay.dcm"])
def test_windows_agree_with_pydicom(name):
    data = fixture(name)
    header = pydicom.dcmread(io.BytesIO(data))
    values = pydicom.pixels.apply_modality_lut(header.pixel_array, header)
    if "WindowCenter" in header:
        values = pydicom.pixels.apply_voi_lut(values, header)
        signed, top = header.PixelRepresentation, 2**header.BitsStored
        low, high = (-top / 2, top / 2 - 1) if signed else (0, top - 1)
        slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
        low, high = low * slope + intercept, high * slope + intercept
    else:
        low, high = values.min(), values.max()
    expected = (values - low) / (high - low) * 255
    assert np.abs(read_grey(data).pixels[0] - expected).max() <= 1


def bad(name):
    return {
        "no DICOM": lambda: b"hello",
        "zero bytes": lambda: b"",
        "truncated": lambda: fixture("MR_truncated.dcm"),
        "no pixels": lambda: fixture("rtplan.dcm"),
        "colour": lambda: dicom(np.zeros((2, 2, 3), dtype=np.uint8), kind="RGB"),
        "frames": lambda: fixture("rtdose.dcm"),
        "burned in": lambda: dicom(BurnedInAnnotation="YES"),
        "no patient": lambda: dicom(PatientID=None),
        "empty patient": lambda: dicom(PatientID=" "),
        "no window": lambda: dicom(WindowCenter=1, WindowWidth=0),
    }[name]()


@needs_pydicom
@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("no DICOM", "is not a DICOM file, or a damaged one (InvalidDicomError)"),
        ("zero bytes", "is empty (0 bytes)"),
        ("truncated", "pixels cannot be decoded (The number of bytes of pixel data is less than expected"),
        ("no pixels", "has no pixels: it is not an image"),
        ("colour", "is RGB: MONOCHROME1 or MONOCHROME2 is needed"),
        ("frames", "has 15 frames: choose frames=first, middle or all (data.source.frames)"),
        ("burned in", "has burned-in annotation, which may show a name"),
        ("no patient", "has no PatientID; if no patient has two images, set by_patient=false"),
        ("empty patient", "has no PatientID;"),
        ("no window", "window width 0 is not defined for LINEAR"),
    ],
)
def test_a_bad_file_is_refused_or_counted(scans, kind, line):
    config = scans({"a.dcm": ("x", dicom()), "b.dcm": ("y", dicom()), "c.dcm": ("y", bad(kind))})
    with pytest.raises(DataError) as caught:
        Dicom(**config).load()
    assert str(caught.value).startswith(f"1 bad row: labels.csv row 4: 'c.dcm' {line}")
    assert "Q-773-19" not in str(caught.value)
    data = Dicom(**config, on_bad="skip").load()
    assert data.y.tolist() == [0, 1]
    assert data.skipped[0].startswith(f"labels.csv row 4: 'c.dcm' {line}")


@needs_pydicom
def test_burned_in_annotation_can_be_allowed(scans, caplog):
    files = {"a.dcm": ("x", dicom()), "b.dcm": ("y", dicom(BurnedInAnnotation="YES"))}
    with caplog.at_level(logging.WARNING, "fedimb"):
        assert len(Dicom(**scans(files), allow_burned_in=True).load().y) == 2
    assert "1 images with burned-in annotation are used, first b.dcm" in caplog.text


@needs_pydicom
def test_patients_are_numbers_and_their_ids_nowhere(scans, caplog):
    ids = ["Q-773-19", "A-5", "Q-773-19"]
    files = {
        f"{i}.dcm": (("x", "y", "y")[i] + f",{'ab'[i % 2]}", dicom(PatientID=ids[i], PatientName="Meyer^Q"))
        for i in range(3)
    }
    config = scans(files, columns="file,label,site", size=[1, 2])
    with caplog.at_level(logging.DEBUG):
        store = open_source({"name": "dicom", **config})
    assert store.x.shape == (3, 1, 1, 2)
    assert store.patients.tolist() == [1, 0, 1]
    assert store.site_names == ("a", "b")
    written = b"".join(file.read_bytes() for file in store.path.iterdir())
    for secret in (*ids, "Meyer"):
        assert secret.encode() not in written
        assert secret not in caplog.text
    assert Dicom(**config, by_patient=False).load().patients is None


@needs_pydicom
def test_a_patient_on_both_sides_is_found_in_the_files(scans):
    files = {
        "a.dcm": ("x,train", dicom()),
        "b.dcm": ("y,train", dicom(PatientID="B")),
        "c.dcm": ("y,test", dicom()),
        "d.dcm": ("x,test", dicom(PatientID="D")),
    }
    config = scans(files, columns="file,label,split")
    with pytest.raises(
        DataError, match=r"row 4: a test image of a patient who also has training rows \(labels\.csv row 2"
    ):
        Dicom(**config).load()
    data = Dicom(**config, on_bad="skip").load()
    assert data.y.tolist() == [0, 1, 0]
    assert data.official_test.tolist() == [False, False, True]


def film(first, frames=3, **entries):
    """A file of ``frames`` frames of one grey level each, which rises by 10 from ``first``."""
    levels = first + 10 * np.arange(frames)
    x = np.repeat(levels, 4).reshape(frames, 2, 2).astype(np.uint8)
    made = {"WindowCenter": 128, "WindowWidth": 256, **entries}
    return dicom(x[0], frames=frames, **made).replace(x[0].tobytes() * frames, x.tobytes())


@needs_pydicom
def test_frames_are_refused_chosen_or_all_read(scans):
    files = {"a.dcm": ("x", film(10)), "b.dcm": ("y", film(100, 4, PatientID="B")), "c.dcm": ("y", dicom())}
    config = scans(files)
    with pytest.raises(DataError, match=r"2 bad rows: labels\.csv row 2: 'a\.dcm' has 3 frames: choose frames=first"):
        Dicom(**config).load()
    for frames, levels in (("first", [10, 100]), ("middle", [20, 110])):
        data = Dicom(**config, frames=frames).load()
        assert data.x[:2, 0, 0, 0].tolist() == levels
        assert len(data.y) == 3
    data = Dicom(**config, frames="all").load()
    assert data.x[:7, 0, 0, 0].tolist() == [10, 20, 30, 100, 110, 120, 130]
    assert data.y.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert data.patients.tolist() == [1, 1, 1, 0, 0, 0, 0, 1]
    marks = {Dicom(**config, frames=frames).fingerprint() for frames in (None, "first", "middle", "all")}
    assert len(marks) == 4


@needs_pydicom
def test_frames_of_one_file_stay_together_without_patients(scans):
    files = {"a.dcm": ("x", film(10, PatientID=None)), "b.dcm": ("y", film(100, 2)), "c.dcm": ("y", film(7, 1))}
    config = scans(files)
    data = Dicom(**config, frames="all", by_patient=False).load()
    assert data.patients.tolist() == [0, 0, 0, 1, 1, 2]
    assert Dicom(**config, frames="first", by_patient=False).load().patients is None


@needs_pydicom
def test_a_bad_frame_is_named(scans):
    groups = [pydicom.Dataset() for _ in range(2)]
    bad_film = film(10, 3, PerFrameFunctionalGroupsSequence=pydicom.Sequence(groups))
    files = {"a.dcm": ("x", bad_film), "b.dcm": ("y", dicom()), "c.dcm": ("y", b"hello")}
    data = Dicom(**scans(files), frames="all", on_bad="skip").load()
    assert data.y.tolist() == [0, 0, 1]
    assert data.skipped == (
        "labels.csv row 4: 'c.dcm' is not a DICOM file, or a damaged one (InvalidDicomError)",
        "labels.csv row 2 frame 3: 'a.dcm' has 2 per-frame functional groups, and no one for frame 3",
    )
    with pytest.raises(ConfigError, match=r"no frames 'al'\. Did you mean 'all'"):
        Dicom("a", "b", frames="al")


@needs_pydicom
def test_new_frames_have_the_file_and_the_frame_as_their_id(scans):
    source = Dicom(**scans({"a.dcm": ("x", film(10)), "b.dcm": ("y", dicom())}), frames="all")
    expected = Expected(Inputs((1, 2, 2), "uint8", 0.0, 255.0), ("x", "y"), "multiclass")
    (batch,) = Dicom("scans.zip", "", frames="all").new_rows(expected, Problems())
    assert batch.ids == ("a.dcm#1", "a.dcm#2", "a.dcm#3", "b.dcm#1")
    assert batch.x[:3, 0, 0, 0].tolist() == [10, 20, 30]
    (batch,) = source.new_rows(expected, Problems())
    assert batch.labels.tolist() == [0, 0, 0, 1]


@needs_pydicom
def test_records_of_a_registered_set_tell_the_frame(scans):
    config = scans({"a.dcm": ("x", film(10)), "b.dcm": ("y", dicom(PatientID="B"))})
    reading = read_source({"name": "dicom", **config, "frames": "all"})
    assert [row.place for row in reading.rows] == [
        *(f"labels.csv row 2 frame {k}" for k in (1, 2, 3)),
        "labels.csv row 3",
    ]
    assert [row.patient for row in reading.rows] == ["Q-773-19"] * 3 + ["B"]


@needs_pydicom
def test_what_pydicom_says_of_odd_values_reaches_nobody(scans, caplog, capsys):
    """It warns, and logs to the root logger, with the value."""
    odd = dicom(NumberOfFrames="17").replace(b"17", b"7Q")
    with caplog.at_level(logging.DEBUG), pytest.raises(DataError, match="NumberOfFrames is not a whole number"):
        Dicom(**scans({"a.dcm": ("x", odd), "b.dcm": ("y", dicom())})).load()
    assert "7Q" not in caplog.text + capsys.readouterr().err
