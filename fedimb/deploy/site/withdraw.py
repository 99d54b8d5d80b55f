"""Withdrawal: remove patients or single records from a data set, and delete what the node built from them.

This is not unlearning. What was sent before (weights, counts, samples) is with the coordinator, and models trained with
the records may still contain what they learnt from them; nobody can prove otherwise. What is done, and can be checked:
no later version, cache or message of this site is built from the records, and every run that used them is listed with
the site's decision: it stops here, continues without them, or restarts from round 0.

Order on disk: first the withdrawal list (from then on, versions that contain the records cannot be opened), then the
new version, deletions, decisions. If the command is interrupted, running it again finishes the work.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from fedimb.annotation.private import write_private
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data import commitment
from fedimb.deploy.registered_data.datasets import make_version, open_data_set
from fedimb.deploy.registered_data.pins import Decision, apply_decision, read_pins, write_pin
from fedimb.deploy.registered_data.record_lists import person_of
from fedimb.deploy.registered_data.source_records import Reading, find_record, read_source
from fedimb.deploy.registered_data.withdrawn import Entry, read_withdrawn, withdrawn_mask, write_withdrawn
from fedimb.deploy.site.purge import dependents, purge
from fedimb.deploy.site.status import STATUS, read_json
from fedimb.deploy.site.supernode import recorded_process
from fedimb.engine.processes import start_time
from fedimb.errors import ConfigError, DataError

DECISIONS: tuple[Decision, ...] = ("stop", "continue", "retrain")


@dataclass(frozen=True)
class Withdrawal:
    """What a withdrawal did.

    Attributes:
        name, old, new: the data set and its versions before and after.
        at: when, UTC ISO 8601.
        records: number of rows it removed.
        already: number of given ids that had been withdrawn before.
        decision: the site's decision for the runs below.
        runs: runs that used a version with the records.
        deleted: see `fedimb.deploy.site.purge.dependents`; of outbox/<batch>/ only the samples, its decisions stay.
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
    """Remove patients (or records, if the data have no patients' ids) from a data set from now on.

    The audit log gets a line with data set, versions, number of records, decision and runs, but no ids.

    Args:
        name: the data set.
        ids: patients' ids as in the files; if the data have none, records
            (`fedimb.deploy.registered_data.source_records.find_record`).
        decision: ``stop``: the site takes no further part in the runs that used them; ``continue``: they
            continue with the new version; ``retrain``: it takes part only in a new run.

    Raises:
        ConfigError: an id does not exist, or the node is running. Nothing was changed.
        DataError: the files differ from what was registered, or no record would be left. Nothing was changed.
    """
    if decision not in DECISIONS:
        raise ConfigError(f"'{decision}' is not a decision: choose one of {', '.join(DECISIONS)}")
    _refuse_running(home)
    before = open_data_set(home, name)
    secret = commitment.site_secret(home)
    entries = read_withdrawn(home, name)
    # More entries than the version knows: an interrupted withdrawal. Verify the version with its own entries.
    before.read_without(entries[: before.about["withdrawn"]])
    reading = read_source(before.about["source"])
    fresh, already = _entries(reading, ids, entries, secret)
    marks = commitment.mark_records(secret, reading)
    was, out = (withdrawn_mask(reading, marks, listed, secret) for listed in (entries, [*entries, *fresh]))
    if out.all():
        raise DataError(
            f"this would withdraw every record of '{name}': instead, stop the node, delete {before.folder.parent}, "
            "and tell the coordinator"
        )
    write_withdrawn(home, name, [*entries, *fresh])
    able = before.about["facts"]["recordable"]  # the site can still record the same classes
    source, accept = before.about["source"], before.accept
    after = make_version(home, name, before.tags, source, reading, able, "withdrawal", accept)
    runs = read_pins(home)
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
    for one in affected:  # last: a run with a decision is not found again
        write_pin(home, apply_decision(one, decision, after.version))
    return done


def _refuse_running(home: NodeHome) -> None:
    """Refuse while the node is running: a message being handled would write state after its deletion."""
    status = read_json(home.file(STATUS)) or {}
    processes = {**recorded_process(home), **status.get("supervisor", {})}
    if alive := [pid for pid, start in processes.items() if start_time(int(pid)) == start]:
        raise ConfigError(
            f"the node is running (process {', '.join(alive)}): stop it (systemctl stop, or Ctrl-C), withdraw, "
            "and start it again"
        )


def _entries(reading: Reading, ids: Sequence[str], known: Sequence[Entry], secret: bytes) -> tuple[list[Entry], int]:
    """(new entries for the list, number of ids that are already on it)."""
    ids = list(dict.fromkeys(one.strip() for one in ids if one.strip()))
    if not ids:
        raise ConfigError("no id was given: write one per line")
    named_patients = {row.person for row in reading.rows if row.person is not None}
    file_sites = {row.site for row in reading.rows if row.site}
    fresh: list[Entry] = []
    already = 0
    marks = [] if named_patients else commitment.mark_records(secret, reading)
    for one in ids:
        if named_patients:
            site = next((site for site in file_sites if one.startswith(f"{site}/")), "")
            person = person_of(one, site)
            entry = {"patient": commitment.patient_mark(secret, person)}
            unknown = person not in named_patients
        else:
            at = find_record([row.place for row in reading.rows], one)
            entry, unknown = {"record": marks[at], "place": reading.rows[at].place}, False
        if entry in known:
            already += 1
        elif unknown:
            raise ConfigError(
                f"there is no record of patient '{one}', nothing was changed: write the ids as in the files"
            )
        else:
            fresh.append(entry)
    return fresh, already
