"""One DICOM file to 8-bit grey as in a viewer, and the few header entries that a source needs."""

import contextlib
import importlib
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.sources.pictures import Pixels
from fedimb.errors import ConfigError, DataError, nearest

Values = NDArray[np.float64]
_GROUPING = frozenset(("CS", "LO", "SH", "AS", "IS", "DS", "US", "SS", "UL", "SL", "FL", "FD"))
_PERSONAL = frozenset(("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "IssuerOfPatientID"))
_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
_INSTALL = "reading DICOM needs pydicom and python-gdcm: pip install 'fedimb[dicom]'"


@dataclass(frozen=True)
class Grey:
    """One image. ``patient`` is None without a PatientID; it must not leave the process."""

    pixels: Pixels
    patient: str | None
    burned_in: bool


def load_pydicom() -> ModuleType:
    """The module pydicom. Raises ConfigError with the remedy if it is not installed."""
    try:
        return importlib.import_module("pydicom")
    except ImportError as error:
        raise ConfigError(_INSTALL) from error


@contextlib.contextmanager
def silent_pydicom() -> Iterator[None]:
    """pydicom warns and logs with the values it finds odd: a patient's name or id could reach the screen or a log."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def read_grey(data: bytes, frames: str | None = None) -> Grey:
    """Pixels uint8 [1, h, w] of one file.

    Stored values -> modality LUT or rescale slope and intercept -> VOI LUT or the first window (LINEAR, LINEAR_EXACT
    or SIGMOID; without one, minimum to maximum, padding excluded) -> 0..255, MONOCHROME1 inverted. Rescale and window
    are taken from the frame's or the shared functional groups where they are (enhanced CT and MR). See DICOM PS3.3,
    C.7.5.1.1.2, C.7.6.16.2.9 and .10, C.11.1.1.2, C.11.2.1.2 and C.11.2.1.3.

    Args:
        frames: which frame of a file with several: first, middle (of an even number the lower one); None: refuse it.

    Raises:
        DataError: not DICOM, no or unreadable pixels, colour, several frames. The message contains no header value that
            could name a person.
    """
    header = read_header(data)
    return frame_grey(header, choose_frame(count_frames(header), frames))


def read_header(data: bytes, pixels: bool = True) -> Any:
    """A file's data set, as pydicom reads it. ``pixels``: False leaves them out. DataError if it is not DICOM."""
    pydicom = load_pydicom()
    with silent_pydicom():
        try:
            return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=not pixels)
        except Exception as error:  # damaged headers raise many kinds, and their text may quote the header
            raise DataError(f"is not a DICOM file, or a damaged one ({type(error).__name__})") from None


def check_keyword(name: str, where: str, others: Iterable[str]) -> None:
    """Check that ``name`` is the keyword of a header entry that rows can be grouped by.

    Raises:
        DataError: no such keyword, or an entry that names a person or one file.
    """
    load_pydicom()
    dictionary: Any = importlib.import_module("pydicom.datadict")
    keywords = dictionary.keyword_dict
    if name not in keywords:
        raise DataError(
            f"{where} names '{name}', neither a column nor a DICOM keyword.{nearest(name, [*others, *keywords])}"
        )
    kind = dictionary.dictionary_VR(keywords[name])
    if kind not in _GROUPING or name in _PERSONAL:
        raise DataError(f"{where} names '{name}', by which rows cannot be grouped: it names a person, file or moment")


def header_values(header: Any, names: Iterable[str]) -> dict[str, str | None]:
    """Header entries by keyword as text, an age in years; None where one is absent or empty."""
    found: dict[str, str | None] = {}
    with silent_pydicom():
        for name in names:
            value = header.get(name)
            text = "" if value is None else str(value).strip()
            age = re.fullmatch(r"(\d{3})([DWMY])", text)
            found[name] = f"{int(age[1]) / _PER_YEAR[age[2]]:g}" if age else text or None
    return found


def count_frames(header: Any) -> int:
    """Number of frames, at least 1. DataError if the header does not give a whole number."""
    try:
        with silent_pydicom():
            return int(header.get("NumberOfFrames") or 1) or 1  # "01" is 1; 0 is invalid, and taken for 1 by readers
    except (TypeError, ValueError):
        raise DataError("NumberOfFrames is not a whole number") from None


def choose_frame(count: int, frames: str | None) -> int:
    """The index, from 0, of the frame that ``frames`` (first or middle) means. DataError for None and several."""
    if count < 1 or (count > 1 and frames is None):
        raise DataError(
            f"has {count} frames: choose frames=first, middle or all (data.source.frames), or give one image per file"
        )
    return (count - 1) // 2 if frames == "middle" else 0


def frame_grey(header: Any, frame: int) -> Grey:
    """Frame ``frame``, from 0, of a file that `read_header` read; see `read_grey`."""
    pydicom = load_pydicom()
    with silent_pydicom():
        _check_kind(header)
        inverted = _inverted(header)
        stored = _stored(pydicom, header, frame)
        try:
            shown = _shown(pydicom, header, stored, frame)
        except DataError:
            raise
        except Exception as error:  # values that are not numbers, tables that are too short
            raise DataError(f"window, rescale values or tables cannot be used ({type(error).__name__})") from error
        if inverted:
            shown = 255 - shown
        return Grey(shown[None], _patient(header), str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES")


def apply_window(values: Values, centre: float, width: float, function: str) -> Values:
    """Values to [0, 1] by one window of DICOM PS3.3 C.11.2.1.2 (LINEAR) or C.11.2.1.3 (SIGMOID, LINEAR_EXACT).

    Raises:
        DataError: unknown function, or a width for which it is not defined (LINEAR: below 1; others: 0 or below).
    """
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise DataError(f"window function '{function}' is not one of LINEAR, LINEAR_EXACT, SIGMOID")
    if not (width >= 1 if function == "LINEAR" else width > 0):
        raise DataError(f"window width {width:g} is not defined for {function}")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR" and width == 1:  # a threshold: the division below would be by 0
        return (values > centre - 0.5).astype(np.float64)
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _check_kind(header: Any) -> None:
    if not any(name in header for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DataError("has no pixels: it is not an image")
    kind = header.get("PhotometricInterpretation")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(f"is {kind}: MONOCHROME1 or MONOCHROME2 is needed")


def _inverted(header: Any) -> bool:
    """Whether low values are bright. PS3.3 C.7.6.1: IDENTITY goes with MONOCHROME2, INVERSE with MONOCHROME1."""
    kind = header.PhotometricInterpretation
    shape = str(header.get("PresentationLUTShape") or "").strip().upper()
    wanted = "INVERSE" if kind == "MONOCHROME1" else "IDENTITY"
    if shape and shape != wanted:
        raise DataError(f"is {kind} but its PresentationLUTShape is not {wanted}: which way round it is, is not clear")
    return wanted == "INVERSE"


def _stored(pydicom: ModuleType, header: Any, frame: int) -> NDArray[Any]:
    """Stored values [h, w] of one frame."""
    try:
        several = count_frames(header) > 1
        stored: NDArray[Any] = pydicom.pixels.pixel_array(header, index=frame) if several else header.pixel_array
    except Exception as error:  # each transfer syntax's decoder raises its own kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        remedy = f"; {_INSTALL}" if "missing dependencies" in str(error) else ""
        raise DataError(f"pixels cannot be decoded ({reason}){remedy}") from error
    if stored.ndim != 2:
        raise DataError(f"pixels are {list(stored.shape)}: one grey image is needed")
    return stored


def _shown(pydicom: ModuleType, header: Any, stored: NDArray[Any], frame: int) -> Pixels:
    values = _rescaled(pydicom, header, stored, frame)
    voi = _functional_group(header, frame, "FrameVOILUTSequence")
    if voi is None or not (voi.get("VOILUTSequence") or voi.get("WindowCenter") is not None):
        voi = header
    if voi.get("VOILUTSequence"):
        table = voi.VOILUTSequence[0]
        looked_up = pydicom.pixels.apply_voi(values.astype(np.int64), voi, index=0)
        part = looked_up / (2.0 ** int(table.LUTDescriptor[2]) - 1)
    elif voi.get("WindowCenter") is not None and voi.get("WindowWidth") is not None:
        function = str(voi.get("VOILUTFunction") or "LINEAR").strip().upper()
        part = apply_window(values, _first(voi.WindowCenter), _first(voi.WindowWidth), function)
    else:
        part = _stretched(values, values[~_padded(header, stored)])
    return np.rint(np.clip(part, 0, 1) * 255).astype(np.uint8)


def _rescaled(pydicom: ModuleType, header: Any, stored: NDArray[Any], frame: int) -> Values:
    """Values after the modality transformation: of the frame, of all frames, or of the file."""
    group = _functional_group(header, frame, "PixelValueTransformationSequence")
    scale = header if group is None or group.get("RescaleSlope") is None else group
    slope, intercept = scale.get("RescaleSlope"), scale.get("RescaleIntercept")
    if (slope is None) != (intercept is None):
        raise DataError("has only one of RescaleSlope and RescaleIntercept: both are needed")
    if slope is not None and not (np.isfinite(float(slope)) and float(slope) != 0):
        raise DataError(f"RescaleSlope is {float(slope):g}: no grey level is left of the stored values")
    if scale is header:
        return np.asarray(pydicom.pixels.apply_modality_lut(stored, header), dtype=np.float64)
    return stored.astype(np.float64) * float(slope) + float(intercept)


def _functional_group(header: Any, frame: int, name: str) -> Any:
    """The item of a functional group (PS3.3 C.7.6.16) for one frame: its own, else the shared one, else None."""
    own, shared = header.get("PerFrameFunctionalGroupsSequence"), header.get("SharedFunctionalGroupsSequence")
    if own and len(own) <= frame:
        raise DataError(f"has {len(own)} per-frame functional groups, and no one for frame {frame + 1}")
    for groups in ([own[frame]] if own else []), (shared or [])[:1]:
        if groups and groups[0].get(name):
            return groups[0].get(name)[0]
    return None


def _padded(header: Any, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Where padding is: the padding value, or all between it and PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2)."""
    kind = next((k for k in ("Float", "DoubleFloat") if f"{k}PixelData" in header), "")
    value, limit = header.get(f"{kind}PixelPaddingValue"), header.get(f"{kind}PixelPaddingRangeLimit")
    if value is None:
        if limit is not None:
            raise DataError("has PixelPaddingRangeLimit without PixelPaddingValue: which values are padding?")
        return np.zeros(stored.shape, np.bool_)
    ends = [one if kind else _as_stored(one, header) for one in (value, value if limit is None else limit)]
    padded: NDArray[np.bool_] = (stored >= min(ends)) & (stored <= max(ends))
    return padded


def _as_stored(value: Any, header: Any) -> int:
    """A padding value as a stored one: files write a negative one as US (63536 for -2000), or one above 32767 as SS."""
    number, bits = int(value), int(header.BitsAllocated)
    if int(header.PixelRepresentation) == 0:
        return number if number >= 0 else number + 2 ** min(bits, 16)
    if number >= 2**15:
        return number - 2**16
    return number - 2**8 if bits == 8 and number >= 2**7 else number


def _stretched(values: Values, inside: Values) -> Values:
    # Padding is far outside the image's values and would leave only a few grey levels for them.
    if inside.size == 0 or inside.max() == inside.min():
        return np.zeros_like(values)
    return (values - inside.min()) / (inside.max() - inside.min())


def _first(value: Any) -> float:
    return float(value[0] if hasattr(value, "__len__") else value)


def _patient(header: Any) -> str | None:
    try:
        return str(header.get("PatientID") or "").strip() or None
    except Exception as error:  # the text of pydicom's error may quote the id
        raise DataError(f"PatientID cannot be read ({type(error).__name__})") from None
