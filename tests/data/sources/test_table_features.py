from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.sources.table_features import FeatureColumns
from fedimb.errors import DataError

FIELD = st.floats(width=32).map(str) | st.sampled_from(
    ["", "?", "NA", "1_0", " ", "x", "1e39", "-1e39", "7", "3.4028235e38"]
)


def taken(columns, row):
    try:
        columns.add(row)
    except DataError as error:
        return str(error)
    return str(columns.table().x.tolist())


@settings(max_examples=25, deadline=None)
@given(row=st.lists(FIELD, min_size=2, max_size=2))
def test_a_row_in_one_step_is_the_row_cell_by_cell(row):
    whole = FeatureColumns(["a", "b"], {}, {}, False)
    cell_by_cell = FeatureColumns(["a", "b"], {}, {"a": ["never"]}, False)
    assert taken(whole, row) == taken(cell_by_cell, row)


def test_a_row_that_is_refused_leaves_nothing_behind():
    columns = FeatureColumns(["a", "b"], {}, {}, True)
    columns.add(["1", "2"])
    assert "column 'b': 'x' is not a number" in taken(columns, ["3", "x"])
    columns.add(["4", ""])
    table = columns.table()
    assert str(table.x.tolist()) == "[[1.0, 2.0, 0.0], [4.0, nan, 1.0]]"
    assert (table.names, table.scaled.tolist()) == (("a", "b", "b missing"), [True, True, False])
