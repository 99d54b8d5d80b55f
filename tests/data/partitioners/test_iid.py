import numpy as np

from fedimb.data.partitioners.iid import Iid


def test_sizes_differ_by_one_at_most_and_classes_are_mixed():
    y = np.repeat(np.arange(4), 251)[:1002]
    lists = Iid()(y, 10, np.random.default_rng(0))
    assert sorted(map(len, lists)) == [100] * 8 + [101] * 2
    # Four standard deviations of the hypergeometric draw: a sorted cut would put one class at each client.
    assert all(np.bincount(y[rows], minlength=4).min() > 25 - 4 * 4.3 for rows in lists)


def test_more_clients_than_rows_leaves_some_empty():
    assert sorted(map(len, Iid()(np.zeros(3, np.int64), 7, np.random.default_rng(0)))) == [0] * 4 + [1] * 3
