import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.selection.quota import class_quota


def plain(sizes, budget, order):
    """The rule one row at a time: base, left over along `order`, cap, surplus round-robin by bucket size."""
    base, rest = divmod(budget, len(sizes))
    wanted = [base] * len(sizes)
    for c in order[:rest]:
        wanted[c] += 1
    quota = [min(w, s) for w, s in zip(wanted, sizes, strict=True)]
    by_size = sorted(range(len(sizes)), key=lambda c: (-sizes[c], c))
    while sum(quota) < min(budget, sum(sizes)):
        for c in by_size:
            if quota[c] < sizes[c] and sum(quota) < budget:
                quota[c] += 1
    return quota


SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(SIZES, st.integers(0, 120))
def test_largest_is_the_rule_of_the_released_code(sizes, budget):
    order = sorted(range(len(sizes)), key=lambda c: (-sizes[c], c))
    assert class_quota(torch.tensor(sizes), budget).tolist() == plain(sizes, budget, order)


@settings(max_examples=100, deadline=None)
@given(SIZES, st.integers(0, 120), st.sampled_from(["largest", "random", "rarest_labelled_first"]), st.integers(0, 9))
def test_quotas_sum_to_the_budget_and_fit_their_buckets(sizes, budget, leftover, seed):
    labelled = torch.arange(len(sizes)).flip(0)
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(sizes)
    quota = class_quota(sizes, budget, leftover, labelled=labelled, generator=generator)
    assert quota.dtype == torch.int64
    assert int(quota.sum()) == min(budget, int(sizes.sum()))
    assert (quota >= 0).all()
    assert (quota <= sizes).all()
    # whoever is below the equal share has nothing more to give
    assert (quota[quota < budget // len(sizes)] == sizes[quota < budget // len(sizes)]).all()


def test_fewer_rows_than_classes_go_to_the_largest_buckets_or_to_the_rarest_labels():
    sizes, labelled = torch.tensor([50, 40, 3, 2, 0]), torch.tensor([30, 20, 4, 1, 0])
    assert class_quota(sizes, 2).tolist() == [1, 1, 0, 0, 0]
    rarest = class_quota(sizes, 2, "rarest_labelled_first", labelled=labelled)
    assert rarest.tolist() == [0, 0, 1, 1, 0]  # class 4 is rarest, and no row fell to it


def test_random_left_over_reaches_every_class_and_repeats_with_its_seed():
    sizes, generator = torch.tensor([9, 9, 9]), torch.Generator().manual_seed(0)
    draws = [class_quota(sizes, 4, "random", generator=generator) for _ in range(60)]
    assert {tuple(d.tolist()) for d in draws} == {(2, 1, 1), (1, 2, 1), (1, 1, 2)}
    again = class_quota(sizes, 4, "random", generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, draws[0])


def test_surplus_goes_round_robin_by_size():
    # base 4; class 2 gives 1, class 3 none: 7 over, handed to 0, 1, 0, 1 ...
    assert class_quota(torch.tensor([50, 20, 1, 0]), 16).tolist() == [8, 7, 1, 0]
    assert class_quota(torch.tensor([50, 5, 1, 0]), 16).tolist() == [10, 5, 1, 0]


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least one class and a budget"):
        class_quota(torch.zeros(0, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match="budget of at least 0; got 2, -1"):
        class_quota(torch.tensor([1, 2]), -1)
    with pytest.raises(ValueError, match="needs a generator"):
        class_quota(torch.tensor([1, 2]), 1, "random")
    with pytest.raises(ValueError, match="needs labelled"):
        class_quota(torch.tensor([1, 2]), 1, "rarest_labelled_first")
    with pytest.raises(ValueError, match="give one of largest, random"):
        class_quota(torch.tensor([1, 2]), 1, "biggest")
