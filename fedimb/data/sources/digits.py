"""scikit-learn's bundled digits: 1,797 grey images of 8 x 8, ten classes of about 180. Needs no download."""

import hashlib

import numpy as np

from fedimb.data.arrays import SourceData
from fedimb.errors import DataError
from fedimb.registry import register

# Of the uint8 images followed by the little-endian int64 labels. The same on every machine, so a partition's
# hash is too; and known without importing scikit-learn, which costs a second.
SHA256 = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"


@register("source", "digits")
class Digits:
    """x [1797, 1, 8, 8] uint8 0..16, scale 1/16. UCI "Optical Recognition of Handwritten Digits", test."""

    def fingerprint(self) -> str:
        """Constant: the content's hash."""
        return f"digits-{SHA256}"

    def load(self) -> SourceData:
        """Read the bundled file. Raises DataError when it is not the one every other machine has."""
        from sklearn.datasets import load_digits

        bundle = load_digits()
        x = bundle.images.astype(np.uint8)
        y = bundle.target.astype(np.int64)
        if hashlib.sha256(x.tobytes() + y.astype("<i8").tobytes()).hexdigest() != SHA256:
            raise DataError("scikit-learn's digits are not the known 1,797 images; reinstall scikit-learn")
        return SourceData(x[:, None], y, tuple(str(digit) for digit in range(10)), scale=1 / 16)
