import numpy as np
import pytest

from fedimb.data.partitioners.by_column import ByColumn
from fedimb.errors import ConfigError, DataError

Y = np.zeros(6, np.int64)
SITES = np.array([2, 0, 2, 0, 2, 0])
NAMES = ("Basel", "Bern", "Zug")


def call(n, **columns):
    return [rows.tolist() for rows in ByColumn(**columns)(Y, n, np.random.default_rng(0))]


def test_clients_are_the_sites_by_id_and_a_site_without_rows_is_an_empty_client():
    assert call(3, sites=SITES, site_names=NAMES) == [[1, 3, 5], [], [0, 2, 4]]


def test_clients_are_the_patients_by_id():
    assert call(3, column="patient", patients=np.array([40, 7, 40, 9, 7, 9])) == [[1, 4], [3, 5], [0, 2]]


def test_the_wrong_number_of_clients_names_the_right_one():
    with pytest.raises(ConfigError, match=r"clients.count=10.*there are 3 \(Basel, Bern, Zug\); set clients.count=3"):
        call(10, sites=SITES, site_names=NAMES)
    with pytest.raises(ConfigError, match=r"set clients\.count=2"):
        call(3, column="patient", patients=SITES)


def test_a_source_without_the_column_is_refused():
    with pytest.raises(DataError, match="needs a site column"):
        call(3)
    with pytest.raises(DataError, match="needs a patient column"):
        call(3, column="patient", sites=SITES, site_names=NAMES)


def test_a_patient_at_two_sites_is_refused_not_parted():
    patients = np.array([5, 1, 5, 2, 5, 5])
    with pytest.raises(DataError, match=r"more than one site \(1 of them, first patient 5\)"):
        call(3, sites=SITES, site_names=NAMES, patients=patients)
    assert call(3, sites=SITES, site_names=NAMES, patients=SITES + 1)[0] == [1, 3, 5]


def test_an_unknown_column_is_refused():
    with pytest.raises(ConfigError, match="column='ward'"):
        ByColumn(column="ward")
