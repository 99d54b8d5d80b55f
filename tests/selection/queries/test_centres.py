import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedimb.selection.gradient_embeddings import Factored, gradient_embeddings
from fedimb.selection.queries import centres
from fedimb.selection.queries.centres import k_center, seed_k_means


def whole_numbers(n, seed, d=3, span=6):
    """Small integers: distances are exact, and many are equal."""
    return torch.randint(-span, span + 1, (n, d), generator=torch.Generator().manual_seed(seed)).float()


def plain_k_center(rows, count, anchors, first):
    """The textbook loop: every row against every centre, for each pick."""
    rows, chosen = rows.double().numpy(), []
    held = list(anchors.double().numpy())
    while len(chosen) < count:
        if held:
            near = ((rows[:, None] - np.array(held)[None]) ** 2).sum(2).min(1)
            near[chosen] = -1
            pick = int(near.argmax())
        else:
            pick = first
        chosen.append(pick)
        held.append(rows[pick])
    return chosen


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 6), st.integers(0, 70), st.integers(0, 999), st.sampled_from([2, 7, 1024]))
def test_k_center_is_the_plain_loop_ties_included(n, m, count, seed, width):
    rows, anchors = whole_numbers(n, seed), whole_numbers(m, seed + 1)
    before, centres._ACTIVE = centres._ACTIVE, width  # so few rows kept up to date that old distances matter
    try:
        ours = k_center(Factored.of(rows), count, Factored.of(anchors), first=n // 2)
    finally:
        centres._ACTIVE = before
    assert ours.tolist() == plain_k_center(rows, min(count, n), anchors, n // 2)


def test_k_center_on_gradient_embeddings_is_that_of_the_full_ones():
    generator = torch.Generator().manual_seed(0)
    features, logits = torch.randn(300, 6, generator=generator), torch.randn(300, 4, generator=generator)
    p = logits.double().softmax(1)
    full = torch.einsum("nc,nd->ncd", torch.eye(4)[p.argmax(1)] - p, features.double()).flatten(1)
    embedded = gradient_embeddings(features, logits)
    few = torch.arange(5)
    ours = k_center(embedded.rows(torch.arange(5, 300)), 40, embedded.rows(few))
    assert ours.tolist() == plain_k_center(full[5:], 40, full[few], 0)


def test_rows_that_coincide_with_centres_come_last_by_position():
    rows = torch.tensor([[0.1], [0.7], [0.1], [0.7], [0.1]])
    assert k_center(Factored.of(rows), 5, None, first=2).tolist() == [2, 1, 0, 3, 4]
    assert k_center(Factored.of(rows), 0, None, first=2).tolist() == []
    assert k_center(Factored.of(rows[:0]), 3).tolist() == []


def test_a_row_far_off_is_found_first_and_covers_its_neighbour():
    rows = torch.tensor([[0.0], [1.0], [50.0], [50.1]])
    assert k_center(Factored.of(rows), 2, Factored.of(torch.zeros(1, 1))).tolist() == [3, 1]


@pytest.mark.parametrize("pending", [1, 128])
def test_seeding_draws_in_proportion_to_the_squared_distance(pending, monkeypatch):
    # pending 128: the second and third draw share one pass, so the third is drawn by old distances and rejection
    monkeypatch.setattr(centres, "_PENDING", pending)
    rows = torch.tensor([[0.0], [1.0], [2.0], [-3.0]])
    drawn = [
        tuple(seed_k_means(Factored.of(rows), 3, torch.Generator().manual_seed(s), 0).tolist()) for s in range(3000)
    ]
    wanted = {}
    for second, share in ((1, 1 / 14), (2, 4 / 14), (3, 9 / 14)):
        near = torch.minimum(rows[:, 0] ** 2, (rows[:, 0] - rows[second, 0]) ** 2)
        for third in {1, 2, 3} - {second}:
            wanted[0, second, third] = share * float(near[third] / near.sum())
    counts = np.array([drawn.count(key) for key in wanted])
    assert counts.sum() == 3000
    assert stats.chisquare(counts, 3000 * np.array(list(wanted.values()))).pvalue > 1e-3


def test_seeding_among_rows_that_coincide_is_even():
    rows = Factored.of(torch.ones(6, 2))
    drawn = torch.stack([seed_k_means(rows, 3, torch.Generator().manual_seed(s), 4) for s in range(300)])
    assert (drawn[:, 0] == 4).all()
    others = drawn[:, 1:].flatten().bincount(minlength=6)
    assert others[4] == 0
    assert stats.chisquare(others[others > 0]).pvalue > 1e-3
    assert (others[[0, 1, 2, 3, 5]] > 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 50), st.integers(0, 99))
def test_seeding_gives_distinct_rows_as_many_as_asked(n, count, seed):
    drawn = seed_k_means(Factored.of(whole_numbers(n, seed, span=1)), count, torch.Generator().manual_seed(seed), n - 1)
    assert len(set(drawn.tolist())) == len(drawn) == min(count, n)
    assert count == 0 or drawn[0] == n - 1
