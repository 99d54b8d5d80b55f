"""A relative path is looked up in two places, and the refusal names both."""

import pytest

from fedimb.data.paths import find_data
from fedimb.errors import DataError


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The current folder and $FEDIMB_DATA_DIR."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("FEDIMB_DATA_DIR", str(there))
    return here, there


def test_the_current_folder_comes_first(places):
    here, there = places
    (there / "a.csv").touch()
    assert find_data("a.csv") == there / "a.csv"
    (here / "a.csv").touch()
    assert find_data("a.csv") == here / "a.csv"


def test_an_absolute_path_is_taken_as_it_is(places, monkeypatch):
    here, there = places
    assert find_data(there) == there
    monkeypatch.setenv("HOME", str(there))
    assert find_data("~") == there
    with pytest.raises(DataError, match=r"no file or folder .*here/none: check"):
        find_data(here / "none")


def test_both_places_are_named(places, monkeypatch):
    here, there = places
    with pytest.raises(DataError) as caught:
        find_data("none.zip")
    assert f"no 'none.zip' in the current folder ({here}) nor in $FEDIMB_DATA_DIR ({there}): " in str(caught.value)
    monkeypatch.delenv("FEDIMB_DATA_DIR")
    with pytest.raises(DataError, match=r"\$FEDIMB_DATA_DIR is not set"):
        find_data("none.zip")


@pytest.mark.parametrize(("path", "reason"), [(" ", "is empty"), ("a" * 300, "no 'aaa"), ("a\0b", "no 'a")])
def test_what_cannot_be_a_path_is_refused(places, path, reason):
    with pytest.raises(DataError, match=reason):
        find_data(path)
