"""Grey levels against a computation of their own from DICOM PS3.3, over the files that pydicom ships and made ones."""

from pathlib import Path

import numpy as np
import pytest
from tiny_dicom import dicom

from fedimb.data.sources.dicom_grey import count_frames, frame_grey, read_grey, read_header, silent_pydicom
from fedimb.errors import DataError

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'fedimb[dicom]'")
Dataset, Sequence = pydicom.Dataset, pydicom.Sequence

SHIPPED = Path(pydicom.__file__).parent / "data"


def by_the_standard(header, stored):
    """Grey levels 0..255, not rounded, of one frame of a file without functional groups.

    PS3.3 C.11.1.1.2 (modality), C.11.2.1.1 and .2 (VOI), C.7.5.1.1.2 (padding), C.7.6.3.1.2 (MONOCHROME1). Loops and
    formulas as the standard has them; nothing of pydicom but the values of the header.
    """
    value = stored.astype(np.float64)
    if "ModalityLUTSequence" in header:
        value = looked_up(header.ModalityLUTSequence[0], stored)
    elif "RescaleSlope" in header:
        value = float(header.RescaleSlope) * value + float(header.RescaleIntercept)
    if "VOILUTSequence" in header:
        table = header.VOILUTSequence[0]
        grey = looked_up(table, value.astype(int)) / (2 ** int(table.LUTDescriptor[2]) - 1) * 255
    elif "WindowCenter" in header:
        centre, width = (np.atleast_1d(header[name].value).astype(float)[0] for name in ("WindowCenter", "WindowWidth"))
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
        grey = ((value - (centre - 0.5)) / (width - 1) + 0.5) * 255
        grey = np.where(value <= low, 0, np.where(value > high, 255, grey))
    else:
        kept = value[stored != header.PixelPaddingValue] if "PixelPaddingValue" in header else value
        span = kept.max() - kept.min()
        grey = np.clip((value - kept.min()) / span * 255, 0, 255) if span else np.zeros_like(value)
    return 255 - grey if header.PhotometricInterpretation == "MONOCHROME1" else grey


def looked_up(table, values):
    """Each value by the table's descriptor: entries, first value mapped, bits (PS3.3 C.11.1.1.1)."""
    entries, first, _ = (int(one) for one in table.LUTDescriptor)
    at = np.clip(values - first, 0, (entries or 2**16) - 1)
    return np.array([int(one) for one in table.LUTData])[at].astype(np.float64)


def shipped_grey_files():
    """pydicom's own grey files on this disk, by path; those that it downloads on demand are not looked for."""
    found = []
    for path in sorted(SHIPPED.rglob("*")):
        if not path.is_file() or path.suffix not in (".dcm", ""):
            continue
        try:
            header = pydicom.dcmread(path, defer_size=64)
        except pydicom.errors.InvalidDicomError:
            continue
        if str(header.get("PhotometricInterpretation")).startswith("MONOCHROME") and "PixelData" in header:
            found.append(path)
    return found


REFUSED = {
    "MR_truncated.dcm": "pixels cannot be decoded (The number of bytes",  # damaged on purpose
    "JPEG2000-embedded-sequence-delimiter.dcm": "pixels cannot be decoded",  # damaged on purpose
    "JPEG-lossy.dcm": "pixels cannot be decoded",  # JPEG Extended of 12 bits: gdcm and Pillow read 8
    "JPGExtended.dcm": "pixels cannot be decoded",
    "badVR.dcm": "NumberOfFrames is not a whole number",
}


def test_pydicoms_grey_files_agree():
    """64 files of one frame, and 45 frames of the three files with several."""
    pytest.importorskip("gdcm", reason="python-gdcm is not installed: pip install 'fedimb[dicom]'")
    files, frames, refused = 0, 0, {}
    with silent_pydicom():
        for path in shipped_grey_files():
            data = path.read_bytes()
            try:
                header = read_header(data)
                count = count_frames(header)
                stored = header.pixel_array.reshape(count, header.Rows, header.Columns) if count > 1 else None
                for i in range(count):
                    got = (frame_grey(header, i) if count > 1 else read_grey(data)).pixels[0]
                    own = by_the_standard(header, header.pixel_array if stored is None else stored[i])
                    assert np.abs(got - own).max() <= 0.5 + 1e-9, path
            except DataError as error:
                refused[path.name] = str(error)
                continue
            files += count == 1
            frames += count if count > 1 else 0
    assert (files, frames) == (64, 45)
    assert refused.keys() == REFUSED.keys()
    assert all(refused[name].startswith(line) for name, line in REFUSED.items())


def tables(entries, bits, values):
    """A lookup table that begins at 0."""
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [entries, 0, bits], values
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    return table


def group(scale=None, window=None):
    """An item of functional groups: (slope, intercept), (centre, width[, function])."""
    item = Dataset()
    if scale is not None:
        inner = Dataset()
        inner.RescaleSlope, inner.RescaleIntercept, inner.RescaleType = *scale, "HU"
        item.PixelValueTransformationSequence = Sequence([inner])
    if window is not None:
        inner = Dataset()
        inner.WindowCenter, inner.WindowWidth = window[:2]
        if len(window) > 2:
            inner.VOILUTFunction = window[2]
        item.FrameVOILUTSequence = Sequence([inner])
    return item


CT = np.array([[0, 1000], [1040, 1200]], dtype=np.uint16)
FLAT = {"RescaleSlope": 1, "RescaleIntercept": -1000, "WindowCenter": 40.5, "WindowWidth": 81}


@pytest.mark.parametrize(
    "groups",
    [
        {"SharedFunctionalGroupsSequence": [group((1, -1000), (40.5, 81))]},
        {"PerFrameFunctionalGroupsSequence": [group((1, -1000), (40.5, 81))]},
        {
            "SharedFunctionalGroupsSequence": [group((1, -1000))],
            "PerFrameFunctionalGroupsSequence": [group(None, (40.5, 81))],
        },
        {"SharedFunctionalGroupsSequence": [group()], **FLAT},
    ],
)
@pytest.mark.parametrize("frames", ["1", "01", None])
def test_an_enhanced_file_is_as_bright_as_the_flat_one(groups, frames):
    flat = read_grey(dicom(CT, **FLAT)).pixels
    assert flat.tolist() == [[[0, 0], [128, 255]]]  # C.11.2.1.2.1: ((40 - 40) / 80 + .5) x 255
    entries = {name: Sequence(value) if isinstance(value, list) else value for name, value in groups.items()}
    made = {} if frames is None else {"NumberOfFrames": frames}
    assert np.array_equal(read_grey(dicom(CT, **entries, **made)).pixels, flat)


def test_each_frame_has_its_own_groups():
    own = [group((1, -1000), (40.5, 81)), group((2, 0), (1000, 2000, "LINEAR_EXACT"))]
    header = read_header(dicom(CT, frames=2, PerFrameFunctionalGroupsSequence=Sequence(own)))
    assert frame_grey(header, 0).pixels.tolist() == [[[0, 0], [128, 255]]]
    assert frame_grey(header, 1).pixels.tolist() == [[[0, 255], [255, 255]]]
    short = read_header(dicom(CT, frames=2, PerFrameFunctionalGroupsSequence=Sequence(own[:1])))
    with pytest.raises(DataError, match="has 1 per-frame functional groups, and no one for frame 2"):
        frame_grey(short, 1)


def test_a_table_in_a_functional_group():
    item, inner = Dataset(), Dataset()
    inner.VOILUTSequence = Sequence([tables(256, 8, list(range(255, -1, -1)))])
    item.FrameVOILUTSequence = Sequence([inner])
    small = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    pixels = read_grey(dicom(small, SharedFunctionalGroupsSequence=Sequence([item]))).pixels
    assert pixels.tolist() == [[[255, 155], [55, 0]]]


SIGNED = np.array([[-2000, -1900, 0], [100, 200, 50]], dtype=np.int16)


def padded(stored, vr, **entries):
    """A file whose padding values are written with this VR, whatever the pixels' sign."""
    from pydicom.dataelem import DataElement

    made = {"PixelRepresentation": int(stored.dtype.kind == "i")}
    for name, value in entries.items():
        made[name] = DataElement(name, vr, value)
    return dicom(stored, **made)


@pytest.mark.parametrize(
    ("stored", "vr", "entries"),
    [
        (SIGNED, "SS", {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1900}),
        (SIGNED, "SS", {"PixelPaddingValue": -1900, "PixelPaddingRangeLimit": -2000}),
        (SIGNED, "US", {"PixelPaddingValue": 63536, "PixelPaddingRangeLimit": 63636}),  # -2000, -1900
        (SIGNED + np.array([[0, -100, 0], [0, 0, 0]], np.int16), "US", {"PixelPaddingValue": 63536}),
        (np.where(SIGNED < 0, 65535, SIGNED).astype(np.uint16), "US", {"PixelPaddingValue": 65535}),
        (np.where(SIGNED < 0, 65535, SIGNED).astype(np.uint16), "SS", {"PixelPaddingValue": -1}),
        (np.where(SIGNED < 0, -128, SIGNED // 2).astype(np.int8), "SS", {"PixelPaddingValue": -128}),
        (np.where(SIGNED < 0, -128, SIGNED // 2).astype(np.int8), "US", {"PixelPaddingValue": 128}),
    ],
)
def test_padding_does_not_take_part_in_the_range_of_grey(stored, vr, entries):
    pixels = read_grey(padded(stored, vr, **entries)).pixels[0]
    assert pixels[0, 2] == 0
    assert pixels[1].tolist() == [128, 255, 64]  # of 0..200 or 0..100


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("MONOCHROME2", "IDENTITY", [[0, 26], [51, 255]]),
        ("MONOCHROME1", "INVERSE", [[255, 229], [204, 0]]),  # one inversion, not two
        ("MONOCHROME1", "IDENTITY", "is MONOCHROME1 but its PresentationLUTShape is not INVERSE"),
        ("MONOCHROME2", "INVERSE", "is MONOCHROME2 but its PresentationLUTShape is not IDENTITY"),
    ],
)
def test_presentation_shape(kind, shape, expected):
    data = dicom(kind=kind, PresentationLUTShape=shape)
    if isinstance(expected, list):
        assert read_grey(data).pixels.tolist() == [expected]
    else:
        with pytest.raises(DataError, match=expected):
            read_grey(data)


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "RescaleSlope is 0: no grey level is left"),
        ({"SharedFunctionalGroupsSequence": Sequence([group((0, 5))])}, "RescaleSlope is 0"),
        ({"RescaleSlope": 2}, "has only one of RescaleSlope and RescaleIntercept"),
        ({"RescaleIntercept": -1024}, "has only one of RescaleSlope and RescaleIntercept"),
        ({"PixelPaddingRangeLimit": 5}, "has PixelPaddingRangeLimit without PixelPaddingValue"),
        ({"frames": 2}, r"has 2 frames: choose frames=first, middle or all \(data\.source\.frames\)"),
    ],
)
def test_headers_that_leave_the_grey_open_are_refused(entries, line):
    with pytest.raises(DataError, match=line):
        read_grey(dicom(**entries))


def test_first_and_middle_frame():
    frames = np.arange(4, dtype=np.uint8)[:, None, None] + np.array([[0, 100]], np.uint8)
    data = dicom(frames[0], frames=4, WindowCenter=128, WindowWidth=256)
    data = data.replace(frames[0].tobytes() * 4, frames.tobytes())
    assert read_grey(data, "first").pixels[0, 0, 0] == 0
    assert read_grey(data, "middle").pixels[0, 0, 0] == 1  # of four the lower one
