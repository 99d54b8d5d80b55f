"""`prepare` cuts a source into a test set and clients: every row once, every choice from its own stream."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fedimb.data.arrays import SourceData
from fedimb.data.federation import Federation
from fedimb.data.prepare import prepare
from fedimb.errors import ConfigError, DataError
from fedimb.registry import register

YARDSTICK = [110, 71, 46, 29, 19, 12, 8, 5, 3, 2]


def test_the_yardstick(digits, dirichlet):
    made = [prepare(digits, dirichlet, clients=10, seed=s) for s in range(4)]
    for one in made:
        total = one.counts.sum(axis=0)
        assert sorted(total.tolist(), reverse=True) == YARDSTICK
        assert np.bincount(one.store.y[one.test]).tolist() == [60] * 10
        assert sorted(total[list(one.minority)].tolist()) == [2, 3, 5]
        assert one.imbalance_factor == 55.0
        assert (one.n_clients, one.n_classes, one.input_shape) == (10, 10, (1, 8, 8))
        assert all(len(rows) == 0 for rows in one.validation)
    assert len({one.minority for one in made}) > 1
    assert len({one.sha for one in made}) == 4


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    clients=st.integers(1, 400),
    alpha=st.sampled_from([1e-3, 0.1, 0.5, 100.0]),
    validation=st.sampled_from([0.0, 0.2]),
)
def test_every_row_serves_once(seed, clients, alpha, validation):
    data = {
        "source": {"name": "digits"},
        "test": {"name": "balanced", "per_class": 60},
        "validation": validation,
        "long_tail": "exponential",
        "imbalance_factor": 50,
        "n_max": 110,
    }
    try:
        one = prepare(data, {"name": "dirichlet", "alpha": alpha}, clients, seed)
    except DataError:  # hundreds of clients hold a row or two of a class each
        if not validation:
            raise
        reject()
    rows = np.concatenate([*one.train, *one.validation, one.test])
    assert len(np.unique(rows)) == len(rows) == sum(YARDSTICK) + 600
    for k in range(clients):
        both = np.concatenate([one.train[k], one.validation[k]])
        assert np.bincount(one.store.y[both], minlength=10).tolist() == one.counts[k].tolist()
    again = prepare(data, {"name": "dirichlet", "alpha": alpha}, clients, seed)
    assert again.sha == one.sha


def test_each_choice_has_its_own_stream(digits, dirichlet):
    base, other = (prepare(digits, {**dirichlet, "alpha": a}, 10, 0) for a in (0.5, 5.0))
    assert np.array_equal(base.test, other.test)
    assert np.array_equal(np.sort(np.concatenate(base.train)), np.sort(np.concatenate(other.train)))
    assert base.sha != other.sha
    held = prepare({**digits, "validation": 0.3}, dirichlet, 10, 0)
    assert np.array_equal(held.counts, base.counts)
    fixed = prepare({**digits, "class_order": "fixed"}, dirichlet, 10, 0)
    assert fixed.counts.sum(axis=0).tolist() == YARDSTICK


def test_the_sha_is_the_same_on_every_machine(digits, dirichlet):
    # Golden: changes only when a seed stream or the cutting changes, which changes every result.
    assert prepare(digits, dirichlet, 10, 0).sha == GOLDEN


GOLDEN = "bbcdc1011d56772b7aae21cf41742414b34b589dadf93960190ad1555e4f019b"


def test_client_views_hold_the_clients_rows(federation):
    k = int(federation.counts.sum(axis=1).argmax())
    assert np.array_equal(federation.client(k).rows("validation"), federation.validation[k])
    assert np.array_equal(federation.client(k).rows("train"), federation.train[k])


class Cohort:
    """60 patients of 5 rows at 3 sites; class 2 has no rows."""

    def fingerprint(self) -> str:
        return "cohort"

    def load(self) -> SourceData:
        n = 300
        return SourceData(
            np.zeros((n, 2), np.float32),
            (np.arange(n) // 7) % 2,
            ("a", "b", "c"),
            patients=np.arange(n) // 5 + 1000,
            sites=np.arange(n) % 3,
            site_names=("p", "q", "r"),
        )


COHORT = {"source": {"name": "cohort"}, "test": {"name": "stratified", "fraction": 0.2}, "minority": [1]}


@pytest.fixture
def cohort(toys):
    register("source", "cohort")(Cohort)


def test_a_mismatched_view_is_a_second_draw_of_the_long_tail(digits, dirichlet):
    digits["n_max"], digits["imbalance_factor"] = 60, 20
    federation = prepare(digits, dirichlet, 4, 0)
    y, pairs = np.asarray(federation.store.y), []
    for k in range(4):
        data = federation.client(k)
        pairs.append(np.stack([data.rows("train"), data.rows("mismatched")]))
    own, shown = np.concatenate(pairs, axis=1)
    np.testing.assert_array_equal(y[own], y[shown])
    assert len(np.unique(shown)) == len(shown)
    assert not np.isin(shown, federation.test).any()
    assert (own == shown).mean() < 0.1
    tail = np.isin(y[own], federation.minority)
    assert np.isin(shown[tail], own[tail]).mean() < 0.3  # the rare class's pictures are nearly all others
    np.testing.assert_array_equal(prepare(digits, dirichlet, 4, 0).client(2).rows("mismatched"), pairs[2][1])


def test_patients_stay_whole_through_every_cut(cohort, caplog):
    one = prepare({**COHORT, "validation": 0.3}, {"name": "dirichlet"}, 4, 0)
    parts = [*one.train, *one.validation, one.test]
    assert sum(map(len, parts)) == 300
    patients = [set(one.store.patients[rows]) for rows in parts]
    assert sum(map(len, patients)) == 60
    assert any(map(len, one.validation))
    assert one.imbalance_factor == float("inf")
    assert one.minority == (1,)  # c, in which nobody trains, is not one
    assert "no training rows of class c" in caplog.text
    rows = one.counts.sum(axis=0)
    assert (
        one.minority_line()
        == f"minority: b ({rows[1]}) of 3 classes (training rows); no training rows: c; no test rows: c"
    )


@pytest.mark.parametrize(
    ("share", "clients", "said"),
    [(0.3, 60, "holds out no row of any of the 60 clients: the rows of patients stay on one side"), (0.3, 4, "")],
)
def test_a_share_to_validate_on_that_holds_out_no_row_is_refused(cohort, share, clients, said):
    data = {**COHORT, "test": {"name": "none"}, "validation": share}
    if not said:
        assert sum(map(len, prepare(data, {"name": "iid"}, clients, 0).validation))
        return
    with pytest.raises(DataError, match=said):
        prepare(data, {"name": "iid"}, clients, 0)


def test_a_share_below_half_a_row_of_every_class_is_refused(digits, dirichlet):
    with pytest.raises(DataError, match="the share of the others is below half a row; raise it"):
        prepare({**digits, "validation": 0.001}, dirichlet, 4, 0)


def test_absent_classes_are_null_in_the_file(cohort, tmp_path):
    prepare(COHORT, {"name": "iid"}, 4, 0).save(tmp_path)
    facts = json.loads((tmp_path / "partition.json").read_text())
    assert (facts["imbalance_factor"], facts["exposure"]["n_eff"][2]) == (None, None)
    assert Federation.load(tmp_path).imbalance_factor == float("inf")


class ToySites:
    def __init__(self, sites=None) -> None:
        self.sites = sites

    def __call__(self, y, n_clients, rng):
        return [np.flatnonzero(self.sites == k) for k in range(n_clients)]


def toy_broken(times: int = 2):
    return lambda y, n, rng: [np.arange(len(y) - 1)] * times


def test_a_partitioner_is_given_the_columns_it_names_and_checked(cohort):
    register("partition", "toy_sites")(ToySites)
    register("partition", "toy_broken")(toy_broken)
    data = {"source": {"name": "synthetic_table", "rows": 300}, "test": COHORT["test"]}
    with pytest.raises(DataError, match="'toy_broken' uses 239 rows twice and leaves out 1 of 240"):
        prepare(data, {"name": "toy_broken"}, 2, 0)
    with pytest.raises(DataError, match="made 3 clients instead of 2"):
        prepare(data, {"name": "toy_broken", "times": 3}, 2, 0)
    with pytest.raises(DataError, match="'toy_sites' splits patients"):
        prepare(COHORT, {"name": "toy_sites"}, 3, 0)


def test_minority_placement_moves_the_minority_alone(digits, dirichlet):
    base = prepare(digits, dirichlet, 10, 0)
    rare = list(base.minority)
    rest = [c for c in range(10) if c not in rare]
    shas = {base.sha}
    for rule, clients, holders in (("spread", 0.2, 5), ("concentrated", 1, 1), ("absent", 9, 1)):
        one = prepare(digits, {**dirichlet, "minority_placement": rule, "minority_clients": clients}, 10, 0)
        assert one.minority == base.minority
        assert np.array_equal(one.counts[:, rest], base.counts[:, rest])
        assert one.counts.sum(axis=0).tolist() == base.counts.sum(axis=0).tolist()
        assert (one.counts[:, rare] > 0).sum(axis=0).max() == holders  # the largest minority class has 5 rows
        shas.add(one.sha)
    assert len(shas) >= 3
    assert prepare(digits, {**dirichlet, "minority_placement": None, "minority_clients": 3}, 10, 0).sha == base.sha


def test_clients_by_site_take_the_sources_sites(toys):
    class Wards(Cohort):
        def fingerprint(self) -> str:
            return "wards"

        def load(self) -> SourceData:
            return replace(super().load(), sites=np.arange(300) // 150, site_names=("p", "q"))

    register("source", "wards")(Wards)
    data = {**COHORT, "source": {"name": "wards"}}
    one = prepare(data, {"name": "by_column"}, 2, 0)
    assert [set(one.store.sites[rows]) for rows in one.train] == [{0}, {1}]
    with pytest.raises(ConfigError, match=r"there are 2 \(p, q\); set clients.count=2"):
        prepare(data, {"name": "by_column"}, 3, 0)


@pytest.mark.parametrize(
    ("partition", "clients", "says"),
    [
        ({"name": "dirichlett"}, 10, "Did you mean 'dirichlet'"),
        ({"name": "dirichlet", "alfa": 1}, 10, "Did you mean 'alpha'"),
        ({"name": "dirichlet", "alpha": "x"}, 10, "alpha='x'"),
        ({"name": "dirichlet", "patients": [1]}, 10, "'patients'"),
        ({"name": "by_column", "sites": [1]}, 10, "'sites' is passed by fedimb"),
        ({"name": "iid", "minority_placement": "spred"}, 10, "Did you mean 'spread'"),
        ({"name": "iid", "minority_placement": "absent", "minority_clients": 10}, 10, "at most 9 of 10"),
        ({"name": "iid"}, 0, "clients.count=0"),
    ],
)
def test_wrong_partitions_are_refused(digits, partition, clients, says):
    with pytest.raises(ConfigError, match=says):
        prepare(digits, partition, clients, 0)
