import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.encoders.prototypes import class_sums, merge, prototypes
from fedimb.errors import ConfigError, DataError


@settings(max_examples=15, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=30), clients=st.integers(1, 5), seed=st.integers(0, 99))
def test_summed_over_clients_they_are_the_pooled_means(labels, clients, seed):
    y = torch.tensor(labels)
    x = torch.randn(len(y), 3, generator=torch.Generator().manual_seed(seed))
    owner = torch.randint(clients, y.shape, generator=torch.Generator().manual_seed(seed + 1))
    total = merge([class_sums(x[owner == k], y[owner == k], 5) for k in range(clients)])
    found = prototypes(total)
    assert total.counts.tolist() == torch.bincount(y, minlength=5).tolist()
    for c in range(5):
        if (y == c).any():
            assert np.allclose(found[c], x[y == c].mean(0), atol=1e-5)
        else:
            assert np.isnan(found[c]).all()


def test_a_class_below_the_minimum_is_not_sent_by_that_client():
    x, y = torch.ones(5, 2), torch.tensor([0, 0, 0, 1, 1])
    sent = class_sums(x, y, 3, minimum=3)
    assert sent.counts.tolist() == [3, 0, 0]
    assert sent.sums.tolist() == [[3, 3], [0, 0], [0, 0]]
    other = class_sums(2 * x, torch.tensor([1, 1, 1, 1, 0]), 3, minimum=3)
    assert np.array_equal(prototypes(merge([sent, other])), [[1, 1], [2, 2], [np.nan] * 2], equal_nan=True)
    assert class_sums(x, y, 3, minimum=2).counts.tolist() == [3, 2, 0]


def test_unit_length_leaves_absent_classes_undefined_and_zero_means_zero():
    x = torch.tensor([[3.0, 0.0], [3.0, 8.0], [1.0, 1.0], [-1.0, -1.0]])
    total = class_sums(x, torch.tensor([0, 0, 2, 2]), 3)
    assert np.allclose(prototypes(total, unit=True), [[0.6, 0.8], [np.nan] * 2, [0, 0]], equal_nan=True)


def test_one_client_without_rows():
    sent = class_sums(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 2)
    assert sent.counts.tolist() == [0, 0]
    assert np.isnan(prototypes(merge([sent]))).all()


@pytest.mark.parametrize(
    ("embeddings", "labels", "words"),
    [
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), "3 embeddings beside labels"),
        (torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.int64), r"beside labels \[2, 2\]"),
        (torch.zeros(2, 2), torch.tensor([0, 3]), "labels reach from 0 to 3; expected 0 to 2"),
        (torch.zeros(2, 2), torch.tensor([-1, 0]), "labels reach from -1"),
        (torch.full((2, 2), float("nan")), torch.tensor([0, 1]), "NaN"),
    ],
)
def test_input_that_does_not_fit(embeddings, labels, words):
    with pytest.raises(DataError, match=words):
        class_sums(embeddings, labels, 3)


def test_sums_that_do_not_fit_each_other():
    y = torch.tensor([0])
    with pytest.raises(DataError, match="one encoder for all"):
        merge([class_sums(torch.ones(1, 2), y, 3), class_sums(torch.ones(1, 4), y, 3)])
    with pytest.raises(DataError, match="no client sent"):
        merge([])
    with pytest.raises(ConfigError, match="minimum=0"):
        class_sums(torch.ones(1, 2), y, 3, minimum=0)
