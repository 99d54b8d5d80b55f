"""Every registered partitioner: each row exactly once, patients whole, same seed same lists, whatever the labels."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedimb.registry import build, names, parameters

NEEDED = {}  # arguments of a partitioner that has no default for them
SMALL_ALPHA = 1e-3
labels = st.lists(st.integers(0, 6), min_size=1, max_size=80).map(np.array)


def dealt(name, y, n, seed, patients=None):
    """Lists of the partitioner, with columns that name ``n`` sites and, if given, patients of one site each."""
    asked = parameters("partition", name)
    args = {"alpha": SMALL_ALPHA} if "alpha" in asked and seed % 2 else {}  # both skews in every test
    sites = (np.arange(len(y)) if patients is None else patients) % n
    columns = {"sites": sites, "site_names": tuple(f"site {k}" for k in range(n)), "patients": patients}
    return build("partition", name, given=columns, **NEEDED.get(name, {}), **args)(y, n, np.random.default_rng(seed))


@pytest.mark.parametrize("name", names("partition"))
class TestEvery:
    @settings(deadline=None, max_examples=20)
    @given(y=labels, n=st.integers(1, 100), seed=st.integers(0, 2**32))
    @example(y=np.array([3]), n=1, seed=1)  # one class, one row, one client
    @example(y=np.array([3]), n=50, seed=1)  # fewer rows than clients
    @example(y=np.zeros(40, np.int64), n=7, seed=1)  # one class
    @example(y=np.repeat([0, 1, 2], [60, 9, 1]), n=4, seed=1)  # a class of one row
    def test_uses_every_row_once_and_repeats_itself(self, name, y, n, seed):
        lists, again = (dealt(name, y, n, seed) for _ in "ab")
        assert len(lists) == n
        assert all(rows.dtype == np.int64 and (np.diff(rows) > 0).all() for rows in lists)
        assert np.sort(np.concatenate(lists)).tolist() == list(range(len(y)))
        assert all(np.array_equal(a, b) for a, b in zip(lists, again, strict=True))

    @settings(deadline=None, max_examples=20)
    @given(y=labels, n=st.integers(1, 12), seed=st.integers(0, 2**32), cohort=st.integers(1, 30))
    def test_keeps_patients_whole(self, name, y, n, seed, cohort):
        if "patients" not in parameters("partition", name):
            pytest.skip(f"{name} takes no patients")
        patients = np.random.default_rng(seed).integers(0, cohort, len(y)) * 7 - 50  # ids need not be 0..P-1
        lists = dealt(name, y, n, seed, patients)
        assert np.sort(np.concatenate(lists)).tolist() == list(range(len(y)))
        held = [set(patients[rows].tolist()) for rows in lists]
        assert sum(map(len, held)) == len(np.unique(patients))

    def test_another_seed_gives_another_partition(self, name):
        if "sites" in parameters("partition", name):
            pytest.skip(f"{name} draws nothing: clients are the sites")
        y = np.arange(200) % 5
        one, two = (dealt(name, y, 5, seed) for seed in (0, 2))
        assert any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))
