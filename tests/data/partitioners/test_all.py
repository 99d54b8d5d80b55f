"""Every registered partitioner: each row exactly once, patients whole, same seed same lists, whatever the labels."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedimb.registry import flags, names, parameters
from fedimb.testing import check_partitioner
from fedimb.testing.data import check_deal, check_patients
from fedimb.testing.expectations import Contract

labels = st.lists(st.integers(0, 6), min_size=1, max_size=80).map(np.array)


@pytest.mark.parametrize("name", [name for name in names("partition") if not flags("partition", name).get("virtual")])
class TestEvery:
    def test_the_contract(self, name):
        check_partitioner(name)

    @settings(deadline=None, max_examples=20)
    @given(y=labels, n=st.integers(1, 100), seed=st.integers(0, 2**32))
    @example(y=np.array([3]), n=1, seed=1)  # one class, one row, one client
    @example(y=np.array([3]), n=50, seed=1)  # fewer rows than clients
    @example(y=np.zeros(40, np.int64), n=7, seed=1)  # one class
    @example(y=np.repeat([0, 1, 2], [60, 9, 1]), n=4, seed=1)  # a class of one row
    def test_uses_every_row_once_and_repeats_itself(self, name, y, n, seed):
        check_deal(Contract("partition", name), name, {}, y, n, seed)

    @settings(deadline=None, max_examples=20)
    @given(y=labels, n=st.integers(1, 12), seed=st.integers(0, 2**32), cohort=st.integers(1, 30))
    def test_keeps_patients_whole(self, name, y, n, seed, cohort):
        if "patients" not in parameters("partition", name):
            pytest.skip(f"{name} takes no patients")
        patients = np.random.default_rng(seed).integers(0, cohort, len(y)) * 7 - 50  # ids need not be 0..P-1
        check_patients(Contract("partition", name), name, {}, y, n, seed, patients)
