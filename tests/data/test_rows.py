"""A RowLists reads like the list it was made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedimb.data.rows import RowLists


@given(st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=6))
def test_it_reads_like_a_list(lists):
    arrays = [np.array(part, dtype=np.int64) for part in lists]
    held = RowLists.of(arrays)
    assert RowLists.of(held) is held
    assert len(held) == len(arrays)
    assert held.sizes.tolist() == [len(part) for part in lists]
    assert [part.tolist() for part in held] == lists
    assert [part.tolist() for part in held[1:4]] == lists[1:4]
    assert held.rows.dtype == held.offsets.dtype == np.int64
    if lists:
        assert held[-1].tolist() == lists[-1]
    with pytest.raises(IndexError):
        held[len(lists)]
