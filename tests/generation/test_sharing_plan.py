import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedimb.errors import ConfigError, DataError
from fedimb.generation.sharing_plan import (
    Plan,
    assign,
    cells,
    divide_among_clients,
    plan_report,
    pool_sizes,
    round_to_total,
    sample_targets,
)

FREE = Plan(rho_syn=1e6, w_max=1.0)  # neither cap nor favour


@st.composite
def federations(draw):
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3)))
    size = math.prod(shape)
    cells = draw(st.lists(st.integers(0, 60), min_size=size, max_size=size))
    return np.array(cells, np.int64).reshape(shape)


def by_hand(counts, plan):
    """The equations of the reconstruction, cell by cell: [K, C, D] float64, of each client a whole number in all."""
    clients, classes, devices = counts.shape
    share = counts.sum((0, 2)) / max(1, counts.sum())
    wanted = np.zeros(counts.shape)
    for k in range(clients):
        n = counts[k].sum(1)
        has = [d for d in range(devices) if counts[k, :, d].sum() > 0]
        lacks = [d for d in range(devices) if d not in has]
        for y in range(classes):
            deficit = max(0, plan.tau * n.max() - n[y])
            favour = (share.max() / share[y]) ** plan.exponent if share[y] else plan.w_max
            for d in range(devices):
                if not lacks:
                    q = 1 / len(has)
                else:
                    q = plan.rho_dev / len(lacks) if d in lacks else (1 - plan.rho_dev) / len(has)
                wanted[k, y, d] = deficit * min(plan.w_max, favour) * q if has else 0
        total, cap = wanted[k].sum(), plan.rho_syn * n.sum()
        wanted[k] *= np.floor(min(total, cap) + 1e-9) / total if total else 1
    return wanted


class TestTargets:
    @settings(deadline=None)
    @example(np.array([[[0], [0], [12]], [[18], [22], [51]]]), Plan())  # rounded twice a cell is off by more than one
    @given(federations(), st.sampled_from([Plan(), FREE, Plan(rho_dev=0.2, tau=1.0, rho_syn=0.25, exponent=1.0)]))
    def test_are_the_equations_within_rounding(self, counts, plan):
        found, exact = sample_targets(counts, plan), by_hand(counts, plan)
        assert found.dtype == np.int64
        assert np.abs(found - exact).max() < 1 + 1e-6
        for axis in (1, 2):  # nor are classes and devices as a whole
            assert np.abs(found.sum(axis) - exact.sum(axis)).max() < 2
        np.testing.assert_allclose(found.sum((1, 2)), exact.sum((1, 2)), atol=1e-6)

    @settings(deadline=None)
    @given(federations(), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    def test_no_client_receives_more_than_the_cap(self, counts, rho_syn):
        found = sample_targets(counts, Plan(rho_syn=rho_syn))
        assert (found >= 0).all()
        assert (found.sum((1, 2)) <= rho_syn * counts.sum((1, 2))).all()

    @settings(deadline=None)
    @given(federations())
    def test_every_arm_of_the_ablation_makes_the_same_number(self, counts):
        totals = {b: sample_targets(counts, Plan(balance=b)).sum((1, 2)).tolist() for b in ("both", "class", "device")}
        assert totals["both"] == totals["class"] == totals["device"]
        assert not sample_targets(counts, Plan(balance="none")).any()

    def test_a_small_example(self):
        counts = np.array([[[40, 0], [10, 0], [20, 0]]])  # tau .5: 20 wanted, 10 missing of class 1, device 1 lacking
        assert sample_targets(counts, FREE).tolist() == [[[0, 0], [5, 5], [0, 0]]]
        assert sample_targets(counts, replace(FREE, balance="class")).tolist() == [[[0, 0], [10, 0], [0, 0]]]
        assert sample_targets(counts, replace(FREE, balance="device", rho_dev=0.4)).tolist() == [
            [[2, 2], [2, 1], [2, 1]]
        ]
        assert sample_targets(counts, replace(FREE, rho_dev=1.0)).tolist() == [[[0, 0], [0, 10], [0, 0]]]

    def test_a_globally_rare_class_is_favoured_up_to_w_max(self):
        counts = np.zeros((2, 3, 1), np.int64)
        counts[0, :, 0], counts[1, :, 0] = (100, 40, 40), (0, 360, 24)  # global 100, 400, 64: favours 2, 1, 2.5
        found = sample_targets(counts, Plan(rho_syn=1e6))
        assert found[0, :, 0].tolist() == [0, 10, 25]
        assert sample_targets(counts, Plan(rho_syn=1e6, w_max=2.0))[0, :, 0].tolist() == [0, 10, 20]
        assert sample_targets(counts, Plan(rho_syn=1e6, exponent=0.0))[0, :, 0].tolist() == [0, 10, 10]

    def test_a_class_nobody_holds_is_the_rarest_where_it_can_be_made(self):
        counts = np.array([[[40], [0]]])
        assert sample_targets(counts, Plan(rho_syn=1e6))[0, :, 0].tolist() == [0, 80]
        assert not sample_targets(counts, Plan(), possible=np.array([[True], [False]])).any()

    def test_what_a_class_lacks_on_one_device_is_made_on_others(self):
        counts = np.array([[[40, 0, 0], [0, 0, 0], [20, 0, 0]]])
        possible = np.array([[1, 1, 1], [0, 1, 0], [1, 1, 1]], bool)
        assert sample_targets(counts, FREE, possible)[0, 1].tolist() == [0, 20, 0]
        # Class-only: device 1 is none of the client's own, but the only one the class can be made on.
        assert sample_targets(counts, replace(FREE, balance="class"), possible)[0, 1].tolist() == [0, 20, 0]

    def test_empty_clients_one_device_and_balanced_clients(self):
        counts = np.zeros((3, 2, 1), np.int64)
        counts[0, :, 0], counts[2, :, 0] = (30, 3), (7, 7)
        found = sample_targets(counts, FREE)
        assert found[:, :, 0].tolist() == [[0, 12], [0, 0], [0, 0]]
        assert sample_targets(counts, replace(FREE, balance="class")).tolist() == found.tolist()

    def test_noisy_counts_need_more_than_one_row_to_have_a_device(self):
        counts = np.array([[[40, 1], [10, 0]]])
        assert sample_targets(counts, replace(FREE, rho_dev=1.0))[0, 1].tolist() == [5, 5]
        assert sample_targets(counts, replace(FREE, rho_dev=1.0, least_rows=3))[0, 1].tolist() == [0, 10]

    @pytest.mark.parametrize("wrong", [np.ones((2, 2)), np.ones((1, 2, 2)), -np.ones((1, 2, 2), np.int64)])
    def test_what_is_no_counts_is_refused(self, wrong):
        with pytest.raises(DataError, match="whole counts"):
            sample_targets(wrong, Plan())

    def test_a_mask_of_another_shape_is_refused(self):
        with pytest.raises(DataError, match="possible"):
            sample_targets(np.ones((1, 2, 3), np.int64), Plan(), np.ones((2, 2), bool))

    @pytest.mark.parametrize(
        "wrong", [{"tau": 1.5}, {"rho_dev": -0.1}, {"rho_syn": float("nan")}, {"w_max": 0.5}, {"balance": "all"}]
    )
    def test_knobs_out_of_range_are_refused(self, wrong):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Plan(**wrong)


class TestWhole:
    def test_a_sample_of_each_class_is_spread_over_devices_as_planned(self):
        exact = np.tile([0.5, 0.25, 0.25], (8, 1))
        found = round_to_total(exact, 8)
        assert found.sum(axis=1).tolist() == [1] * 8
        assert found.sum(axis=0).tolist() == [4, 2, 2]

    def test_too_few_for_every_class_begin_at_another_class_for_each_client(self):
        exact = np.full((5, 1), 0.4)
        first = [np.flatnonzero(round_to_total(exact, 2, start=k)[:, 0]).tolist() for k in range(5)]
        assert first == [[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]]

    @settings(deadline=None, max_examples=60)
    @given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 50), st.integers(0, 9), st.integers(0, 2**32))
    def test_sums_and_closeness(self, classes, devices, total, start, seed):
        shares = np.random.default_rng(seed).dirichlet(np.full(classes * devices, 0.5)).reshape(classes, devices)
        found = round_to_total(shares * total, total, start)
        assert found.sum() == total
        assert np.abs(found - shares * total).max() < 1 + 1e-6


def pool_of(sizes):
    """(y, d) of a pool holding ``sizes`` [C, D] samples."""
    cells = np.argwhere(sizes >= 0).repeat(sizes.ravel(), axis=0)
    return cells[:, 0], cells[:, 1]


def received(lists, y, d, shape):
    found = np.zeros((len(lists), *shape), np.int64)
    for k, rows in enumerate(lists):
        np.add.at(found[k], (y[rows], d[rows]), 1)
    return found


class TestAssign:
    @settings(deadline=None, max_examples=50)
    @given(federations(), st.booleans(), st.integers(0, 2**32))
    def test_clients_get_what_was_planned_from_a_pool_of_the_planned_size(self, counts, own, seed):
        wanted = sample_targets(counts, Plan())
        y, d = pool_of(pool_sizes(wanted, own))
        lists, again = (assign(wanted, y, d, np.random.default_rng(seed), own) for _ in "ab")
        assert np.array_equal(received(lists, y, d, counts.shape[1:]), wanted)
        assert all(np.array_equal(a, b) and (np.diff(a) > 0).all() for a, b in zip(lists, again, strict=True))
        if own:
            assert len(np.unique(np.concatenate(lists))) == sum(map(len, lists)) == len(y)

    def test_shared_clients_draw_different_subsets(self):
        wanted = np.array([[[30]], [[30]], [[60]]])
        lists = assign(wanted, *pool_of(np.array([[60]])), np.random.default_rng(0))
        assert lists[0].tolist() != lists[1].tolist()
        assert lists[2].tolist() == list(range(60))

    def test_a_pool_cut_short_is_dealt_as_far_as_it_goes(self):
        wanted = np.array([[[6], [1]], [[2], [0]], [[0], [0]]])
        y, d = pool_of(np.array([[4], [0]]))
        shared = received(assign(wanted, y, d, np.random.default_rng(0)), y, d, (2, 1))
        assert shared[:, :, 0].tolist() == [[4, 0], [2, 0], [0, 0]]
        own = received(assign(wanted, y, d, np.random.default_rng(0), own=True), y, d, (2, 1))
        assert own[:, :, 0].tolist() == [[3, 0], [1, 0], [0, 0]]

    def test_nothing_planned_gives_empty_lists(self):
        lists = assign(np.zeros((2, 3, 1), np.int64), *pool_of(np.ones((3, 1), np.int64)), np.random.default_rng(0))
        assert [(rows.tolist(), rows.dtype) for rows in lists] == [([], np.int64)] * 2


def test_pool_sizes_grow_with_clients_only_where_pools_are_own():
    wanted = np.array([[[3, 0]], [[5, 1]]])
    assert pool_sizes(wanted).tolist() == [[5, 1]]
    assert pool_sizes(wanted, own=True).tolist() == [[8, 1]]
    assert pool_sizes(wanted[:0]).tolist() == [[0, 0]]


def test_the_report_is_json_and_says_who_was_capped_and_what_fell_short():
    counts = np.array([[[40], [10]], [[40], [18]], [[0], [0]]])
    wanted = sample_targets(
        counts, Plan(w_max=1.0, rho_syn=0.1)
    )  # client 0 wants 10 of 5 allowed, client 1 wants 2 of 5
    given_ = wanted.copy()
    given_[0, 1, 0] -= 1
    report = json.loads(json.dumps(plan_report(counts, wanted, Plan(rho_syn=0.1), ("a", "b"), ("x",), given_)))
    assert report["by_client"] == [5, 2, 0]
    assert report["by_class"] == [0, 7]
    assert report["capped_clients"] == [0]
    assert report["samples_per_real_row"] == [0.1, 2 / 58, None]
    assert (report["pool_shared"], report["pool_own"], report["short"]) == (5, 7, 1)
    assert report["plan"]["rho_syn"] == 0.1


def test_cells_list_every_sample_of_a_pool():
    y, d = cells(np.array([[2, 0], [0, 0], [1, 3]]))
    assert y.tolist() == [0, 0, 2, 2, 2, 2]
    assert d.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_pool_is_divided_among_those_who_have_the_class_on_the_device():
    counts = np.array([[[30], [0]], [[10], [0]], [[0], [0]]])
    found = divide_among_clients(np.array([[8], [5]]), counts)
    assert found[:, :, 0].tolist() == [[6, 0], [2, 0], [0, 0]]  # class 1 is asked of nobody
