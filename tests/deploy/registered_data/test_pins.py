"""Pins: a run keeps its version, and a site's decision after a withdrawal is not undone."""

from pathlib import Path

import pytest

from fedimb.deploy.registered_data.datasets import register_data
from fedimb.deploy.registered_data.pins import Pin, apply_decision, pin_run, pinned_version, read_pins
from fedimb.errors import ConfigError, DataError

ROWS = ["1,50,ill", "2,60,well"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "heads.csv", ROWS)


def write(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(["who,age,label", *rows]) + "\n")
    return path


def add(home, path):
    return register_data(home, str(path), "heads", ["heads"], patient_column="who", settings=["target=label"])


def test_pins(home, table):
    version = add(home, table)
    with pytest.raises(ConfigError, match="is not a valid run id"):
        pin_run(home, "../up", version)
    with pytest.raises(ConfigError, match="never started here"):
        pinned_version(home, "abc123")
    pin_run(home, "abc123", version)
    write(table, [*ROWS, "9,9,ill"])
    newer = add(home, table)
    with pytest.raises(DataError, match="a run cannot change its data"):
        pin_run(home, "abc123", newer)
    with pytest.raises(DataError, match="row 4 is new"):
        pinned_version(home, "abc123").verify(full=True)
    home.file("data", "pins", "abc123.json").write_text("{}")
    with pytest.raises(DataError, match=r"abc123\.json is damaged"):
        read_pins(home)


def test_a_stop_is_not_undone():
    one = Pin("r", "heads", "old", "2026-01-01T00:00:00+00:00")
    stopped = apply_decision(one, "stop", "new")
    assert apply_decision(stopped, "continue", "newer") == stopped
    assert apply_decision(apply_decision(one, "continue", "new"), "stop", "newer").decision == "stop"
    assert apply_decision(apply_decision(one, "continue", "new"), "continue", "newer").before == ("old", "new")
