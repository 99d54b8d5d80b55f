import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.longtail import class_ranks, keep_rows, minority_classes, target_counts
from fedimb.errors import ConfigError, DataError


def counts(n_classes, factor, n_max, shape="exponential", available=10**6, ranks=None):
    have = np.full(n_classes, available) if np.isscalar(available) else np.array(available)
    ranks = np.arange(n_classes) if ranks is None else np.array(ranks)
    names = tuple(f"c{i}" for i in range(n_classes))
    return target_counts(have, shape, factor, n_max, ranks, names)


@pytest.mark.parametrize(
    ("n_max", "factor", "golden"),
    [
        (110, 50, [110, 71, 46, 29, 19, 12, 8, 5, 3, 2]),  # the digits yardstick
        (5000, 100, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),  # CIFAR-10-LT, Cui et al. 2019
        (7, 1, [7] * 10),
    ],
)
def test_exponential_counts(n_max, factor, golden):
    assert counts(10, factor, n_max).tolist() == golden


@pytest.mark.parametrize(("factor", "total"), [(10, 10_213), (20, 8_511), (50, 6_997)])
def test_totals_of_the_usual_cifar_tails(factor, total):
    assert counts(10, factor, 2500).sum() == total


def test_step_and_few_classes():
    assert counts(4, 10, 100, "step").tolist() == [100, 100, 10, 10]
    assert counts(3, 10, 100, "step").tolist() == [100, 100, 10]
    assert counts(1, 50, 100).tolist() == [100]
    assert counts(1, 50, 100, "step").tolist() == [100]
    assert counts(2, 50, 100).tolist() == [100, 2]


def test_a_product_just_below_a_whole_number_keeps_its_row():
    assert int(49 * 49**-1.0) == 0
    assert counts(2, 49, 49).tolist() == [49, 1]


def test_natural_keeps_all_even_an_absent_class():
    assert counts(3, 50, 5, "natural", [7, 0, 2]).tolist() == [7, 0, 2]


def test_ranks_say_which_class_is_rare():
    assert counts(3, 100, 100, ranks=[2, 0, 1]).tolist() == [1, 100, 10]
    assert class_ranks(5, "fixed", np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 4]
    seeded = class_ranks(50, "seeded", np.random.default_rng(0)).tolist()
    assert sorted(seeded) == list(range(50))
    assert seeded != list(range(50))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(20, 500), min_size=1, max_size=12),
    st.sampled_from([1, 2, 10, 20]),
    st.sampled_from(["exponential", "step"]),
)
def test_null_n_max_is_the_largest_that_works(available, factor, shape):
    found = counts(len(available), factor, None, shape, available)
    assert (found <= available).all()
    assert counts(len(available), factor, int(found[0]), shape, available).tolist() == found.tolist()
    with pytest.raises(DataError, match=f"largest data.n_max that works is {found[0]}"):
        counts(len(available), factor, int(found[0]) + 1, shape, available)


def test_too_large_an_n_max_names_the_class_and_what_works():
    with pytest.raises(DataError, match=r"class 'c1' has 5 rows where its rank needs 10; .* works is 59$"):
        counts(2, 10, 100, available=[200, 5])


def test_a_class_left_without_rows_is_refused():
    with pytest.raises(DataError, match="class 'c1' would be left without rows by n_max 10"):
        counts(2, 50, 10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((3, 10, 5, "exponentail"), "Did you mean 'exponential'"),
        ((3, 0.5, 5), "imbalance_factor=0.5"),
        ((3, float("nan"), 5), "imbalance_factor"),
        ((3, 10, 0), "n_max=0"),
    ],
)
def test_wrong_arguments(arguments, says):
    with pytest.raises(ConfigError, match=says):
        counts(*arguments)


def test_an_unknown_order():
    with pytest.raises(ConfigError, match="Did you mean 'seeded'"):
        class_ranks(3, "seedd", np.random.default_rng(0))


def test_kept_rows_are_drawn_from_those_given():
    y = np.arange(100) % 2
    rows = np.arange(10, 90)
    kept = keep_rows(rows, y, np.array([5, 11]), np.random.default_rng(0))
    assert np.bincount(y[kept]).tolist() == [5, 11]
    assert set(kept) <= set(rows)
    assert (np.diff(kept) > 0).all()
    assert kept.tolist() != keep_rows(rows, y, np.array([5, 11]), np.random.default_rng(1)).tolist()


@pytest.mark.parametrize(("n_classes", "size"), [(1, 1), (2, 1), (3, 1), (5, 2), (7, 2), (10, 3), (15, 5), (100, 30)])
def test_rarest_30pct_size_and_ties_by_id(n_classes, size):
    assert minority_classes(np.full(n_classes, 9), "rarest_30pct") == tuple(range(size))


def test_rarest_30pct_takes_the_fewest():
    assert minority_classes(np.array([5, 9, 1, 1, 7, 0, 8, 8, 8, 8]), "rarest_30pct") == (0, 2, 3)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=12).filter(any))
@settings(max_examples=40, deadline=None)
def test_a_class_without_rows_changes_nothing(rows):
    """The minority of the classes that have rows is the same under other names, wherever classes without rows stand."""
    counts = np.array(rows)
    there = np.flatnonzero(counts)
    assert minority_classes(counts, "rarest_30pct") == tuple(
        there[list(minority_classes(counts[there], "rarest_30pct"))]
    )
    try:
        tail = minority_classes(counts[there], "cumulative_75_95")
    except DataError:
        return
    assert minority_classes(counts, "cumulative_75_95") == tuple(there[list(tail)])


def test_cumulative_counts_the_mass_before_adding():
    # Mass before each class: 0, .70, .90, .95, .98: the class at exactly .95 is already tail.
    assert minority_classes(np.array([70, 20, 5, 3, 2]), "cumulative_75_95") == (3, 4)
    assert minority_classes(np.array([2, 70, 3, 20, 5]), "cumulative_75_95") == (0, 2)
    cifar_lt = np.array([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])
    assert minority_classes(cifar_lt, "cumulative_75_95") == (6, 7, 8, 9)


def test_cumulative_without_a_tail_is_refused():
    with pytest.raises(DataError, match="no class past"):
        minority_classes(np.full(10, 5), "cumulative_75_95")


def test_an_explicit_list():
    assert minority_classes(np.full(5, 1), [4, 0]) == (0, 4)


def test_a_listed_class_has_training_rows():
    with pytest.raises(DataError, match=r"data\.minority lists class 'b', which has no training rows"):
        minority_classes(np.array([4, 0, 2]), [1], ("a", "b", "c"))
    with pytest.raises(DataError, match="no class has training rows"):
        minority_classes(np.zeros(3, int), "rarest_30pct")


def test_a_list_may_name_classes():
    assert minority_classes(np.full(3, 1), ["9", 0], ("7", "8", "9")) == (0, 2)
    with pytest.raises(ConfigError, match="give distinct class ids from 0 to 2"):
        minority_classes(np.full(3, 1), ["9", 2], ("7", "8", "9"))
    with pytest.raises(ConfigError, match=r"2 is the id of class '3' and the name of another; write names as text"):
        minority_classes(np.full(3, 1), [2], ("1", "2", "3"))


@pytest.mark.parametrize("rule", ["rarest", [], [5], [-1], [1, 1], [True], ["a"], None])
def test_a_wrong_minority_rule(rule):
    with pytest.raises(ConfigError, match=r"data\.minority"):
        minority_classes(np.full(5, 1), rule)
