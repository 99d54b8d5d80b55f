"""Limits of a node: what the operating system is told, and when a node is absent by plan."""

import json
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedimb.deploy.files import parse_settings
from fedimb.deploy.home import LimitsConfig, NodeConfig
from fedimb.deploy.planned_times import parse_absences
from fedimb.deploy.site import limits
from fedimb.errors import ConfigError

NOON = datetime(2026, 12, 24, 12, 0)


def node(**settings: object) -> NodeConfig:
    return NodeConfig.model_validate({"site": "a", **settings})


@pytest.mark.parametrize(
    ("hours", "at", "present"),
    [
        ("08:00-18:00", "08:00", True),
        ("08:00-18:00", "17:59", True),
        ("08:00-18:00", "18:00", False),
        ("08:00-18:00", "07:59", False),
        ("20:00-06:00", "23:00", True),
        ("20:00-06:00", "05:59", True),
        ("20:00-06:00", "06:00", False),
        ("20:00-06:00", "12:00", False),
        ("00:00-24:00", "00:00", True),
        ("08:00-24:00", "23:59", True),
        ("08:00-24:00", "07:00", False),
    ],
)
def test_hours_may_cross_midnight(hours: str, at: str, present: bool) -> None:
    now = datetime.fromisoformat(f"2026-11-22T{at}")
    assert (limits.planned_absence(node(limits={"hours": hours}), now) is None) is present


@given(st.integers(0, 23), st.integers(0, 23), st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)))
def test_an_absent_node_is_back_when_it_says(start: int, end: int, now: datetime) -> None:
    if start == end:
        return
    config = node(limits={"hours": f"{start:02d}:00-{end:02d}:00"})
    away = limits.planned_absence(config, now)
    if away is not None:
        assert now < away.until <= now + timedelta(days=1)
        assert limits.planned_absence(config, away.until) is None
        assert limits.planned_absence(config, away.until - timedelta(seconds=1)) is not None


@pytest.mark.parametrize("line", ["2026-12-24", "2026-12-20..2026-12-24", "24.12.2026", "20.12.2026..24.12.2026"])
def test_days_of_absence_include_their_last(line: str) -> None:
    away = limits.planned_absence(node(absent=[line]), NOON)
    assert away is not None
    assert away.until == datetime(2026, 12, 25)
    assert limits.planned_absence(node(absent=[line]), away.until) is None


def test_days_before_and_after_are_days_of_work() -> None:
    config = node(absent=["2026-12-25..2027-01-06"])
    assert limits.planned_absence(config, NOON) is None
    assert parse_absences(config.absent) == [(date(2026, 12, 25), date(2027, 1, 6))]


@pytest.mark.parametrize("line", ["Weihnachten", "2026-13-01", "2026-12-24..2026-12-20", "32.1.2026", "1..2..3", ""])
def test_a_day_that_is_none_is_named(line: str) -> None:
    with pytest.raises(ConfigError, match=r"node\.yaml: absent: .* is not a day or range"):
        parse_settings({"site": "a", "absent": [line]}, NodeConfig, "node.yaml")


@pytest.mark.parametrize("hours", ["25:00-06:00", "08:00-08:00", "08:00-06:99"])
def test_hours_that_are_none_are_named(hours: str) -> None:
    with pytest.raises(ConfigError, match=r"node\.yaml: limits\.hours: "):
        parse_settings({"site": "a", "limits": {"hours": hours}}, NodeConfig, "node.yaml")


def test_cores_and_memory_bind_what_the_process_starts() -> None:
    """Asked of a grandchild, by the operating system's own words."""
    child = """
import json, subprocess, sys
from fedimb.deploy.site import limits
from fedimb.deploy.home import LimitsConfig
said = limits.apply_limits(LimitsConfig(cpus=1, memory_gb=0.5, gpu_share=0.25))
ask = '''
import json, os, resource
try:
    held = len(bytearray(600_000_000))
except MemoryError:
    held = None
print(json.dumps([len(os.sched_getaffinity(0)), resource.getrlimit(resource.RLIMIT_DATA)[0], held]))
'''
print(json.dumps([said, json.loads(subprocess.check_output([sys.executable, "-c", ask]))]))
"""
    said, (cores, most, held) = json.loads(subprocess.check_output([sys.executable, "-c", child]))
    assert (cores, most, held) == (1, 500_000_000, None)
    assert len(said) == 3
    assert "each process" in said[1]  # not more than is true


def test_without_limits_nothing_is_set() -> None:
    assert limits.apply_limits(LimitsConfig()) == []
    assert limits.thread_variables(LimitsConfig()) == {}
    assert limits.thread_variables(LimitsConfig(cpus=2))["OMP_NUM_THREADS"] == "2"


def test_disk_counts_the_folder(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "größe.bin").write_bytes(b"x" * 3_000_000)
    (tmp_path / "away").symlink_to(tmp_path / "nowhere")
    found = limits.disk_usage(tmp_path, LimitsConfig(disk_gb=0.003))
    assert 3_000_000 <= found.used < 3_100_000
    assert "0.003" in (found.refusal() or "")
    assert limits.disk_usage(tmp_path, LimitsConfig(disk_gb=1)).limit == 10**9


def test_disk_warns_before_it_refuses() -> None:
    plenty = 10 * limits.LEAST_FREE_BYTES
    assert limits.Disk(used=89, free=plenty, limit=100).warning() is None
    assert limits.Disk(used=95, free=plenty, limit=100).refusal() is None
    assert "of the" in (limits.Disk(used=95, free=plenty, limit=100).warning() or "")
    assert "free" in (limits.Disk(used=1, free=limits.LEAST_FREE_BYTES - 1, limit=None).refusal() or "")
    assert limits.Disk(used=10**15, free=plenty, limit=None).refusal() is None
