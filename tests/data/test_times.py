"""Times of rows: exact, or refused where a text can be read in two ways."""

from datetime import datetime

import numpy as np
import pytest

from fedimb.data.times import TimeColumn, as_time, as_times, check_time_format, shown_time
from fedimb.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("text", "form", "time"),
    [
        ("2024-03-04", None, datetime(2024, 3, 4)),
        (" 2024-03-04T10:30 ", None, datetime(2024, 3, 4, 10, 30)),
        ("2024-03-04 10:30:05,25", None, datetime(2024, 3, 4, 10, 30, 5, 250000)),
        ("2024-03-04T10:30:00+02:00", None, datetime(2024, 3, 4, 8, 30)),
        ("2024-03-04T10:30Z", None, datetime(2024, 3, 4, 10, 30)),
        ("03/04/2024", "%d/%m/%Y", datetime(2024, 4, 3)),
        ("2024", "%Y", datetime(2024, 1, 1)),
        ("1700000000123456789", "number", 1700000000123456789),
        ("-3", "number", -3),
    ],
)
def test_times_are_read_as_written(text, form, time):
    assert as_time(text, form)[0] == time


@pytest.mark.parametrize(
    ("text", "form", "says"),
    [
        ("03/04/2024", None, "is not an ISO date .* give time_format, such as '%d/%m/%Y'$"),
        ("20240304", None, "or 'number'"),
        ("2024", None, "or 'number'"),
        ("2024-13-01", None, "is not an ISO date"),
        ("24-03-04", None, "is not an ISO date"),
        ("2024-W10-1", None, "is not an ISO date"),
        ("31/02/2024", "%d/%m/%Y", "not a time of the format"),
        ("1.5", "number", "not a whole number"),
        ("99999999999999999999", "number", "not a whole number"),
        ("", None, "the time is missing"),
    ],
)
def test_other_texts_are_refused(text, form, says):
    with pytest.raises(DataError, match=says) as refused:
        TimeColumn(form).read(text)
    assert "\n" not in str(refused.value)


def test_offsets_are_given_by_all_rows_or_by_none():
    column = TimeColumn()
    column.read("2024-03-04T10:30Z")
    with pytest.raises(DataError, match="earlier rows give an offset from UTC and this row none"):
        column.read("2024-03-04T10:30")


@pytest.mark.parametrize(
    ("column", "form", "says"),
    [
        (None, "%Y-%m", "goes with time_column"),
        ("t", "%d/%m/%y", "does not give a year of four digits"),
        ("t", "%H:%M", "does not give a year"),
        ("t", "%Y %H", "does not give a year"),
    ],
)
def test_formats_without_a_whole_date_are_refused(column, form, says):
    with pytest.raises(ConfigError, match=says):
        check_time_format("tabular_csv", column, form)


@pytest.mark.parametrize("form", [None, "%d/%m/%Y", "%Y", "%Y-%j", "%Y%m%d %H:%M", "number"])
def test_formats_that_order_rows_are_taken(form):
    check_time_format("tabular_csv", "t", form)


def test_arrays_keep_microseconds_and_numbers_exactly():
    assert as_times([datetime(2024, 3, 4, 0, 0, 0, 1)]).astype(str).tolist() == ["2024-03-04T00:00:00.000001"]
    assert as_times([2**62 + 1]).tolist() == [2**62 + 1]
    assert shown_time(np.datetime64("2024-03-04", "us")) == "2024-03-04"
    assert shown_time(np.int64(7)) == "7"
