"""Numbers as files write them."""

import pytest

from fedimb.data.sources.table_numbers import NumberFormat
from fedimb.errors import ConfigError


@pytest.mark.parametrize(
    ("signs", "text", "value"),
    [
        ((",", "."), "7.111", 7111.0),
        ((",", "."), "769", 769.0),
        ((",", "."), "-1.234.567,25", -1234567.25),
        ((",", "."), "2,27", 2.27),
        ((",", "."), ",12", 0.12),
        ((",", "."), "7.11", None),
        ((",", "."), "1234.567", None),
        ((",", None), "7.111", None),
        ((",", None), "2,90", 2.9),
        ((",", " "), "12 345,5", 12345.5),
        ((".", ","), "1,234.5", 1234.5),
        ((".", ","), "1,23", None),
        ((".", "'"), "1'234", 1234.0),
        ((".", None), "1,234", None),
        ((".", None), "1_000", None),
    ],
)
def test_numbers_by_their_signs(signs, text, value):
    assert NumberFormat(*signs)(text) == value
    assert NumberFormat(*signs).normal(text) == text or float(NumberFormat(*signs).normal(text)) == value


@pytest.mark.parametrize("signs", [(";", None), (".", "."), (".", "x"), (",", ",")])
def test_other_signs_are_refused(signs):
    with pytest.raises(ConfigError, match="give"):
        NumberFormat(*signs)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2,27", "data.source.decimal=\"','\""),
        ("1.234,5", "data.source.decimal=\"','\" data.source.thousands=\"'.'\""),
        ("1,234,567.5", "data.source.decimal=\"'.'\" data.source.thousands=\"','\""),
        ("red", ""),
    ],
)
def test_a_number_in_another_format_is_recognised(text, hint):
    assert hint in (given := NumberFormat().hint(text))
    assert bool(hint) == bool(given)
