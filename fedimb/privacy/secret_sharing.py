"""Shamir's secret sharing: any ``threshold`` holders can put a secret together, and fewer know nothing of it.

Adi Shamir, "How to Share a Secret", CACM 1979, over the integers modulo 2**255 - 19. Secrets and shares are elements
of that field, 32 bytes each, lowest byte first.

Shares are a Reed-Solomon code, so wrong ones among them can be corrected without trying every combination: Shuhong Gao,
"A New Algorithm for Decoding Reed-Solomon Codes", 2003.
"""

from collections.abc import Iterable, Mapping, Sequence

PRIME = 2**255 - 19
SIZE = 32
"""Bytes of a secret and of a share."""
RANDOM = 48
"""Random bytes from which `element` makes one: 129 bits more than the field needs, so all elements are as likely."""


def element(raw: bytes) -> bytes:
    """An element of the field from random bytes [48]."""
    if len(raw) != RANDOM:
        raise ValueError(f"an element is made from {RANDOM} bytes, not {len(raw)}")
    return (int.from_bytes(raw, "little") % PRIME).to_bytes(SIZE, "little")


def split(secret: bytes, threshold: int, holders: Iterable[int], random: bytes) -> dict[int, bytes]:
    """Share a secret.

    Args:
        secret: an element of the field [32].
        threshold: number of shares that are enough to put it together.
        holders: ids of the holders, from 0.
        random: bytes [(threshold - 1) * 48] for the polynomial's coefficients, different for each secret.

    Returns:
        a share [32] for each holder.

    Example:
        >>> shares = split(bytes(31) + b"\\x05", 2, range(3), bytes(range(48)))
        >>> join({2: shares[2], 0: shares[0]}) == bytes(31) + b"\\x05"
        True
    """
    if len(random) != (threshold - 1) * RANDOM:
        raise ValueError(f"{threshold} shares need {(threshold - 1) * RANDOM} random bytes, not {len(random)}")
    parts = [random[at : at + RANDOM] for at in range(0, len(random), RANDOM)]
    polynomial = [int.from_bytes(secret, "little"), *(int.from_bytes(element(part), "little") for part in parts)]
    shares = {}
    for holder in holders:
        value = 0
        for coefficient in reversed(polynomial):
            value = (value * (holder + 1) + coefficient) % PRIME
        shares[holder] = value.to_bytes(SIZE, "little")
    return shares


def join(shares: Mapping[int, bytes]) -> bytes:
    """The secret [32] of as many shares as its threshold says, by holder; of wrong shares something else.

    Raises:
        ValueError: a share is not an element of the field.
    """
    points, secret = _points(shares), 0
    for x, value in points.items():
        above = below = 1
        for other in points:
            if other != x:
                above, below = above * other % PRIME, below * (other - x) % PRIME
        secret = (secret + value * above * pow(below, -1, PRIME)) % PRIME
    return secret.to_bytes(SIZE, "little")


def decode(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    """The secret [32] of n shares of which at most (n - threshold) // 2 are wrong; None if more are.

    Args:
        shares: by holder, at least ``threshold``.
        threshold: number of shares that the secret was split for.

    Raises:
        ValueError: a share is not an element of the field.

    Example:
        >>> shares = split(bytes(31) + b"\\x05", 2, range(4), bytes(range(48)))
        >>> decode(shares | {1: bytes(32)}, 2) == bytes(31) + b"\\x05"
        True
    """
    points = _points(shares)
    before, rest = [1], [0]
    for x in points:
        before = _sum(_times([0, 1], before), _times([-x], before))  # the product of all (z - x)
    for x, value in points.items():
        others, _ = _divide(before, [-x, 1])
        rest = _sum(rest, _times([value * pow(_at(others, x), -1, PRIME)], others))
    factor_before, factor = [0], [1]  # extended Euclid, halfway: rest = factor * interpolation modulo the product
    while 2 * (len(rest) - 1) >= len(points) + threshold and rest != [0]:
        quotient, left = _divide(before, rest)
        before, rest = rest, left
        factor_before, factor = factor, _sum(factor_before, _times([-1], _times(quotient, factor)))
    found, left = _divide(rest, factor)
    return found[0].to_bytes(SIZE, "little") if left == [0] and len(found) <= threshold else None


def _points(shares: Mapping[int, bytes]) -> dict[int, int]:
    """The polynomial's values by place."""
    points = {holder + 1: int.from_bytes(share, "little") for holder, share in shares.items()}
    if any(len(share) != SIZE for share in shares.values()) or any(value >= PRIME for value in points.values()):
        raise ValueError("a share is not an element of the field")
    return points


# Polynomials are lists of coefficients from the constant on, modulo PRIME, the last not 0 (of the polynomial 0: [0]).


def _trim(p: list[int]) -> list[int]:
    while len(p) > 1 and p[-1] == 0:
        p.pop()
    return p


def _sum(p: Sequence[int], q: Sequence[int]) -> list[int]:
    size = max(len(p), len(q))
    long = [[*one, *[0] * (size - len(one))] for one in (p, q)]
    return _trim([(a + b) % PRIME for a, b in zip(*long, strict=True)])


def _times(p: Sequence[int], q: Sequence[int]) -> list[int]:
    out = [0] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            out[i + j] = (out[i + j] + a * b) % PRIME
    return _trim(out)


def _divide(p: Sequence[int], q: Sequence[int]) -> tuple[list[int], list[int]]:
    """(quotient, remainder)."""
    rest, lead = list(p), pow(q[-1], -1, PRIME)
    quotient = [0] * max(1, len(p) - len(q) + 1)
    for at in range(len(p) - len(q), -1, -1):
        quotient[at] = rest[at + len(q) - 1] * lead % PRIME
        for j, b in enumerate(q):
            rest[at + j] = (rest[at + j] - quotient[at] * b) % PRIME
    return _trim(quotient), _trim(rest)


def _at(p: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in reversed(p):
        value = (value * x + coefficient) % PRIME
    return value
