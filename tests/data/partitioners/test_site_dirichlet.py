import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.partitioners.dirichlet import Dirichlet
from fedimb.data.partitioners.site_dirichlet import SiteDirichlet
from fedimb.data.prepare import prepare
from fedimb.errors import ConfigError, DataError

NAMES = ("Basel", "Bern", "Zug")


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=60), st.integers(1, 4))
def test_a_site_s_rows_stay_with_its_clients_dealt_as_by_dirichlet(pairs, each):
    y, sites = np.array(pairs).T
    lists = SiteDirichlet(0.3, sites, NAMES)(y, 3 * each, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    for k in range(3):
        rows = np.flatnonzero(sites == k)
        expected = Dirichlet(0.3)(y[rows], each, rng) if len(rows) else [rows] * each
        assert [part.tolist() for part in lists[k * each : (k + 1) * each]] == [rows[e].tolist() for e in expected]


def test_one_client_per_site_is_the_site():
    sites = np.array([2, 0, 2, 0, 2, 0])
    lists = SiteDirichlet(0.5, sites, NAMES)(np.zeros(6, np.int64), 3, np.random.default_rng(0))
    assert [rows.tolist() for rows in lists] == [[1, 3, 5], [], [0, 2, 4]]


def test_counts_that_are_no_multiple_and_sources_without_sites_are_refused():
    y = np.zeros(3, np.int64)
    with pytest.raises(ConfigError, match=r"clients\.count=4.*multiple of 3"):
        SiteDirichlet(0.5, np.arange(3), NAMES)(y, 4, np.random.default_rng(0))
    with pytest.raises(DataError, match="needs a site column"):
        SiteDirichlet()(y, 3, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="alpha"):
        SiteDirichlet(0.0)


def test_patients_stay_whole_and_one_at_two_sites_is_refused():
    sites = np.repeat([0, 1, 2], 40)
    patients = np.repeat(np.arange(30), 4)
    y = np.arange(120) % 5
    lists = SiteDirichlet(0.1, sites, NAMES, patients)(y, 9, np.random.default_rng(1))
    held = [set(patients[rows].tolist()) for rows in lists]
    assert sum(map(len, held)) == 30
    with pytest.raises(DataError, match="more than one site"):
        SiteDirichlet(0.1, sites, NAMES, patients % 15)(y, 9, np.random.default_rng(1))


def test_six_clients_of_three_devices_from_the_shipped_configuration():
    data = {
        "source": {"name": "digits_devices", "devices": 3, "strength": 1.0},
        "test": {"name": "balanced", "per_class": 50},
        "long_tail": "exponential", "imbalance_factor": 20, "n_max": 90,
    }  # fmt: skip
    federation = prepare(data, {"name": "site_dirichlet", "alpha": 0.5}, clients=6, seed=0)
    devices = [set(federation.store.sites[rows].tolist()) for rows in federation.train]
    assert devices == [{0}, {0}, {1}, {1}, {2}, {2}]
    assert federation.counts.sum(axis=0).max() == 90
