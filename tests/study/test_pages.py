"""Filled pages: what a sentence says in words is checked, and lines of cells that were not made anew stay."""

from pathlib import Path

import pytest

from fedimb.study.pages import fill, merge_lines, read_rows

FIGURES = {"rules below": "7", "gain of lda": "+.012", "loss": "-.200", "bar": "lda", "said": "+.012 (-.003 to +.027)"}
CELL = ("data_set", "setting")


@pytest.mark.parametrize(
    "check",
    ["rules below = 7", "gain of lda > 0", "loss < gain of lda", "bar = lda", "gain of lda = .012", "1 < rules below"],
)
def test_a_check_that_holds_prints_nothing(check):
    assert fill(f"All {{rules below}}{{check: {check}}}.", FIGURES.__getitem__) == "All 7."


@pytest.mark.parametrize("check", ["rules below = 6", "gain of lda > .5", "gain of lda < loss", "bar = ncm", "0 > 0"])
def test_a_check_that_does_not_hold_refuses_the_page(check):
    with pytest.raises(ValueError, match="the page says"):
        fill(f"All{{check: {check}}}.", FIGURES.__getitem__)


@pytest.mark.parametrize(("check", "message"), [("bar", "give FIRST ="), ("said < 1", "are not two numbers")])
def test_a_check_that_cannot_be_read_is_refused(check, message):
    with pytest.raises(ValueError, match=message):
        fill(f"{{check: {check}}}", FIGURES.__getitem__)
    with pytest.raises(KeyError):
        fill("{check: nobody > 0}", FIGURES.__getitem__)


def lines(data_set: str, setting: str, *values: float) -> list[dict[str, object]]:
    return [{"data_set": data_set, "setting": setting, "seed": i, "recall": v} for i, v in enumerate(values)]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Two cells of two seeds."""
    path = tmp_path / "heads.csv"
    merge_lines(path, [*lines("b", "skewed", 0.5, 0.25), *lines("a", "skewed", 1.0, 0.75)], CELL)
    return path


def test_lines_of_other_cells_are_kept_and_those_of_the_same_are_replaced(written):
    merge_lines(written, [*lines("a", "even", 0.125, 0.0), *lines("b", "skewed", 0.5, 0.375)], CELL)
    found = [(row["data_set"], row["setting"], row["seed"], float(row["recall"])) for row in read_rows(written)]
    assert found == [
        ("a", "even", "0", 0.125),
        ("a", "even", "1", 0.0),
        ("a", "skewed", "0", 1.0),
        ("a", "skewed", "1", 0.75),
        ("b", "skewed", "0", 0.5),
        ("b", "skewed", "1", 0.375),
    ]


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ([], "nothing was found"),
        (lines("a", "skewed", 1.0), "1 lines of a/skewed for 2"),
        ([{"data_set": "a", "setting": "even", "score": 1.0}], "has columns data_set, setting, seed, recall"),
    ],
)
def test_a_cell_is_never_replaced_by_a_part_of_it(written, new, message):
    before = written.read_text()
    with pytest.raises(ValueError, match=message):
        merge_lines(written, new, CELL)
    assert written.read_text() == before
