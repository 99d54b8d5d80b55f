import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedimb.annotation.items import is_id
from fedimb.annotation.tables import csv_bytes, read_table, safe_cell, shown_cell, without_apostrophe
from fedimb.errors import DataError

WANTED = (("item", "id"), ("label",))


def table(tmp_path, data):
    path = tmp_path / "anna.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_table(path, WANTED)


def cells(lines):
    return [(line.number, line.cells["id"], line.cells["label"]) for line in lines]


EXPECTED = [(2, "w-00001", "a; b, c"), (3, "w-00002", 'says "no"')]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_what_spreadsheets_save_is_read(tmp_path, separator, end, encoding):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_MINIMAL)
    writer.writerows([["id", "höhe", "label"], ["w-00001", "ü", "a; b, c"], ["w-00002", "", 'says "no"']])
    lines, problems = table(tmp_path, text.getvalue().encode(encoding))
    assert cells(lines) == EXPECTED
    assert lines[0].cells["höhe"] == "ü"
    assert problems == []


def test_all_quoted_and_a_sep_line_as_excel_writes_it(tmp_path):
    lines, _ = table(tmp_path, '\ufeffsep=;\r\n"ID";"Label"\r\n"w-00001";"a"\r\n')
    assert cells(lines) == [(3, "w-00001", "a")]


def test_line_numbers_count_lines_of_the_file(tmp_path):
    text = 'id,comment,label\n\nw-00001,"two\nlines",a\n,,\nw-00002,,b\n'
    lines, _ = table(tmp_path, text)
    assert cells(lines) == [(3, "w-00001", "a"), (6, "w-00002", "b")]


def test_short_lines_are_padded_and_long_ones_told(tmp_path):
    lines, problems = table(tmp_path, "id,label,comment\nw-00001,a\nw-00002,b,c,,\nw-00003,a,b,c\n")
    assert cells(lines) == [(2, "w-00001", "a"), (3, "w-00002", "b")]
    assert len(problems) == 1
    assert problems[0].startswith("anna.csv line 4: 4 cells below 3 columns")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "line 1: the file is empty"),
        (b"\xef\xbb\xbf\r\n\r\n", "line 1: the file is empty"),
        (b"PK\x03\x04rest", "save as, CSV"),
        (b"\xd0\xcf\x11\xe0rest", "save as, CSV"),
        (b"a\0b", "not a text file"),
        (b"name,label\nx,y", "line 1: no column 'id' .found: name, label"),
        (b"id,class\nx,y", "no column 'label'"),
        (b"id,label,LABEL\nx,y,z", "'label' occurs twice"),
        (b"id,label\nw-00001," + b"x" * 200_000, "line 2: not readable as CSV"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path, data, says):
    with pytest.raises(DataError, match=f"anna.csv.*{says}"):
        table(tmp_path, data)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "none.csv", WANTED)


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x","y")', "+ve", "-ve", "@SUM(A1)", "\tx", " =1", "\uff1d1"])
def test_a_cell_that_is_a_formula_gets_an_apostrophe_and_comes_back(text):
    assert safe_cell(text) == f"'{text}"
    assert without_apostrophe(safe_cell(text)) == text


@given(st.text())
def test_every_cell_survives_and_none_is_a_formula(text):
    safe = safe_cell(text)
    assert without_apostrophe(safe) == text
    assert not re.match(r" *[=+\-@\t\r\n]", safe)


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=("Cs", "Cc"))), st.sampled_from(["a", 'b";,'])), max_size=5
    )
)
def test_what_is_written_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    for separator in ",;":
        path.write_bytes(
            csv_bytes([("id", "note", "label"), *((str(i), *row) for i, row in enumerate(rows))], separator)
        )
        lines, problems = read_table(path, WANTED)
        assert problems == []
        assert [(one.cells["note"], one.cells["label"]) for one in lines] == [(a.strip(), b) for a, b in rows]


def test_csv_is_written_for_excel():
    assert csv_bytes([["id", "ä"], ["w-00001", "a,b"]]) == b'\xef\xbb\xbfid,\xc3\xa4\r\nw-00001,"a,b"\r\n'


def test_messages_show_no_control_characters():
    assert shown_cell("a\x1b[31m\n b") == "a?[31m b"
    assert shown_cell("x" * 50) == "x" * 40 + "..."


def test_ids_are_no_numbers_dates_or_formulas_to_a_spreadsheet():
    pandas = pytest.importorskip("pandas")
    ids = [f"w-{n:05d}" for n in (1, 42, 1225, 99999, 100000)]
    assert all(is_id(one) for one in ids)
    read = pandas.read_csv(io.StringIO("id\n" + "\n".join(ids)))
    assert read["id"].tolist() == ids
    assert pandas.to_numeric(read["id"], errors="coerce").isna().all()
    assert all(safe_cell(one) == one for one in ids)
    # What Excel and LibreOffice turn into dates are digits, or a month's name, around a separator.
    assert not any(re.search(r"\d[-/.]\d|(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)", one) for one in ids)
