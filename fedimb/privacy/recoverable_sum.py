"""Masked sums that open although a client is missing: Bonawitz et al., CCS 2017, with both masks and with consistency.

The sum of `fedimb.privacy.secure_sum` opens only if all clients reply. Here each client adds a mask of its own to the
masks it shares with the others, and sends with its figures a share of every seed to every other client, encrypted. To
open the sum over those that replied, the clients reveal shares of their own masks, and of the masks between them and
the missing ones. They never reveal both of one client, so the figures of one that is only said to be missing stay
hidden: its own mask is on them.

1. Each client sends figures plus masks, commitments to its seeds, and encrypted shares.
2. Each signs one set of clients for this sum: those that replied. It signs no other set for it, ever.
3. With the signatures of `least_sites` clients under one set, each reveals its shares for that set.

Two different sets would need more signers than there are honest clients, as long as at most ``2 * least - n - 1`` of n
work with the server. That is why a set has more than two thirds of all clients, as in section 6 of the paper.

A seed is used for one sum and revealed only for that one; the keys it was derived from are not.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fedimb.privacy.secret_sharing import PRIME, SIZE, decode, join

FEWEST = 3
"""Smallest number of clients in a sum: of two, each reads the other's figures from it."""
_MOST_TRIED = 2000


class NotOpened(Exception):
    """A client's seeds cannot be put together from the shares that were revealed.

    Attributes:
        client: that client, or whoever revealed wrong shares of its seeds.
        alone: whether the seeds of all others can be put together: then the fault is this client's own, most likely.
    """

    def __init__(self, client: int, alone: bool = False) -> None:
        super().__init__(f"the shares of client {client}'s seeds do not fit what it committed to")
        self.client, self.alone = client, alone


def least_sites(clients: int) -> int:
    """How many of so many clients must be in a sum, and sign its set, for it to be opened.

    Example:
        >>> [least_sites(n) for n in (3, 4, 5, 7, 10)]
        [3, 3, 4, 5, 7]
    """
    return max(FEWEST, 2 * clients // 3 + 1)


def can_recover(clients: int) -> bool:
    """Whether a sum over so many clients can be opened without one of them: from four on."""
    return least_sites(clients) < clients


def expand(seed: bytes, count: int) -> np.ndarray:
    """The mask [count] uint64 of a seed [32]: the key stream of ChaCha20 (RFC 8439), of which the seed is the key."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    stream = Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor().update(bytes(8 * count))
    return np.frombuffer(stream, np.dtype("<u8")).astype(np.uint64)


def commitment(seed: bytes) -> bytes:
    """SHA-256 [32] of a seed."""
    return hashlib.sha256(b"fedimb seed 1" + seed).digest()


def seeds_of(client: int, clients: Sequence[int]) -> list[int]:
    """Whom the seeds of a client are shared with, in the order they are listed in: itself, then the others."""
    return [client, *(other for other in clients if other != client)]


def opened_seeds(client: int, clients: Sequence[int], alive: Iterable[int]) -> list[int]:
    """Which of a client's seeds (`seeds_of`) are revealed for a set: its own, and those with the missing clients."""
    present = set(alive)
    return [other for other in seeds_of(client, clients) if other == client or other not in present]


def open_sum(
    sent: Mapping[int, np.ndarray],
    clients: Sequence[int],
    commitments: Mapping[int, np.ndarray],
    revealed: Mapping[int, Mapping[int, np.ndarray]],
) -> np.ndarray:
    """Open the sum over the clients that sent something.

    Args:
        sent: client -> its masked figures [n] uint64.
        clients: all clients that were asked, K of them.
        commitments: client -> [K, 32] uint8, `commitment` of each seed in the order of `seeds_of`.
        revealed: holder -> client -> shares [1 + missing, 32] uint8 in the order of `opened_seeds`.

    Returns:
        The sum of their integers [n] int64.

    Raises:
        NotOpened: a seed cannot be put together.
    """
    least, alive = least_sites(len(clients)), sorted(sent)
    total: np.ndarray = np.stack([sent[client] for client in alive]).sum(axis=0, dtype=np.uint64)

    def seed_of(client: int, place: int, other: int, most_tried: int = _MOST_TRIED) -> bytes:
        known = commitments[client][seeds_of(client, clients).index(other)].tobytes()
        shares = {holder: found[client][place] for holder, found in sorted(revealed.items()) if client in found}
        return _joined(client, {holder: row.tobytes() for holder, row in shares.items()}, least, known, most_tried)

    def opens(client: int) -> bool:
        try:
            return bool(seed_of(client, 0, client, 1))
        except NotOpened:
            return False

    for client in alive:
        for place, other in enumerate(opened_seeds(client, clients, alive)):
            try:
                mask = expand(seed_of(client, place, other), total.size)
            except NotOpened:
                raise NotOpened(client, all(opens(one) for one in alive if one != client)) from None
            total = total + mask if other < client else total - mask
    opened: np.ndarray = total.view(np.int64)
    return opened


def _joined(client: int, shares: Mapping[int, bytes], least: int, known: bytes, most_tried: int) -> bytes:
    """The seed of shares of which some may be wrong: the one that fits its commitment.

    Without some holders, as few as possible, `decode` corrects the wrong shares among the others.
    """
    fit = {holder: share for holder, share in shares.items() if int.from_bytes(share, "little") < PRIME}
    if len(fit) < least:
        raise NotOpened(client)
    seed: bytes | None = join({holder: fit[holder] for holder in list(fit)[:least]})  # nearly always
    if seed is not None and commitment(seed) == known:
        return seed
    without = itertools.chain.from_iterable(itertools.combinations(fit, count) for count in range(len(fit) - least + 1))
    for left_out in itertools.islice(without, most_tried):
        seed = decode({holder: share for holder, share in fit.items() if holder not in left_out}, least)
        if seed is not None and commitment(seed) == known:
            return seed
    raise NotOpened(client)


__all__ = [
    "FEWEST",
    "SIZE",
    "NotOpened",
    "can_recover",
    "commitment",
    "expand",
    "least_sites",
    "open_sum",
    "opened_seeds",
    "seeds_of",
]
