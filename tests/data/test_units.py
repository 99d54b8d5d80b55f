import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedimb.data.units import group_units, rows_by_client


def test_without_patients_every_row_is_its_own():
    units = group_units(np.array([2, 0, 2]), None)
    assert units.of_row.tolist() == [0, 1, 2]
    assert units.weight.tolist() == [1, 1, 1]
    assert units.label.tolist() == [2, 0, 2]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=1, max_size=40))
def test_a_patient_counts_for_the_class_most_of_their_rows_have(rows):
    y, patients = (np.array(column) for column in zip(*rows, strict=True))
    units = group_units(y, patients)
    for unit, patient in enumerate(np.unique(patients)):
        own = y[patients == patient]
        assert (units.of_row[patients == patient] == unit).all()
        assert units.weight[unit] == len(own)
        assert units.label[unit] == np.bincount(own).argmax()  # argmax takes the lower id of a tie


def test_rows_by_client_keeps_order_and_empty_clients():
    lists = rows_by_client(np.array([0, 1, 0, 2]), np.array([3, 0, 3]), 5)
    assert [rows.tolist() for rows in lists] == [[1], [], [], [0, 2, 3], []]
