"""Mutual information from counts, against scikit-learn's on the pooled rows."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from fedimb.selection.mutual_information import bin_counts, binned, largest, mutual_information


def rows(n=300, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return np.column_stack([y + 0.3 * rng.normal(size=n), rng.normal(size=n), (y == 2) * 1.0, np.zeros(n)]), y


def test_counts_of_clients_add_up_to_the_mutual_information_of_all_rows():
    x, y = rows()
    parts = np.array_split(np.arange(len(y)), [20, 130, 131])
    total = sum(bin_counts(x[part], y[part], 3, 10) for part in parts)
    at = binned(x, 10)
    wanted = [mutual_info_score(y, at[:, column]) for column in range(4)]
    assert mutual_information(total) == pytest.approx(wanted, abs=1e-12)
    assert wanted[3] == 0
    assert largest(mutual_information(total), 2).tolist() == [True, False, True, False]


def test_an_indicator_has_two_bins_and_edges_are_deciles():
    assert len(set(binned([0.0, 1.0], 10).tolist())) == 2
    normal = np.random.default_rng(0).normal(size=20_000)
    assert np.bincount(binned(normal, 10)) / 20_000 == pytest.approx([0.1] * 10, abs=0.01)


def test_no_rows_tell_nothing_and_ties_go_to_the_earlier_column():
    assert mutual_information(np.zeros((3, 2, 10))).tolist() == [0, 0]
    assert largest([1.0, 1.0, 1.0, 2.0], 2).tolist() == [True, False, False, True]
