"""Every registered partitioner: each row exactly once, patients whole, same seed same lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.registry import build, names, parameters

NEEDED = {}  # arguments of a partitioner that has no default for them
labels = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(np.array)


@pytest.mark.parametrize("name", names("partition"))
class TestEvery:
    @settings(deadline=None, max_examples=40)
    @given(y=labels, n=st.integers(1, 150), seed=st.integers(0, 2**32))
    def test_uses_every_row_once_and_repeats_itself(self, name, y, n, seed):
        lists, again = (
            build("partition", name, **NEEDED.get(name, {}))(y, n, np.random.default_rng(seed)) for _ in "ab"
        )
        assert len(lists) == n
        assert all(rows.dtype == np.int64 and (np.diff(rows) > 0).all() for rows in lists)
        assert np.sort(np.concatenate(lists)).tolist() == list(range(len(y)))
        assert all(np.array_equal(a, b) for a, b in zip(lists, again, strict=True))

    @settings(deadline=None, max_examples=40)
    @given(y=labels, n=st.integers(1, 12), seed=st.integers(0, 2**32), cohort=st.integers(1, 30))
    def test_keeps_patients_whole(self, name, y, n, seed, cohort):
        if "patients" not in parameters("partition", name):
            pytest.skip(f"{name} takes no patients")
        rng = np.random.default_rng(seed)
        patients = rng.integers(0, cohort, len(y))
        lists = build("partition", name, given={"patients": patients}, **NEEDED.get(name, {}))(y, n, rng)
        assert np.sort(np.concatenate(lists)).tolist() == list(range(len(y)))
        held = [set(patients[rows].tolist()) for rows in lists]
        assert sum(map(len, held)) == len(np.unique(patients))

    def test_another_seed_gives_another_partition(self, name):
        y = np.arange(200) % 5
        one, two = (build("partition", name, **NEEDED.get(name, {}))(y, 5, np.random.default_rng(s)) for s in (0, 1))
        assert any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))
