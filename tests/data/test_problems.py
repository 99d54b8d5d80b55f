"""Bad rows: all of them named, refused or left out."""

import pytest

from fedimb.data.problems import Problems
from fedimb.errors import ConfigError, DataError


def failing():
    raise DataError("cannot be decoded")


def test_nothing_bad_is_nothing_said():
    problems = Problems()
    assert problems.guard("a.png", lambda: 3) == 3
    assert problems.settle(0) == ()


def test_refuse_names_place_and_reason_and_counts_all():
    problems = Problems()
    for row in range(7):
        problems.add(f"labels.csv row {row + 2}", f"label 'x{row}' is not in the class list")
    with pytest.raises(DataError, match=r"^7 bad rows: labels\.csv row 2: label 'x0'.*row 6: .* \.\.\. .*on_bad=skip"):
        problems.settle(10)


def test_one_reason_for_many_rows_is_said_once():
    problems = Problems()
    for row in range(30):
        problems.add(f"y[{row}]", "label 255")
    problems.add("y[30]", "label 7")
    with pytest.raises(DataError, match=r"^31 bad rows: y\[0\] and 29 more: label 255; y\[30\]: label 7 \(fix them"):
        problems.settle(10)
    assert len(problems.lines) == 31


def test_skip_lists_what_it_left_out():
    problems = Problems("skip")
    assert problems.guard("a.png", failing) is None
    assert problems.settle(1) == ("a.png: cannot be decoded",)


def test_skipping_everything_is_refused():
    problems = Problems("skip")
    problems.guard("a.png", failing)
    with pytest.raises(DataError, match=r"1 bad row and no good row: a\.png"):
        problems.settle(0)


def test_another_rule_is_refused():
    with pytest.raises(ConfigError, match="refuse or skip"):
        Problems("ignore")
