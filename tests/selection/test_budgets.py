import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import DataError
from fedimb.selection.budgets import apportion, capped


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 60), st.one_of(st.just(0.0), st.floats(1e-6, 1e6))), min_size=1, max_size=8),
    share=st.floats(0, 1),
)
def test_whole_numbers_within_what_there_is_with_a_row_each_while_it_lasts(rows, share):
    have, wish = torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows], dtype=torch.float64)
    keep = round(share * int(have.sum()))
    counts = apportion(have, wish, keep)
    assert int(counts.sum()) == keep
    assert bool(((counts >= 0) & (counts <= have)).all())
    assert int((counts > 0).sum()) == min(keep, int((have > 0).sum())) or keep > int((have > 0).sum())
    if keep >= int((have > 0).sum()):
        assert bool((counts[have > 0] > 0).all())


def test_shares_even_filling_and_limits():
    have = torch.tensor([60, 30, 10, 0])
    assert apportion(have, have.double(), 50).tolist() == [30, 15, 5, 0]
    assert apportion(have, torch.ones(4), 50).tolist() == [20, 20, 10, 0]
    assert apportion(have, torch.tensor([0.0, 1, 0, 0]), 50).tolist() == [17, 30, 3, 0]
    assert apportion(have, have.double(), 2).tolist() == [1, 1, 0, 0]


def test_a_cap_cuts_the_globally_frequent_and_leaves_the_rest_whole():
    # cap 100 of 400, 200, 50: 40 * 1/4 + 30 * 1/2 + 10
    assert capped(torch.tensor([40, 30, 10]), torch.tensor([400.0, 200, 50]), 35).tolist() == [10, 15, 10]
    # a class the profile does not know counts as rare
    assert capped(torch.tensor([40, 6]), torch.tensor([400.0, 0]), 26).tolist() == [20, 6]


def test_impossible_budgets_are_refused():
    with pytest.raises(DataError, match="cannot keep 4 of 3"):
        apportion(torch.tensor([3]), torch.ones(1), 4)
    with pytest.raises(DataError, match="not negative"):
        apportion(torch.tensor([3]), torch.tensor([torch.nan]), 2)
