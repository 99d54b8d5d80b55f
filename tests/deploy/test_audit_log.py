"""The audit log: any change to it is named, a crash is mended, many may write."""

import csv
import hashlib
import io
import json
import multiprocessing
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedimb.deploy.audit_chain import GENESIS_SHA, Head, read_heads
from fedimb.deploy.audit_log import AuditLog
from fedimb.errors import DataError


def written(folder: Path, count: int = 5) -> AuditLog:
    log = AuditLog(folder / "audit.jsonl")
    for i in range(count):
        log.append("message", {"type": "train", "round": i, "text": "Größe, Übung"})
    return log


def lines(log: AuditLog) -> list[bytes]:
    return log.path.read_bytes().splitlines(keepends=True)


def test_each_line_holds_the_hash_of_the_one_before(tmp_path: Path) -> None:
    log = written(tmp_path, 3)
    before = "0" * 64
    for number, raw in enumerate(lines(log), 1):
        line = json.loads(raw)
        assert (line["n"], line["before"]) == (number, before)
        body = {key: value for key, value in line.items() if key != "sha"}
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        before = line["sha"]
        assert before == hashlib.sha256(text.encode()).hexdigest()
    assert log.head() == Head(3, before)
    assert log.verify() is None
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_no_log_is_no_fault(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    assert log.verify() is None
    assert log.head() == Head(0, GENESIS_SHA)
    assert list(log.lines()) == []


def test_an_edited_line_is_named(tmp_path: Path) -> None:
    log = written(tmp_path)
    log.path.write_bytes(log.path.read_bytes().replace(b'"round":2', b'"round":9'))
    bad = log.verify()
    assert bad is not None
    assert bad.line == 3
    assert str(bad) == "line 3: was edited"


def rehashed(line: dict, **change: object) -> dict:
    body = {k: v for k, v in (line | change).items() if k != "sha"}
    return body | {"sha": hashlib.sha256(canonical(body)).hexdigest()}


def canonical(tree: dict) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_an_edited_line_with_its_hash_made_new_is_named(tmp_path: Path) -> None:
    log = written(tmp_path)
    raw = lines(log)
    raw[1] = canonical(rehashed(json.loads(raw[1]), facts={})) + b"\n"
    log.path.write_bytes(b"".join(raw))
    bad = log.verify()
    assert bad is not None
    assert bad.line == 3
    assert "one of the two was replaced" in bad.what


@pytest.mark.parametrize(
    ("order", "line", "says"),
    [
        ([0, 2, 3, 4], 2, "line 3 is here instead: lines were deleted"),
        ([1, 2, 3, 4], 1, "deleted"),
        ([0, 2, 1, 3, 4], 2, "moved"),
        ([0, 1, 1, 2, 3, 4], 3, "moved"),
        ([0, 1, 2, 3], 5, "the end was cut, the log had 5 lines"),
        ([0, 1], 3, "the end was cut"),
        ([], 1, "the end was cut"),
    ],
)
def test_deleted_moved_and_cut_lines_are_named(tmp_path: Path, order: list[int], line: int, says: str) -> None:
    log = written(tmp_path)
    raw = lines(log)
    log.path.write_bytes(b"".join(raw[i] for i in order))
    bad = log.verify()
    assert bad is not None
    assert bad.line == line
    assert says in bad.what


def test_a_log_that_is_gone_is_named(tmp_path: Path) -> None:
    log = written(tmp_path)
    log.path.unlink()
    bad = log.verify()
    assert bad is not None
    assert bad.line == 1
    with pytest.raises(DataError, match="does not end with the line last written"):
        log.append("message", {})


@pytest.fixture(scope="module")
def two_lines(tmp_path_factory: pytest.TempPathFactory) -> tuple[AuditLog, bytes]:
    log = written(tmp_path_factory.mktemp("log"), 2)
    return log, log.path.read_bytes()


@given(at=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_any_changed_byte_is_found(two_lines: tuple[AuditLog, bytes], at: int, flip: int) -> None:
    log, as_written = two_lines
    data = bytearray(as_written)
    data[at % len(data)] ^= flip
    log.path.write_bytes(bytes(data))
    assert log.verify() is not None


def test_a_space_more_is_an_edit(tmp_path: Path) -> None:
    log = written(tmp_path)
    log.path.write_bytes(log.path.read_bytes().replace(b'"n":4', b'"n": 4'))
    bad = log.verify()
    assert bad is not None
    assert bad.line == 4


def test_a_rewritten_log_differs_from_what_the_coordinator_was_told(tmp_path: Path) -> None:
    log = written(tmp_path)
    told = [Head(line["n"], line["sha"]) for line in log.lines()]
    assert log.verify(told) is None
    for name in ("audit.jsonl", "audit.head.json"):
        (tmp_path / name).unlink()
    for i in range(5):
        log.append("message", {"type": "nothing", "round": i})
    assert log.verify() is None  # all that the site itself can see
    bad = log.verify(told[3:])
    assert bad is not None
    assert bad.line == 4
    assert "coordinator" in bad.what
    assert log.verify([Head(9, GENESIS_SHA)]) is not None


def test_lines_behind_the_head_are_a_crash_once_and_a_fault_twice(tmp_path: Path) -> None:
    log = written(tmp_path, 2)
    head = (tmp_path / "audit.head.json").read_bytes()
    log.append("message", {})
    (tmp_path / "audit.head.json").write_bytes(head)  # stopped between line and head
    assert log.verify() is None
    assert log.append("message", {}).line == 4
    assert log.verify() is None
    (tmp_path / "audit.head.json").write_bytes(head)
    bad = log.verify()
    assert bad is not None
    assert "another program" in bad.what
    with pytest.raises(DataError):
        log.append("message", {})


def test_a_line_cut_short_by_a_crash_is_removed_and_noted(tmp_path: Path) -> None:
    log = written(tmp_path, 2)
    with log.path.open("ab") as file:
        file.write(b'{"at":"2026')
    assert log.verify() is None
    log.append("message", {"round": 3})
    kinds = [line["kind"] for line in log.lines()]
    assert kinds == ["message", "message", "unfinished line removed", "message"]
    assert log.verify() is None


def test_a_last_line_made_shorter_is_no_crash(tmp_path: Path) -> None:
    log = written(tmp_path, 3)
    log.path.write_bytes(log.path.read_bytes()[:-20])
    bad = log.verify()
    assert bad is not None
    assert bad.line == 3
    with pytest.raises(DataError):
        log.append("message", {})


def test_a_very_long_line_is_read_back_whole(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append("message", {"text": "x" * 200_000})
    assert log.append("message", {}).line == 2
    assert log.verify() is None


def _append(path: Path) -> None:
    for _ in range(5):
        AuditLog(path).append("message", {"text": "y" * 300})


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_append, args=(path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert AuditLog(path).verify() is None
    assert AuditLog(path).head().line == 15


def test_what_the_coordinator_kept_is_read(tmp_path: Path) -> None:
    kept = tmp_path / "st-anna.jsonl"
    kept.write_text('{"line": 2, "sha": "ab"}\n{"line": 5, "sha": "cd"}\n', encoding="utf-8")
    assert read_heads(kept) == [Head(2, "ab"), Head(5, "cd")]
    kept.write_text('{"line": 2, "sha": "ab"}\n{"sha": "cd"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        read_heads(kept)


def test_export_of_a_period(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    for day in ("2026-02-28", "2026-03-01", "2026-03-31", "2026-04-01"):
        monkeypatch.setattr("fedimb.deploy.audit_log.utc_now", lambda day=day: f"{day}T08:00:00Z")
        log.append("message", {"text": "=1+1", "records": [{"key": "x.a"}]})
    found = json.loads(log.export("json", "2026-03", "2026-03"))
    assert [line["n"] for line in found] == [2, 3]
    assert [line["n"] for line in log.lines("2026-03-31", "")] == [3, 4]
    assert [line["n"] for line in log.lines("", "2026-03-01")] == [1, 2]
    rows = list(csv.DictReader(io.StringIO(log.export("csv").decode("utf-8-sig"))))
    assert [row["n"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[0]["text"] == "'=1+1"  # no formula in a spreadsheet
    assert json.loads(rows[0]["records"]) == [{"key": "x.a"}]
    assert rows[1]["sha_before"] == rows[0]["sha_line"]
