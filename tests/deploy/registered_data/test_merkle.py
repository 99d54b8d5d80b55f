"""The tree against RFC 6962: its recursive definition written out, and known heads and paths."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedimb.deploy.registered_data.merkle import included, inclusion_path, leaf_hash, root

# Inputs, heads of the first n of them, and two paths, as the reference log of Certificate Transparency tests them.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
HEADS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]


def defined(leaves):
    """RFC 6962 section 2.1, MTH, letter by letter."""
    if len(leaves) == 0:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + defined(leaves[:k]) + defined(leaves[k:])).digest()


def path_defined(m, leaves):
    """RFC 6962 section 2.1.1, PATH."""
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m < k:
        return [*path_defined(m, leaves[:k]), defined(leaves[k:])]
    return [*path_defined(m - k, leaves[k:]), defined(leaves[:k])]


@pytest.mark.parametrize("n", range(9))
def test_known_heads(n):
    assert root(LEAVES[:n]).hex() == HEADS[n]


def test_known_paths():
    assert [h.hex() for h in inclusion_path(LEAVES, 0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [h.hex() for h in inclusion_path(LEAVES[:3], 2)] == [HEADS[2]]


@given(st.integers(1, 40))
def test_every_leaf_by_the_definition(n):
    leaves = [leaf_hash(bytes([i])) for i in range(n)]
    head = root(leaves)
    assert head == defined(leaves)
    for i in range(n):
        path = inclusion_path(leaves, i)
        assert path == path_defined(i, leaves)
        assert included(leaves[i], i, n, path, head)


@given(st.data(), st.integers(2, 20))
def test_nothing_else_is_included(data, n):
    leaves = [leaf_hash(bytes([i])) for i in range(n)]
    head, i = root(leaves), data.draw(st.integers(0, n - 1))
    path = inclusion_path(leaves, i)
    other = data.draw(st.integers(0, n - 1).filter(lambda j: j != i))
    assert not included(leaves[other], i, n, path, head)
    assert not included(leaves[i], other, n, path, head)
    assert not included(leaves[i], i, n, path[:-1], head)
    assert not included(leaves[i], i, n, [*path, head], head)
    assert not included(leaves[i], n, n, path, head)
    wrong = bytes(head[:-1]) + bytes([head[-1] ^ 1])
    assert not included(leaves[i], i, n, path, wrong)


def test_a_node_is_no_leaf():
    pair = LEAVES[0] + LEAVES[1]
    assert leaf_hash(pair) != root(LEAVES[:2])


def test_a_leaf_that_is_not_there():
    for index in (-1, 8):
        with pytest.raises(IndexError, match=f"leaf {index} of 8"):
            inclusion_path(LEAVES, index)
    assert included(LEAVES[0], 0, 1, [], LEAVES[0])
    assert not included(LEAVES[0], 0, 0, [], HEADS[0])
