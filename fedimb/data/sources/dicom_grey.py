"""One DICOM file to 8-bit grey as in a viewer, and the few header entries that a source needs."""

import importlib
import io
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.sources.pictures import Pixels
from fedimb.errors import ConfigError, DataError

Values = NDArray[np.float64]
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


def read_grey(data: bytes) -> Grey:
    """Pixels uint8 [1, h, w] of one file.

    Stored values -> modality LUT or rescale slope and intercept -> VOI LUT or the first window (LINEAR, LINEAR_EXACT
    or SIGMOID; without one, minimum to maximum, padding excluded) -> 0..255, MONOCHROME1 inverted. See DICOM PS3.3,
    C.11.1.1.2, C.11.2.1.2 and C.11.2.1.3.

    Raises:
        DataError: not DICOM, no or unreadable pixels, colour, several frames. The message contains no header value that
            could name a person.
    """
    pydicom = load_pydicom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes values it finds odd: a name could reach the log
        try:
            header = pydicom.dcmread(io.BytesIO(data))
        except Exception as error:  # damaged headers raise many kinds, and their text may quote the header
            raise DataError(f"is not a DICOM file, or a damaged one ({type(error).__name__})") from None
        _check_kind(header)
        try:
            stored = header.pixel_array
        except Exception as error:  # each transfer syntax's decoder raises its own kinds
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            remedy = f"; {_INSTALL}" if "missing dependencies" in str(error) else ""
            raise DataError(f"pixels cannot be decoded ({reason}){remedy}") from error
        if stored.ndim != 2:
            raise DataError(f"pixels are {list(stored.shape)}: one grey image is needed")
        try:
            shown = _shown(pydicom, header, stored)
        except DataError:
            raise
        except Exception as error:  # values that are not numbers, tables that are too short
            raise DataError(f"window, rescale values or tables cannot be used ({type(error).__name__})") from error
        if header.PhotometricInterpretation == "MONOCHROME1":
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
    frames = str(header.get("NumberOfFrames") or "1").strip()
    if frames != "1":
        raise DataError(f"has {frames} frames: give one image per file")


def _shown(pydicom: ModuleType, header: Any, stored: NDArray[Any]) -> Pixels:
    values = np.asarray(pydicom.pixels.apply_modality_lut(stored, header), dtype=np.float64)
    if header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0]
        looked_up = pydicom.pixels.apply_voi(values.astype(np.int64), header, index=0)
        part = looked_up / (2.0 ** int(table.LUTDescriptor[2]) - 1)
    elif header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
        part = apply_window(values, _first(header.WindowCenter), _first(header.WindowWidth), function)
    else:
        part = _stretched(values, stored, header.get("PixelPaddingValue"))
    return np.rint(np.clip(part, 0, 1) * 255).astype(np.uint8)


def _stretched(values: Values, stored: NDArray[np.generic], padding: object) -> Values:
    # Padding is far outside the image's values and would leave only a few grey levels for them.
    inside = values if padding is None else values[stored != padding]
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
