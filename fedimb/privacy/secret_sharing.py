"""Shamir's secret sharing: any ``threshold`` holders can put a secret together, and fewer know nothing of it.

Adi Shamir, "How to Share a Secret", CACM 1979, over the integers modulo 2**255 - 19. Secrets and shares are elements
of that field, 32 bytes each, lowest byte first.
"""

from collections.abc import Iterable, Mapping

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
    points = {holder + 1: int.from_bytes(share, "little") for holder, share in shares.items()}
    if any(len(share) != SIZE for share in shares.values()) or any(value >= PRIME for value in points.values()):
        raise ValueError("a share is not an element of the field")
    secret = 0
    for x, value in points.items():
        above = below = 1
        for other in points:
            if other != x:
                above, below = above * other % PRIME, below * (other - x) % PRIME
        secret = (secret + value * above * pow(below, -1, PRIME)) % PRIME
    return secret.to_bytes(SIZE, "little")
