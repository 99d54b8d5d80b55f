"""Clients that are drawn when they are asked: the same rows anywhere, the class mix as said, and no array of them."""

import itertools
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.federation import Federation
from fedimb.data.partitioners.virtual import Virtual
from fedimb.data.prepare import prepare
from fedimb.data.virtual_federation import load_federation
from fedimb.errors import ConfigError, DataError

MANY = 10**8


@pytest.fixture
def virtual(digits):
    return prepare({**digits, "validation": 0.0}, {"name": "virtual", "rows": 12, "spread": 0.5}, MANY, 3)


@settings(max_examples=40, deadline=None)
@given(
    held=st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    rows=st.integers(1, 60),
    spread=st.sampled_from([0.0, 1.0, 3.0]),
    alpha=st.sampled_from([None, 1e-3, 0.3, 100.0]),
    seed=st.integers(0, 2**62),
)
def test_a_client_holds_each_of_its_rows_once_and_no_more_than_there_are(held, rows, spread, alpha, seed):
    edges = np.cumsum([0, *held])
    of_class = [np.arange(a, b) for a, b in itertools.pairwise(edges)]
    draw = Virtual(rows, spread, alpha)
    first, again = (draw.rows_of(of_class, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(first, np.unique(first))
    assert 1 <= len(first) <= edges[-1]
    assert len(first) == draw.size(int(edges[-1]), np.random.default_rng(seed))
    assert first.min() >= 0
    assert first.max() < edges[-1]
    if not spread:
        assert len(first) == min(rows, edges[-1])


def test_sizes_and_class_mixes_have_the_means_that_are_set():
    of_class = [np.arange(0, 6000), np.arange(6000, 9000), np.arange(9000, 10_000)]
    draw = Virtual(rows=20, spread=0.5, alpha=5.0)
    found = [draw.rows_of(of_class, np.random.default_rng(k)) for k in range(2000)]
    sizes = np.array([len(rows) for rows in found])
    shares = np.array([[np.isin(rows, own).mean() for own in of_class] for rows in found])
    assert sizes.mean() == pytest.approx(20, rel=0.03)
    assert np.log(sizes).std() == pytest.approx(0.5, rel=0.08)
    assert shares.mean(axis=0) == pytest.approx([0.6, 0.3, 0.1], abs=0.02)
    # Dirichlet of total 5: variance p (1 - p) / 6, and that of drawing some 20 rows.
    expected = 0.24 / 6 + (0.24 - 0.24 / 6) * (1 / sizes).mean()
    assert shares[:, 0].var() == pytest.approx(expected, rel=0.12)


def test_the_rows_of_a_client_depend_on_seed_and_client_alone(digits, virtual, tmp_path):
    virtual.save(tmp_path)
    loaded, other = load_federation(tmp_path), prepare(digits, {"name": "virtual", "rows": 12, "spread": 0.5}, 50, 3)
    for k in (0, 49, 7):
        rows = virtual.train[k]
        assert np.array_equal(rows, loaded.train[k])
        assert np.array_equal(rows, other.train[k])
        assert len(rows) == virtual.train_sizes[k]
    assert np.array_equal(loaded.train[MANY - 1], pickle.loads(pickle.dumps(virtual)).train[-1])
    assert not np.array_equal(virtual.train[1], prepare(digits, {"name": "virtual", "rows": 12}, MANY, 4).train[1])
    assert loaded.train_sizes[np.array([3, MANY - 1])].tolist() == [len(loaded.train[3]), len(loaded.train[-1])]
    with pytest.raises(IndexError):
        loaded.train[MANY]


def test_no_test_row_is_at_a_client_and_totals_are_those_of_the_rows_drawn_from(digits, virtual):
    whole = prepare({**digits, "validation": 0.0}, {"name": "iid"}, 1, 3)
    drawn = np.unique(np.concatenate([virtual.train[k] for k in range(300)]))
    assert np.isin(drawn, whole.train.rows).all()
    assert not np.isin(drawn, virtual.test).any()
    assert virtual.class_totals.tolist() == whole.class_totals.tolist()
    facts = (virtual.minority, virtual.imbalance_factor, virtual.labelled_rows, virtual.n_holders)
    assert facts == (whole.minority, whole.imbalance_factor, whole.labelled_rows, MANY)
    x, y = virtual.client(5).tensors("train")
    assert len(x) == len(y) == virtual.train_sizes[5]
    assert np.array_equal(y.numpy(), virtual.store.y[virtual.train[5]])


def test_exposure_is_said_of_drawn_clients_with_an_interval(virtual):
    found = virtual.exposure()
    assert found["clients_drawn"].tolist() == [1000]
    held = np.mean([virtual.store.class_counts(virtual.train[k]) > 0 for k in range(5000, 5600)], axis=0)
    inside = (found["holders_low"] - 0.06 <= held) & (held <= found["holders_high"] + 0.06)
    assert inside.all()


def test_every_setting_changes_the_hash_and_a_changed_file_is_refused(digits, virtual, tmp_path):
    def sha(n=MANY, seed=3, **changes):
        return prepare(digits, {"name": "virtual", "rows": 12, "spread": 0.5} | changes, n, seed).sha

    changed = {sha(), sha(MANY - 1), sha(rows=13), sha(spread=0.4), sha(alpha=None), sha(alpha=4.0), sha(seed=4)}
    assert len(changed) == 7
    virtual.save(tmp_path)
    facts = json.loads((tmp_path / "partition.json").read_text())
    assert facts["virtual"] == {"clients": MANY, "seed": 3, "rows": 12, "spread": 0.5, "alpha": 5.0}
    (tmp_path / "partition.json").write_text(json.dumps(facts | {"virtual": facts["virtual"] | {"rows": 13}}))
    with pytest.raises(DataError, match=r"partition\.json was changed"):
        load_federation(tmp_path)


def test_a_figure_of_every_client_is_refused_and_never_that_of_a_part(virtual, tmp_path):
    whole = [
        lambda: virtual.counts,
        lambda: list(virtual.train),
        lambda: np.asarray(virtual.train_sizes),
        lambda: np.flatnonzero(virtual.train_sizes),
        lambda: virtual.train_sizes > 0,
        lambda: virtual.train_sizes.sum(),
        lambda: virtual.train_sizes == 3,
        lambda: sum(virtual.train_sizes),
        lambda: virtual.train.owners(),
        lambda: np.concatenate([*virtual.validation]),
    ]
    for figure in whole:
        with pytest.raises(DataError, match="drawn when they are asked"):
            figure()
    virtual.save(tmp_path)
    with pytest.raises(DataError, match="has virtual clients"):
        Federation.load(tmp_path)


def test_a_hundred_million_clients_cost_what_a_hundred_cost(digits, virtual):
    few = prepare({**digits, "validation": 0.0}, {"name": "virtual", "rows": 12, "spread": 0.5}, 100, 3)

    def spent(federation):
        tracemalloc.start()
        rng = np.random.default_rng(0)
        ids = rng.choice(federation.n_clients, 50, replace=False)
        held = [federation.train[int(k)] for k in ids]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [len(rows) for rows in held] == federation.train_sizes[ids].tolist()
        return peak

    spent(few)
    assert spent(virtual) < spent(few) + 2**18


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, "rows=0: give at least 1"),
        ({"spread": -1.0}, "spread=-1.0: give a number from 0 to 3"),
        ({"alpha": 0.0}, "alpha=0.0: give a finite number of at least 1e-3, or null"),
    ],
)
def test_settings_out_of_range_are_refused(digits, settings, message):
    with pytest.raises(ConfigError, match=message):
        prepare(digits, {"name": "virtual"} | settings, 5, 0)


def test_what_clients_hold_is_counted_at_clients_and_not_in_the_rows_drawn_from(digits):
    """A mix that lands on a class of few rows gets others: the shares of all rows overstate that class."""
    data = {**digits, "validation": 0.0, "long_tail": "exponential", "imbalance_factor": 60}
    found = prepare(data, {"name": "virtual", "rows": 20, "alpha": 0.3}, 2000, 3)
    held = found.drawn_counts.sum(axis=0) / found.drawn_counts.sum()
    every = sum(found.store.class_counts(found.train[k]) for k in range(2000))
    shares = found.class_totals / found.class_totals.sum()
    rarest = np.argmin(shares)
    assert len(found.drawn_counts) == 1000
    assert held == pytest.approx(every / every.sum(), rel=0.5)
    assert held[rarest] < shares[rarest] / 2
