"""Clusters of one class each: their number per class, their floor, their centroids."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.selection.condensation import condense, distinct_up_to, divide, within_sum
from fedimb.selection.coresets.c2tc import middle_rows


def rows_of(counts, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return torch.randn(len(labels), d, generator=generator) + labels[:, None], labels


def test_clusters_go_to_the_class_that_is_spread_out():
    # Class 0: twenty equal rows. Class 1: four groups of two. In proportion to rows class 0 would have 3 of 5.
    spread = torch.tensor([[0.0, 0], [0, 1], [50, 0], [50, 1], [0, 80], [0, 81], [90, 90], [90, 91]])
    points = torch.cat([torch.full((20, 2), 7.0), spread])
    labels = torch.tensor([0] * 20 + [1] * 8)
    found = condense(points, labels, 5)
    assert found.labels.tolist() == [0, 1, 1, 1, 1]
    assert found.sizes.tolist() == [20, 2, 2, 2, 2]
    assert found.centres[1:].tolist() == [[0, 0.5], [50, 0.5], [0, 80.5], [90, 90.5]]
    assert within_sum(points, found) == pytest.approx(4 * 0.5)
    assert condense(points, labels, 100).sizes.tolist() == [20] + [1] * 8  # equal rows are one cluster
    assert condense(points, labels, 1).labels.tolist() == [0]


@pytest.mark.parametrize("d", [1, 3])
def test_a_division_is_the_best_along_its_direction_and_lowers_the_sum_by_its_gain(d):
    points, _ = rows_of([17], d)
    points = points.double()
    gain, order, cut = divide(points.numpy(), np.arange(17), 1)

    def spread(part):
        return float(((part - part.mean(0)) ** 2).sum())

    gains = [spread(points) - spread(points[order[:i]]) - spread(points[order[i:]]) for i in range(1, 17)]
    assert gain == pytest.approx(max(gains))
    assert cut == 1 + gains.index(max(gains))
    values = (points - points.mean(0))[order] @ torch.linalg.svd(points - points.mean(0)).Vh[0]
    assert (values.diff() > -1e-6).all() or (values.diff() < 1e-6).all()


def test_no_cluster_has_fewer_people_than_the_floor():
    points, labels = rows_of([40, 13, 3], seed=1)
    people = torch.arange(56) // 2  # two rows each
    found = condense(points, labels, 56, floor=3, people=people)
    assert set(found.labels.tolist()) == {0, 1}  # class 2 has rows of two people
    assert min(found.people.tolist()) >= 3
    assert found.people.tolist() == [len(people[rows].unique()) for rows in found.rows]
    rows = torch.cat(found.rows)
    assert sorted(rows.tolist()) == torch.nonzero(labels < 2).flatten().tolist()
    for at, part in enumerate(found.rows):
        torch.testing.assert_close(found.centres[at], points[part].double().mean(0))
        assert set(labels[part].tolist()) == {int(found.labels[at])}


@settings(max_examples=30)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(0, 20), st.integers(1, 4), st.booleans())
def test_any_counts_any_budget_any_floor(counts, budget, floor, same):
    if not sum(counts):
        return
    points, labels = rows_of(counts, seed=budget)
    points = torch.zeros_like(points) if same else points
    found = condense(points, labels, budget, floor)
    able = [c for c, n in enumerate(counts) if n >= floor]
    assert len(found.labels) <= budget
    assert len(set(found.labels.tolist())) == min(budget, len(able))
    assert all(size >= floor for size in found.sizes.tolist())
    more = condense(points, labels, budget + 1, floor)
    if len(set(more.labels.tolist())) == len(set(found.labels.tolist())):
        assert within_sum(points, more) <= within_sum(points, found) + 1e-9
    if floor == 1:
        assert len(set(middle_rows(points, labels, min(budget, sum(counts))).tolist() if budget else [])) == min(
            budget, sum(counts)
        )


def test_people_are_counted_once():
    assert distinct_up_to(np.array([2, 2, 2])).tolist() == [1, 1, 1]


def test_a_coreset_keeps_the_middle_row_of_each_cluster():
    points = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [12.5]])
    assert middle_rows(points, torch.zeros(6, dtype=torch.int64), 2).tolist() == [1, 4]
