"""New rows that are not like the training rows are refused: shape, type, range, units."""

import json

import numpy as np
import pytest

from fedimb.data.inputs import InputCheck, Inputs, TableColumns, has_colour, value_range
from fedimb.data.scaling import Scaling
from fedimb.errors import DataError

COLUMNS = TableColumns(("age", "sex", "dose"), {"sex": ("f", "m")}, ("dose",), {"dose": (0, "x")})
PICTURES = Inputs((1, 2, 2), "float32", 0.0, 1.0)
TABLE = Inputs((2,), "float32", columns=TableColumns(("age", "dose")))
SCALING = Scaling(np.array([60, 5000], np.float32), np.array([9, 500], np.float32))


def rows(n=40, seed=0, mean=(60, 5000), deviation=(9, 500)):
    return np.random.default_rng(seed).normal(mean, deviation, (n, 2)).astype(np.float32)


def test_facts_survive_json():
    inputs = Inputs((5,), "float32", None, None, COLUMNS)
    assert Inputs.from_facts(json.loads(json.dumps(inputs.facts()))) == inputs
    assert COLUMNS.inputs == ("age", "sex=f", "sex=m", "dose", "dose missing")


def test_the_range_is_that_of_the_given_rows():
    x = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert value_range(x, [np.array([2, 3]), np.array([5])]) == (2.0, 5.0)
    assert value_range(x, [np.array([], np.int64)]) == (None, None)


@pytest.mark.parametrize(
    ("x", "line"),
    [
        (np.zeros((1, 1, 2, 3), np.float32), r"a row of the data is \[1, 2, 3\], the run's are \[1, 2, 2\]"),
        (np.zeros((1, 1, 2, 2), np.uint8), "new holds uint8 values, the run was trained on float32"),
        (np.full((1, 1, 2, 2), 255, np.float32), "values from 255 to 255, the run was trained on 0 to 1"),
        (np.full((1, 1, 2, 2), np.nan, np.float32), "new holds NaN or infinite values"),
        (np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 1, 2, 2), "values from -1 to 1"),
    ],
)
def test_pictures_of_another_kind_are_refused(x, line):
    with pytest.raises(DataError, match=line):
        InputCheck(PICTURES, "new").add(x)


def test_grey_levels_of_0_to_1_are_refused_where_they_were_0_to_255_and_a_black_picture_is_not():
    wide = Inputs((1, 2, 2), "float32", 0.0, 255.0)
    check = InputCheck(wide, "new")
    check.add(np.random.default_rng(0).random((3, 1, 2, 2)).astype(np.float32))
    with pytest.raises(DataError, match="trained on 0 to 255: scale them as the training data were"):
        check.finish()
    black = InputCheck(wide, "new")
    black.add(np.zeros((1, 1, 2, 2), np.float32))
    assert black.finish() == []
    black.add(np.zeros((9, 1, 2, 2), np.float32))
    assert black.finish() == ["all values are 0: is this the file that was meant?"]


def test_grey_pictures_are_noted_where_the_run_had_colours():
    grey = np.repeat(np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2), 3, axis=1)
    coloured = grey + np.array([0, 1, 2], np.uint8).reshape(3, 1, 1)
    both = np.concatenate([grey, coloured])
    assert has_colour(both, np.array([0, 1])) is False
    assert has_colour(both, np.array([0, 3])) is True
    assert has_colour(both[:, :1], np.array([0])) is None

    def said(colour, x):
        check = InputCheck(Inputs((3, 2, 2), "uint8", 0.0, 255.0, colour=colour), "new")
        check.add(x)
        return [line for line in check.finish() if "grey" in line]

    assert said(True, grey)
    assert not said(True, both)
    assert not said(False, grey)
    assert not said(None, grey)


def test_a_few_values_outside_are_said_and_not_refused():
    x = np.full((100, 1, 2, 2), 0.5, np.float32)
    x[0, 0, 0, 0] = 3
    check = InputCheck(PICTURES, "new")
    check.add(x)
    assert check.finish() == ["1 of 400 values are far outside the training range 0 to 1 (0.5 to 3)"]


@pytest.mark.parametrize(
    ("x", "line"),
    [
        (rows(mean=(0, 0), deviation=(1, 1)), "looks scaled already"),
        (rows(mean=(60, 5e6), deviation=(9, 5e5)), "column 'dose' has mean 5.*e.06, in training 5000"),
        (rows(mean=(180, 9000)), "2 of 2 columns are more than 6 deviations"),
    ],
)
def test_a_table_in_other_units_is_refused(x, line):
    check = InputCheck(TABLE, "new.csv", SCALING)
    check.add(x)
    with pytest.raises(DataError, match=line):
        check.finish()


def test_a_table_may_have_gaps_and_no_infinite_values():
    x = rows()
    x[0, 0] = np.nan
    InputCheck(TABLE, "new.csv", SCALING).add(x)
    x[0, 0] = np.inf
    with pytest.raises(DataError, match="holds NaN or infinite values"):
        InputCheck(TABLE, "new.csv", SCALING).add(x)


def test_other_patients_in_the_same_units_are_not_refused():
    for mean, warned in (((60, 5000), []), ((72, 5600), []), ((125, 5000), ["age"])):
        check = InputCheck(TABLE, "new.csv", SCALING)
        for part in np.array_split(rows(mean=mean), 3):
            check.add(part)
        found = check.finish()
        assert [note.split("'")[1] for note in found] == warned
    flag = InputCheck(Inputs((1,), "float32"), "new", Scaling(np.array([0.002], "f4"), np.array([0.045], "f4")))
    flag.add(np.ones((50, 1), np.float32))  # everybody has what few had
    assert "check its unit" in flag.finish()[0]


@pytest.mark.parametrize("factor", [1 / 38.67, 0.1])
def test_one_column_in_smaller_units_is_said(factor):
    """Cholesterol in mmol/l where it was mg/dl: its mean is only 5 deviations off, but it hardly varies."""
    scaling = Scaling(np.array([60, 200], np.float32), np.array([9, 40], np.float32))
    x = rows(mean=(60, 200), deviation=(9, 40))
    x[:, 1] *= factor
    check = InputCheck(TABLE, "new.csv", scaling)
    check.add(x)
    (note,) = check.finish()
    assert note.startswith("column 'dose' has mean")
    assert note.endswith("check its unit")


def test_a_single_value_no_patient_has_is_said_in_a_file_of_any_length():
    for n in (1, 40):
        check = InputCheck(TABLE, "new.csv", SCALING)
        for part in (rows(n, 1), np.array([[-99, np.nan], [-999, 5000]], np.float32), rows(n, 2)):
            check.add(part)
        found = [note for note in check.finish() if "such as -999" in note]
        assert found[0].startswith("column 'age': 2 values more than 10 deviations from the training mean")
    near = InputCheck(TABLE, "new.csv", Scaling(np.array([60, 5000], np.float32), np.array([9, 1], np.float32)))
    near.add(np.array([[60, 5020]], np.float32))
    assert "such as 5020 " in near.finish()[1]
    usual = InputCheck(TABLE, "new.csv", SCALING)
    usual.add(rows(1000))
    assert usual.finish() == []
