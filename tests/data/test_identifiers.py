"""One equality of identifiers: exact, per value, whatever type or spelling they come in."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.identifiers import Names, identifier, in_order, look_alikes, number_array, number_of_each
from fedimb.errors import DataError

WHOLE = st.integers(-(10**25), 10**25) | st.integers(2**53 - 3, 2**53 + 3) | st.integers(0, 9)
SPELLED = st.tuples(WHOLE, st.sampled_from(["{}", " {} ", "{}.0", "{}.000", "\t{}.0"])).map(
    lambda pair: pair[1].format(pair[0])
)
TEXT = st.text(st.sampled_from("01P.eE+-_ pé"), min_size=1, max_size=5)


def exactly(text):
    """The equality of the docs, said otherwise: by parts, without a regular expression or a float."""
    bare = text.strip()
    sign, digits = (bare[0], bare[1:]) if bare[:1] in ("+", "-") and bare else ("", bare)
    head, dot, zeros = digits.partition(".")
    ascii_digits = head.isascii() and head.isdigit() and (head == "0" or head[0] != "0")
    if ascii_digits and (not dot or (zeros and set(zeros) == {"0"})):
        return int(head) * (-1 if sign == "-" else 1)
    return text


@given(SPELLED | TEXT, SPELLED | TEXT)
@settings(max_examples=150, deadline=None)
def test_two_spellings_are_one_identifier_if_and_only_if_the_rule_says_so(a, b):
    assert (identifier(a) == identifier(b)) == (exactly(a) == exactly(b))


@given(WHOLE)
@settings(max_examples=30, deadline=None)
def test_every_type_of_a_whole_number_is_the_same(n):
    assert {identifier(n), identifier(f"{n}"), identifier(f" {n}.0"), identifier(str(n).encode())} == {str(n)}
    if abs(n) < 2**53:
        assert identifier(float(n)) == str(n)
    elif float(n) == n:
        with pytest.raises(DataError, match=r"from 2\^53 on are rounded"):
            identifier(float(n))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("0012", "12"),
        ("P1", "p1"),
        ("1E2", "100"),
        ("yes", "Yes"),
        (unicodedata.normalize("NFC", "Zoé"), unicodedata.normalize("NFD", "Zoé")),
        ("1.50", "1.5"),
        ("1_000", "1000"),
        ("\uff19", "9"),
        ("P 1", "P1"),
    ],
)
def test_what_looks_alike_is_different_and_reported(a, b):
    assert identifier(a) != identifier(b)
    if a != "1_000":
        assert look_alikes([a, b, a, "other"]) == [(a, b)]


@given(st.lists(WHOLE, min_size=2, max_size=6, unique=True))
@settings(max_examples=30, deadline=None)
def test_different_numbers_neither_look_alike_nor_sort_by_rounded_value(numbers):
    names = [str(n) for n in numbers]
    assert look_alikes(names) == []
    assert in_order(names) == [str(n) for n in sorted(numbers)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2.0**53, -(2.0**60), np.float32(2**24), b"\xff"])
def test_what_stands_for_no_identifier_is_refused(value):
    with pytest.raises(DataError):
        identifier(value)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, "U", "S"])
def test_arrays_are_exact(dtype):
    near = [1234567890123456789, 1234567890123456790, 1234567890123456789, 3]
    ids, names = number_array(np.array(near).astype(dtype))
    assert [names[i] for i in ids] == list(map(str, near))


def test_spellings_share_a_number_and_the_first_names_it():
    ids, names = number_array(np.array(["P1", "100.0", "100", "p1"]))
    assert ids[1] == ids[2]
    assert sorted(names) == ["100.0", "P1", "p1"]
    ids, names = number_of_each(["7.0", "b", "7", "07"])
    assert [names[i] for i in ids] == ["7.0", "b", "7.0", "07"]
    assert number_array(np.array([5.0, 2.0, 5.0]))[1] == ("2", "5")


def test_names_are_found_in_every_spelling():
    names = Names(["b", "1", "01"])
    assert (names.index("1.0"), names.name(1), names.index("01"), names.index("B")) == (1, "1", 2, None)
    assert "2" not in names
