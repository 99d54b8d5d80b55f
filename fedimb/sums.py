"""Exact weighted sums of arrays: the same integers in any order, over any tree of partial sums, masked or not.

A weight times a value is rounded once, to a whole multiple of a power of two, and the multiples are added as int64. The
power of two follows from the arrays that were sent and from the largest possible weights (`Scale`), so that nothing can
overflow and everybody derives the same one. A value outside its bound is refused before it is added: above it the
integers would be wrong without a word.

The rounding is done by adding 1.5 * 2**52 to the float64 product, whose last bits are then the nearest integer (ties to
even): Dekker, "A floating-point technique for extending the available precision", Numerische Mathematik 18, 1971.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedimb.errors import FedimbError

WEIGHT_BITS = 40
"""Weights are rounded to multiples of 2**-40: coarser where their sum needs the bits, finer where all are below 1."""

UNKNOWN_BITS = 20
"""Largest weight, as a power of two, where nothing is known of it."""

VALUE_RATIO = 64.0
"""Values of weights and buffers may be this many times as large as the largest one sent, and at least this large."""

_BLOCK = 32_768
"""Values added at a time, so that the products stay in the processor's cache."""

_CONSTANT = 1.5 * 2.0**52
_CONSTANT_BITS = int(np.float64(_CONSTANT).view(np.int64))
_LARGEST_BITS, _TOTAL_BITS = 31, 42
"""Powers of two that a weight, and a sum of weights, never exceed."""
_ERROR = 2.0**-28
"""Largest error of a mean in units of the bound on its values, 64 times as large as the weights that were sent."""


class OutOfRange(FedimbError):
    """A weight, or a sum, that cannot be added."""


class ValueOutOfRange(OutOfRange):
    """A value that cannot be added: not finite, or above its bound."""


def ceil_log2(value: float) -> int:
    """The smallest n with 2**n >= value > 0, without a logarithm's rounding.

    Example:
        >>> [ceil_log2(value) for value in (0.3, 1.0, 1.1, 512.0, 513.0)]
        [-1, 0, 1, 9, 10]
    """
    mantissa, exponent = math.frexp(value)
    return exponent - (mantissa == 0.5)


@dataclass(frozen=True)
class WeightLimits:
    """The largest weights of a sum, as powers of two.

    Attributes:
        each: a weight is at most 2**each.
        total: all weights together are at most 2**total.
        count: number of weights at most.
    """

    each: int = UNKNOWN_BITS
    total: int = UNKNOWN_BITS + 11
    count: int = 2**11

    @classmethod
    def of(cls, largest: Iterable[float]) -> "WeightLimits":
        """From the largest possible weight of each client; infinity: unknown, taken as at most 2**20.

        Example:
            >>> WeightLimits.of([500.0] * 50)
            WeightLimits(each=9, total=15, count=50)
        """
        known = [one if math.isfinite(one) else 2.0**UNKNOWN_BITS for one in largest] or [1.0]
        each, total = ceil_log2(max(known)), ceil_log2(math.fsum(known))
        return cls(min(each, _LARGEST_BITS), min(total, _TOTAL_BITS), len(known))

    @classmethod
    def of_groups(cls, groups: Iterable[tuple[float, float, int]]) -> "WeightLimits":
        """Those of all members of some groups, from each group's largest weight, its sum of weights and its size.

        The same as `of` the members' weights, if each group's largest is one of them, or a power of two that
        `ceil_log2` of it gives.

        Example:
            >>> WeightLimits.of_groups([(512.0, 700.0, 2), (256.0, 400.0, 2)]) == WeightLimits.of([500, 200, 250, 150])
            True
        """
        known = list(groups)
        largest, total = max(one[0] for one in known), math.fsum(one[1] for one in known)
        return cls(
            min(ceil_log2(largest), _LARGEST_BITS), min(ceil_log2(total), _TOTAL_BITS), sum(one[2] for one in known)
        )

    def with_largest(self, largest: float) -> "WeightLimits":
        """The limits of as many other weights, each at most ``largest`` (infinity: unknown)."""
        one = WeightLimits.of([largest])
        return WeightLimits(one.each, min(ceil_log2(2.0**one.each * self.count), _TOTAL_BITS), self.count)

    @property
    def unit_bits(self) -> int:
        """Weights are counted in units of 2**-unit_bits."""
        return min(WEIGHT_BITS - min(0, self.each), 62 - self.total)

    def units(self, weight: float) -> int:
        """A weight in whole units, rounded to the nearest.

        Raises:
            OutOfRange: it is not finite, below 0, above the limit, or above 0 and rounded to 0.
        """
        if not 0 <= weight < math.inf:
            raise OutOfRange(f"the weight {weight} is not a finite number of at least 0")
        units = round(math.ldexp(weight, self.unit_bits))
        if units > 1 << (self.each + self.unit_bits):
            raise OutOfRange(f"the weight {weight:g} is above {2.0**self.each:g}, the largest one expected")
        if weight > 0 and not units:
            raise OutOfRange(f"the weight {weight:g} is too small: it is counted in units of 2**-{self.unit_bits}")
        return units


@dataclass(frozen=True)
class Scale:
    """How values become integers: one power of two per array, a pure function of what was sent and of the weights.

    Attributes:
        limits: on the weights.
        bits: by array, the bound on its values as a power of two; None for whole numbers, which are added unscaled.
        other: that of arrays that are not named.
    """

    limits: WeightLimits = WeightLimits()
    bits: Mapping[str, int | None] = field(default_factory=dict)
    other: int = ceil_log2(VALUE_RATIO)
    _found: dict[str, tuple[int, float]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, sent: Mapping[str, np.ndarray], limits: WeightLimits, ratio: float = VALUE_RATIO) -> "Scale":
        """The scale of replies to arrays that were sent.

        Args:
            sent: by name; values of replies may be ``ratio`` times as large as the largest of them, or of 1.

        Raises:
            ValueOutOfRange: a value that was sent is not finite.

        Example:
            >>> scale = Scale.of({"w": np.array([0.2, -0.9], np.float32)}, WeightLimits.of([500.0] * 50))
            >>> scale.shift("w"), scale.bound("w")
            (35, 64.0)
        """
        more, bits = ceil_log2(ratio), dict[str, int | None]()
        for name, value in sent.items():
            if value.dtype.kind in "iub":
                bits[name] = None
                continue
            largest = float(max(-value.min(), value.max())) if value.size else 0.0
            if not math.isfinite(largest):
                raise ValueOutOfRange(f"'{name}' holds a value that is not finite")
            bits[name] = more + ceil_log2(max(1.0, largest))
        return cls(limits, bits, more)

    def _of(self, name: str) -> tuple[int, float]:
        if name not in self._found:
            each, total = 50 - self.limits.each, 62 - self.limits.total
            bits = self.bits.get(name, self.other)
            shift = 0 if bits is None else min(total - bits, each - bits)
            self._found[name] = shift, 2.0 ** (min(each, total) if bits is None else bits)
        return self._found[name]

    def shift(self, name: str) -> int:
        """An array's sum is counted in units of 2**-shift."""
        return self._of(name)[0]

    def bound(self, name: str) -> float:
        """An array's values must be within this bound of 0."""
        return self._of(name)[1]

    def check(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Check that all values can be added.

        Raises:
            ValueOutOfRange: one is not finite, or above its bound; names the array.
        """
        for name, value in arrays.items():
            bound, flat = self._of(name)[1], value.ravel()
            for start in range(0, flat.size, _BLOCK):
                part = flat[start : start + _BLOCK] if flat.size > _BLOCK else flat
                least, most = np.minimum.reduce(part), np.maximum.reduce(part)  # of NaN both are NaN
                if not (-bound <= least and most <= bound):
                    self._refuse(name, max(-float(least), float(most)), bound)

    @staticmethod
    def _refuse(name: str, largest: float, bound: float) -> None:
        if not math.isfinite(largest):
            raise ValueOutOfRange("the reply holds a value that is not finite (diverged?); lower local.lr")
        raise ValueOutOfRange(
            f"'{name}' holds a value of size {largest:g}, above the bound {bound:g} on what can be summed (diverged?); "
            "lower local.lr, or raise clients.max_value_ratio, if its values may grow so fast"
        )


@dataclass
class _Total:
    """The sum of one array: int64 with the constant added in each time, which is taken out when it is read."""

    words: np.ndarray
    shape: tuple[int, ...]
    adds: int = 0

    def values(self) -> np.ndarray:
        """The sum [n] int64."""
        constants = (self.adds * _CONSTANT_BITS) % 2**64
        found: np.ndarray = (self.words.view(np.uint64) - np.uint64(constants)).view(np.int64)
        return found


class ExactSum:
    """A weighted sum of named arrays, exact once each product is rounded: no order and no tree changes a bit.

    Args:
        scale: the same for all that is added.

    Example:
        >>> scale = Scale.of({"w": np.zeros(1, np.float32)}, WeightLimits.of([30.0, 10.0]))
        >>> one, two = ExactSum(scale), ExactSum(scale)
        >>> one.add_weighted(30.0, {"w": np.array([1.0], np.float32)})
        >>> two.add_weighted(10.0, {"w": np.array([5.0], np.float32)})
        >>> one.add(two)
        >>> one.weight, one.mean()["w"]
        (40.0, array([2.]))
    """

    def __init__(self, scale: Scale | None = None) -> None:
        self.scale = scale or Scale()
        self.units = 0  # the sum of the weights
        self._totals: dict[str, _Total] = {}
        self._scratch: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scratch": None}

    @property
    def weight(self) -> float:
        """Sum of the weights."""
        return math.ldexp(self.units, -self.scale.limits.unit_bits)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the arrays by name; empty if nothing was added."""
        return {name: total.shape for name, total in self._totals.items()}

    def check(self, weight: float, arrays: Mapping[str, np.ndarray], checked: bool = False) -> None:
        """Check that weighted arrays can be added.

        Args:
            checked: whether their values passed `Scale.check` with the same bounds.

        Raises:
            OutOfRange: a value, the weight or the sum of the weights is out of range, or names or shapes are other than
                those of the sum.
        """
        self._within(self.scale.limits.units(weight))
        if self._totals and not self._fits(arrays):
            raise OutOfRange("the reply holds other arrays than the replies before it, or of other shapes")
        if not checked:
            self.scale.check(arrays)

    def _fits(self, arrays: Mapping[str, np.ndarray]) -> bool:
        totals = self._totals
        return len(arrays) == len(totals) and all(
            name in totals and value.shape == totals[name].shape for name, value in arrays.items()
        )

    def add_weighted(self, weight: float, arrays: Mapping[str, np.ndarray], checked: bool = False) -> None:
        """Add ``weight`` times the arrays, in place; of weight 0 only the weight.

        Args:
            checked: whether `check` has passed.

        Raises:
            OutOfRange: see `check`; nothing was added.
        """
        if not checked:
            self.check(weight, arrays)
        limits = self.scale.limits
        units = limits.units(weight)
        if not units:
            return
        self.units += units
        rounded = math.ldexp(units, -limits.unit_bits)
        for name, value in arrays.items():
            if name not in self._totals:
                self._totals[name] = _Total(np.zeros(value.size, np.int64), value.shape)
            self._add(self._totals[name], value, math.ldexp(rounded, self.scale._of(name)[0]))

    def _add(self, total: _Total, value: np.ndarray, factor: float) -> None:
        if self._scratch is None:
            self._scratch = np.empty(_BLOCK)
        flat, words = value.ravel(), total.words
        for start in range(0, flat.size, _BLOCK):
            part, sums = (
                (flat, words) if flat.size <= _BLOCK else (one[start : start + _BLOCK] for one in (flat, words))
            )
            product = self._scratch[: part.size]
            np.multiply(part, factor, out=product, dtype=np.float64)
            np.add(product, _CONSTANT, out=product)
            np.add(sums, product.view(np.int64), out=sums)
        total.adds += 1

    def _within(self, units: int) -> None:
        limits = self.scale.limits
        if self.units + units > 1 << (limits.total + limits.unit_bits):
            raise OutOfRange(f"the weights add up to more than {2.0**limits.total:g}, the most expected")

    def add(self, other: "ExactSum") -> None:
        """Add another sum of the same scale, in place.

        Raises:
            OutOfRange: it has another scale, other arrays, or the weights exceed their limit; nothing was added.
        """
        if not other.units:
            return
        if self.scale != other.scale:
            raise OutOfRange("two sums of different scales cannot be added")
        if self._totals and self.shapes != other.shapes:
            raise OutOfRange("two sums of other arrays, or of arrays of other shapes, cannot be added")
        self._within(other.units)
        self.units += other.units
        for name, total in other._totals.items():
            if name in self._totals:
                mine = self._totals[name]
                mine.words += total.words
                mine.adds += total.adds
            else:
                self._totals[name] = _Total(total.words.copy(), total.shape, total.adds)

    def sums(self) -> dict[str, np.ndarray]:
        """The weighted sums by name, float64."""
        return {name: self._real(name, total) for name, total in self._totals.items()}

    def mean(self) -> dict[str, np.ndarray]:
        """The weighted means by name, float64; empty if nothing was added.

        Raises:
            OutOfRange: the weights are so small, beside the largest ones expected, that their means are not exact.
        """
        weight, found = self.weight, dict[str, np.ndarray]()
        for name, total in self._totals.items():
            error = math.ldexp(0.5 * total.adds, -self.scale.shift(name)) / weight
            if self.scale.bits.get(name, 0) is not None and error > _ERROR * self.scale.bound(name):
                raise OutOfRange(
                    f"the weights of '{name}' add up to {weight:g}, too little for an exact mean where weights up to "
                    f"{2.0**self.scale.limits.each:g} are expected; give weights of about that size"
                )
            found[name] = self._real(name, total) / weight
        return found

    def _real(self, name: str, total: _Total) -> np.ndarray:
        values = np.ldexp(total.values().astype(np.float64), -self.scale.shift(name))
        return values.reshape(total.shape)

    def totals(self) -> dict[str, np.ndarray]:
        """The sums by name as they are counted, int64 in units of 2**-`Scale.shift`; `take_totals` reads them again."""
        return {name: total.values().reshape(total.shape) for name, total in self._totals.items()}

    def take_totals(self, units: int, totals: Mapping[str, np.ndarray], members: int) -> None:
        """Replace the sum by one from its weight in `units`, its `totals` and its number of members.

        Raises:
            OutOfRange: see `take_words`.
        """
        flat = [
            np.array([units], np.int64),
            *(np.ravel(value).astype(np.int64, copy=False) for value in totals.values()),
        ]
        self.take_words(np.concatenate(flat), {name: value.shape for name, value in totals.items()}, members)

    def words(self) -> np.ndarray:
        """The sum as integers [1 + n] int64 modulo 2**64, to be masked: the weight, then the arrays in their order.

        Words of several sums, masked or not, are added as uint64 (`fedimb.privacy.secure_sum`); `take_words` reads the
        result.
        """
        return np.concatenate([np.array([self.units], np.int64), *(t.values() for t in self._totals.values())])

    def take_words(self, words: np.ndarray, shapes: Mapping[str, tuple[int, ...]], members: int) -> None:
        """Replace the sum by one from its `words`.

        Args:
            words: [1 + n] int64 or uint64, unmasked.
            shapes: of the arrays, in the order of `words`.
            members: how many clients were added, for the bound on the error.

        Raises:
            OutOfRange: they are not those of a sum within the limits, as if masks had not cancelled.
        """
        words = np.ascontiguousarray(words).view(np.int64)
        limits, sizes = self.scale.limits, {name: math.prod(shape) for name, shape in shapes.items()}
        units = int(words[0]) if len(words) else -1
        if len(words) != 1 + sum(sizes.values()) or not 0 <= units <= 1 << (limits.total + limits.unit_bits):
            raise OutOfRange("these are not the words of a sum of these arrays and weights: do all masks cancel?")
        totals, start = dict[str, _Total](), 1
        for name, size in sizes.items():
            part = words[start : start + size]
            most = math.ldexp(self.scale.bound(name) * math.ldexp(units, -limits.unit_bits), self.scale.shift(name))
            if size and max(abs(int(part.min())), abs(int(part.max()))) > most + members:
                raise OutOfRange(f"the sum of '{name}' is above what its weights allow: do all masks cancel?")
            constants = np.uint64((members * _CONSTANT_BITS) % 2**64)
            totals[name] = _Total((part.view(np.uint64) + constants).view(np.int64), tuple(shapes[name]), members)
            start += size
        self.units, self._totals = units, totals


def sum_of(weights: Iterable[float], arrays: Iterable[Mapping[str, np.ndarray]]) -> ExactSum:
    """The exact sum of replies that are all at one place: its scale follows from the values themselves.

    Raises:
        OutOfRange: a value or a weight is not finite, or a weight is too small beside the others.

    Example:
        >>> sum_of([1.0, 3.0], [{"w": np.array([2.0])}, {"w": np.array([6.0])}]).mean()["w"]
        array([5.])
    """
    pairs = list(zip(weights, arrays, strict=True))
    bits: dict[str, int | None] = {}
    for _, own in pairs:
        for name, one in Scale.of(own, WeightLimits(), 1.0).bits.items():
            before = bits.get(name, one)
            bits[name] = None if one is None or before is None else max(one, before)
    total = ExactSum(Scale(WeightLimits.of(weight for weight, _ in pairs), bits))
    for weight, own in pairs:
        total.add_weighted(weight, own)
    return total
