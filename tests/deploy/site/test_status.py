"""A node's status: what it tells people and monitoring, and that no old file passes for a living node."""

import json
import math
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedimb.cli import main
from fedimb.deploy.home import NodeHome
from fedimb.deploy.pki import make_ca
from fedimb.deploy.site import observe as observing
from fedimb.deploy.site.observe import observe
from fedimb.deploy.site.status import (
    STATES,
    Status,
    format_iso,
    judge,
    last_written,
    parse_iso,
    prometheus,
    read_status,
    write_status,
)
from fedimb.engine.processes import record
from fedimb.errors import ConfigError

NOW = datetime(2026, 11, 22, 3, 53, tzinfo=UTC).timestamp()


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    root = tmp_path / "Klinik Süd"
    root.mkdir()
    (root / "node.yaml").write_text("site: sued\n")
    return NodeHome.open(root)


def living(**changes: object) -> Status:
    status = Status("sued", "running", format_iso(NOW), time=format_iso(NOW), supervisor=record([os.getpid()]))
    return replace(status, **changes)  # type: ignore[arg-type]


def test_times_are_utc_and_come_back() -> None:
    assert format_iso(NOW) == "2026-11-22T03:53:00Z"
    assert parse_iso(format_iso(NOW)) == NOW
    assert math.isnan(parse_iso(None))


@pytest.mark.parametrize(
    ("status", "after", "code", "says"),
    [
        (living(), 10, 0, "running since 2026-11-22T03:53:00Z"),
        (living(state="absent", reason="absent until Monday"), 10, 0, "until Monday"),
        (living(state="waiting", reason="2 wait for a person"), 10, 1, "for a person"),
        (living(warnings=["ca.crt expires in 9 days"]), 10, 1, "running"),
        (living(state="failed", reason="no space"), 10, 2, "no space"),
        (living(state="stopped", reason="asked to stop"), 10, 2, "stopped"),
        (living(), 91, 2, "hangs"),
        (living(supervisor={"999999999": "1"}), 10, 2, "not running"),
        (living(supervisor={str(os.getpid()): "1"}), 10, 2, "not running"),  # the id now belongs to another
        (living(supervisor={}), 10, 2, "not running"),
    ],
)
def test_exit_codes(status: Status, after: float, code: int, says: str) -> None:
    found, line = judge(status, NOW + after)
    assert found == code
    assert says in line


def test_what_is_written_is_read(home: NodeHome) -> None:
    status = living(
        reason="größer", message={"time": format_iso(NOW), "round": 3}, disk={"used": 1, "free": 2, "limit": None}
    )
    write_status(home, status)
    assert read_status(home) == status
    assert last_written(home) == NOW
    assert sorted(path.name for path in home.root.iterdir()) == ["node.prom", "node.yaml", "status.json"]


def test_a_status_that_is_none_says_what_to_do(home: NodeHome) -> None:
    with pytest.raises(ConfigError, match="has never run"):
        read_status(home)
    assert last_written(home) == -math.inf
    for text in ("{", "[]", '{"schema": 99}'):
        home.file("status.json").write_text(text)
        with pytest.raises(ConfigError, match="start the node again"):
            read_status(home)


def test_prometheus_reads_it() -> None:
    text = prometheus(
        living(message={"time": format_iso(NOW - 60), "round": 12}, connected=format_iso(NOW), restarts=2)
    )
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    assert {state: found[f'fedimb_node_state{{site="sued",state="{state}"}}'] for state in STATES} == {
        "running": 1,
        "waiting": 0,
        "absent": 0,
        "failed": 0,
        "stopped": 0,
    }
    assert found['fedimb_node_last_message_seconds{site="sued"}'] == NOW - 60
    assert found['fedimb_node_last_round{site="sued"}'] == 12
    assert found['fedimb_node_restarts_total{site="sued"}'] == 2
    assert math.isnan(found['fedimb_node_disk_limit_bytes{site="sued"}'])  # no limit is not a limit of zero
    helped = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helped) == len(set(helped)) == text.count("# TYPE")  # a second one is an error to Prometheus
    assert text.endswith("\n")


def test_the_command_prints_and_judges(home: NodeHome, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "status", "--home", str(home.root)]) == 2
    assert "has never run" in capsys.readouterr().err
    now = datetime.now(UTC).timestamp()
    disk = {"used": 2_500_000_000, "free": 7_000_000_000, "limit": 5_000_000_000}
    write_status(
        home, living(time=format_iso(now), connected=format_iso(now), warnings=["ca.crt ends soon"], disk=disk)
    )
    assert main(["node", "status", "--home", str(home.root)]) == 1
    shown = capsys.readouterr().out
    for part in ("sued", "running", "2.50 of 5 GB used", "ca.crt ends soon", "none yet"):
        assert part in shown
    assert main(["node", "status", "--home", str(home.root), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["exit_code"] == 1


def test_an_authority_that_ends_soon_and_a_full_disk_are_announced(
    home: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "_waiting", lambda _: 3)
    home.file("ca.crt").write_bytes(make_ca("heart", days=20)[1])
    found = observe(home)
    (line,) = found.warnings
    assert "ca.crt expires in" in line
    assert found.inbox == 3
    assert found.certificate is not None
    ends = datetime.fromisoformat(found.certificate)
    assert timedelta(days=19) < ends - datetime.now(UTC) <= timedelta(days=20)
    status = living()
    found.fill(status)
    assert status.warnings == found.warnings
    assert status.disk["limit"] is None
    assert status.flower.startswith("1.")


def test_a_missing_authority_is_a_warning_not_a_crash(home: NodeHome) -> None:
    assert "ca.crt" in observe(home).warnings[0]
