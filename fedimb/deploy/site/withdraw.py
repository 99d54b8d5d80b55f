"""Withdrawal: patients or single records leave a data set, and what the node built on them is deleted.

This is not unlearning. What was sent before (weights, counts, samples) is with the coordinator, and models trained with
the records still hold what they learnt from them; no one can show that they do not. What is done, and can be checked:
no later version, cache or message of this site is built on the records, and every run that used them is named with the
site's decision: it stops here, continues without them, or begins anew from round 0.

Order on disk: the list of those withdrawn first (from then on no version that holds them opens), then the new version,
deletions, decisions. Ended half-way, the same command finishes it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from fedimb.annotation.private import write_private
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data import commitment
from fedimb.deploy.registered_data.datasets import make_version, named
from fedimb.deploy.registered_data.pins import Decision, decided, pins, write_pin
from fedimb.deploy.registered_data.source_records import Reading, matching, read
from fedimb.deploy.registered_data.withdrawn import Entry, left_out, withdrawn, write_withdrawn
from fedimb.deploy.site.purge import dependents, purge
from fedimb.deploy.site.status import STATUS, read_json
from fedimb.deploy.site.supernode import recorded
from fedimb.engine.processes import start_time
from fedimb.errors import ConfigError, DataError

DECISIONS: tuple[Decision, ...] = ("stop", "continue", "retrain")


@dataclass(frozen=True)
class Withdrawal:
    """What a withdrawal did.

    Attributes:
        name, old, new: the data set and its versions before and after.
        at: when, UTC ISO 8601.
        records: rows left out by it; ``already``: ids given that were withdrawn before.
        decision: for the runs below.
        runs: runs that used a version with the records.
        deleted: see `fedimb.deploy.site.purge.dependents`; of outbox/<batch>/ the samples, its decisions stay.
    """

    name: str
    old: str
    new: str
    at: str
    records: int
    already: int
    decision: Decision
    runs: tuple[str, ...]
    deleted: tuple[str, ...]


def withdraw(home: NodeHome, name: str, ids: Sequence[str], decision: Decision = "stop") -> Withdrawal:
    """Leave patients (or, of data without patients' ids, records) out of a data set from now on.

    The audit log gets a line: data set, versions, number of records, decision, runs; no id.

    Args:
        name: the data set.
        ids: patients' ids as the files give them; of data without, records
        (`fedimb.deploy.registered_data.source_records.matching`).
        decision: ``stop``: the site takes no further part in the runs that used them; ``continue``: they go on with the
            new version; ``retrain``: it takes part only in a new run.

    Raises:
        ConfigError: an id that is not there, or the node is running; nothing is then done.
        DataError: the files are not what was registered, or no record would be left; nothing is then done.
    """
    if decision not in DECISIONS:
        raise ConfigError(f"'{decision}' is no decision: {', '.join(DECISIONS)}")
    _refuse_running(home)
    before = named(home, name)
    secret = commitment.site_secret(home)
    entries = withdrawn(home, name)
    # Entries beyond those the version knows: a withdrawal that ended half-way. It is verified as it was made.
    before.matched(entries[: before.about["withdrawn"]])
    reading = read(before.about["source"])
    fresh, already = _entries(reading, ids, entries, secret)
    marks = commitment.marks(secret, reading)
    was, out = (left_out(reading, marks, listed, secret) for listed in (entries, [*entries, *fresh]))
    if out.all():
        raise DataError(
            f"this withdraws every record of '{name}': stop the node, delete {before.folder.parent} instead, "
            "and tell the coordinator"
        )
    write_withdrawn(home, name, [*entries, *fresh])
    able = before.about["facts"]["recordable"]  # what the site could record, it still can
    after = make_version(home, name, before.tags, before.about["source"], reading, able, "withdrawal")
    runs = pins(home)
    affected = [one for one in runs if one.name == name and after.version not in (one.version, *one.before)]
    others = [one for one in runs if one not in affected]
    done = Withdrawal(
        name=name,
        old=before.version,
        new=after.version,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        records=int((out & ~was).sum()),
        already=already,
        decision=decision,
        runs=tuple(one.run for one in affected),
        deleted=tuple(dependents(home, name, after.version, affected, others)),
    )
    folder = home.folder("data", "withdrawals")
    stamp = done.at.replace(":", "").replace("+0000", "Z")
    write_private(
        folder / f"{stamp}-{name}-{done.new[:8]}.json", json.dumps(asdict(done), ensure_ascii=False, indent=1).encode()
    )
    purge(home, done.deleted)
    logged = {key: value for key, value in asdict(done).items() if key != "deleted"}
    AuditLog(home.file("audit.jsonl")).append("withdrawal", {**logged, "deleted": len(done.deleted)})
    for one in affected:  # last: once decided, a run is not found again
        write_pin(home, decided(one, decision, after.version))
    return done


def _refuse_running(home: NodeHome) -> None:
    """A message being answered would write state after it was deleted."""
    status = read_json(home.file(STATUS)) or {}
    processes = {**recorded(home), **status.get("supervisor", {})}
    if alive := [pid for pid, start in processes.items() if start_time(int(pid)) == start]:
        raise ConfigError(
            f"the node is running (process {', '.join(alive)}): stop it (systemctl stop, or Ctrl-C), withdraw, "
            "and start it again"
        )


def _entries(reading: Reading, ids: Sequence[str], known: Sequence[Entry], secret: bytes) -> tuple[list[Entry], int]:
    """(new entries of the list, how many ids are on it already)."""
    ids = list(dict.fromkeys(one.strip() for one in ids if one.strip()))
    if not ids:
        raise ConfigError("no id is given: one per line")
    named_patients = {row.patient for row in reading.rows if row.patient is not None}
    fresh: list[Entry] = []
    already = 0
    marks = [] if named_patients else commitment.marks(secret, reading)
    for one in ids:
        if named_patients:
            entry = {"patient": commitment.patient_mark(secret, one)}
            unknown = one not in named_patients
        else:
            at = matching([row.place for row in reading.rows], one)
            entry, unknown = {"record": marks[at], "place": reading.rows[at].place}, False
        if entry in known:
            already += 1
        elif unknown:
            raise ConfigError(
                f"no record is of patient '{one}': check the ids (as the files write them); nothing was done"
            )
        else:
            fresh.append(entry)
    return fresh, already
