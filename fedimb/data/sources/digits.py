"""scikit-learn's bundled digits: 1,797 grey images of 8 x 8, ten classes of about 180. Needs no download."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fedimb.data.arrays import SourceData
from fedimb.errors import DataError
from fedimb.registry import register

# Of the uint8 images followed by the little-endian int64 labels. It is the same on every machine, and so is the hash
# of a partition.
SHA256 = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"


@register("source", "digits")
class Digits:
    """scikit-learn's handwritten digits, 8 x 8 grey images; needs no download.

    x [1797, 1, 8, 8] uint8 0..16, scale 1/16. UCI "Optical Recognition of Handwritten Digits", test.
    """

    def fingerprint(self) -> str:
        """Constant: the content's hash."""
        return f"digits-{SHA256}"

    def load(self) -> SourceData:
        """Read the bundled file. Raises DataError if it differs from the known one."""
        table = _table()
        x = table[:, :-1].astype(np.uint8).reshape(-1, 8, 8)
        y = table[:, -1].astype(np.int64)
        if hashlib.sha256(x.tobytes() + y.astype("<i8").tobytes()).hexdigest() != SHA256:
            raise DataError("scikit-learn's digits are not the known 1,797 images; reinstall scikit-learn")
        return SourceData(x[:, None], y, tuple(str(digit) for digit in range(10)), scale=1 / 16)


def _table() -> np.ndarray:
    """[1797, 65] float64, 64 pixels and the label.

    Read from scikit-learn's folder without importing it: the import takes seconds, the file a tenth of one.
    If the file has moved, scikit-learn loads it.
    """
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return np.column_stack([bundle.data, bundle.target])
