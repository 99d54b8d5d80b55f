"""Merkle tree over a list of records: one hash commits to all of them, and a short path proves that one is included.

RFC 6962 section 2.1 (the same in RFC 9162 section 2.1), SHA-256: a leaf is prefixed with the byte 0x00 and an inner
node with 0x01, so that a node cannot be passed off as a record.
"""

import hashlib
from collections.abc import Sequence

SIZE = 32
"""Length of a hash in bytes."""


def leaf_hash(content: bytes) -> bytes:
    """SHA-256(0x00 || content), 32 bytes."""
    return hashlib.sha256(b"\x00" + content).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, in order. Without leaves it is the hash of the empty string, as in the RFC."""
    return _levels(leaves)[-1][0] if leaves else hashlib.sha256(b"").digest()


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The sibling hashes on the way from leaf ``index`` to the root, lowest first (RFC 9162 section 2.1.3.1).

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    path = []
    for level in _levels(leaves)[:-1]:
        if (beside := index ^ 1) < len(level):
            path.append(level[beside])
        index //= 2
    return path


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], head: bytes) -> bool:
    """Whether ``path`` proves that leaf hash ``leaf`` is at ``index`` of the ``size`` leaves under root ``head``.

    RFC 9162 section 2.1.3.2, step by step.
    """
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for beside in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = _node(beside, found)
            while not at & 1 and at != 0:
                at, last = at >> 1, last >> 1
        else:
            found = _node(found, beside)
        at, last = at >> 1, last >> 1
    return last == 0 and found == head


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All levels, from the leaves up. A last node without a partner moves up unchanged: the RFC's left-full tree."""
    levels = [list(leaves)]
    while len(below := levels[-1]) > 1:
        above = [_node(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        levels.append([*above, below[-1]] if len(below) % 2 else above)
    return levels
