"""Implementation of ``fedimb node data``; its arguments are in `fedimb.cli.node.Data`."""

import argparse
import json
import sys
from pathlib import Path

from fedimb.annotation.private import write_private
from fedimb.cli.output.site import (
    DataListing,
    DataRegistered,
    DataSet,
    DataVerified,
    DataWithdrawn,
    PinnedRun,
    ProofChecked,
    ProofWritten,
    VerifiedData,
)
from fedimb.cli.verbs import split_words
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data.commitment import read_proof, verify_proof
from fedimb.deploy.registered_data.data_version import DataVersion
from fedimb.deploy.registered_data.datasets import data_sets, open_data_set, register_data
from fedimb.deploy.registered_data.pins import read_pins
from fedimb.deploy.site.data_checks import describe_holdings
from fedimb.deploy.site.withdraw import withdraw
from fedimb.errors import ConfigError, DataError
from fedimb.text import aligned

_THEN = {
    "stop": "this site no longer takes part in them",
    "continue": "they continue with the new version, without what was deleted",
    "retrain": "this site takes part only in a new run from round 0",
}


def add_data(args: argparse.Namespace) -> DataRegistered:
    """Register a data set, and print what it contains."""
    home = NodeHome.open(args.home)
    path, settings = split_words(args.path, args.words)
    before = {one.name: one.version for one in data_sets(home)}.get(args.name)
    version = register_data(
        home,
        path,
        args.name,
        [tag for words in args.tags for tag in _split(words)],
        source=args.source,
        patient_column=args.patient_column,
        settings=settings,
        like=args.like,
        classes=_split(args.classes),
        recordable=_split(args.can_record),
    )
    what = "registered" if before is None else "unchanged" if before == version.version else "new version"
    print(f"{what}: {version.name} {version.version[:12]}, tags {', '.join(version.tags)}")
    print(describe_holdings(version))
    if version.facts["left_out"]:
        print(f"left out because withdrawn: {version.facts['left_out']:,} rows")
    print(f"Merkle root: {version.facts['merkle_root']}")
    print("Next: fedimb node check --plan plan.json")
    return DataRegistered(change=what, data_set=DataSet.from_version(version))


def list_data(args: argparse.Namespace) -> DataListing:
    """Print one line per data set and one per run."""
    home = NodeHome.open(args.home)
    found = data_sets(home)
    runs = read_pins(home)
    listed = DataListing(
        data_sets=[DataSet.from_version(one) for one in found], runs=[PinnedRun.of(one) for one in runs]
    )
    if args.json:
        return listed
    if not found:
        print("nothing is registered: fedimb node data add PATH --name NAME --tags TAG")
        return listed
    rows = [["name", "version", "since", "tags", "rows", "patients", "withdrawn"]]
    for one in found:
        facts = one.facts
        patients = "-" if facts["patients"] is None else f"{facts['patients']:,}"
        about = [one.about["created"][:10], ",".join(one.tags), f"{facts['rows']:,}", patients]
        rows.append([one.name, one.version[:12], *about, f"{facts['left_out']:,}"])
    print("\n".join(aligned(rows, left=4)))
    if runs:
        table = [["run", "data", "version", "since", "after a withdrawal"]]
        table += [[one.run, one.name, one.version[:12], one.since[:10], one.decision or "-"] for one in runs]
        print("\n" + "\n".join(aligned(table, left=5)))
    for one in found:
        print(f"\n{one.name}: {describe_holdings(one)}\n  Merkle root {one.facts['merkle_root']}")
    return listed


def verify_data(args: argparse.Namespace) -> DataVerified:
    """Read all records again. The exit code is 2 if something changed."""
    home = NodeHome.open(args.home)
    found = []
    for version in data_sets(home) if args.name is None else [open_data_set(home, args.name)]:
        problem = ""
        try:
            version.verify(full=True)
            print(f"ok    {version.name} {version.version[:12]}: {version.facts['rows']:,} records as registered")
        except DataError as error:
            problem = str(error)
            print(f"fail  {error}")
        found.append(
            VerifiedData(name=version.name, version=version.version, rows=version.facts["rows"], error=problem)
        )
    return DataVerified(data_sets=found, exit_code=2 if any(one.error for one in found) else 0)


def prove_data(args: argparse.Namespace) -> ProofWritten:
    """Write the proof of a record."""
    version: DataVersion = open_data_set(NodeHome.open(args.home), args.name)
    proof = version.prove(args.record, args.open)
    text = json.dumps(proof, ensure_ascii=False, indent=1)
    if args.to is None:
        if not args.json:
            print(text)
        return ProofWritten(file=None, proof=proof)
    write_private(Path(args.to).expanduser(), text.encode())
    shown = "contains the record: only for people who may see it" if args.open else "contains no values of the record"
    print(f"{args.to}: {shown}")
    return ProofWritten(file=args.to, proof=None)


def verify_proof_data(args: argparse.Namespace) -> ProofChecked:
    """Check a proof, and print what it shows."""
    proof = read_proof(Path(args.file).expanduser())
    shown = verify_proof(proof, args.root)
    print(f"ok: record {proof['index'] + 1} of {proof['size']} under root {proof['root']}")
    if shown is not None:
        print(
            "the record it reveals: " + ", ".join(f"{key} {value}" for key, value in shown.items() if value is not None)
        )
    if args.root is None:
        print("Not checked: whether this is the site's root. Give the root that the site published with --root")
    return ProofChecked(
        record=proof["index"] + 1,
        records=proof["size"],
        root=proof["root"],
        root_compared=args.root is not None,
        revealed=shown,
    )


def withdraw_data(args: argparse.Namespace) -> DataWithdrawn:
    """Withdraw records, and print what was done and what was not."""
    home = NodeHome.open(args.home)
    done = withdraw(home, args.name, _ids(args.ids), args.then)
    print(f"{done.name}: {done.records:,} records left out; version {done.old[:12]} -> {done.new[:12]}")
    if done.already:
        print(f"already withdrawn before: {done.already:,} of the ids")
    print(f"runs that used them: {', '.join(done.runs) or 'none'}")
    if done.runs:
        print(f"  {args.then}: {_THEN[args.then]}")
    print(f"deleted here: {', '.join(done.deleted) or 'nothing was built from them'}")
    print(
        "Not undone: what was sent before (weights, counts, released samples) is with the coordinator, and models\n"
        "trained with these records may still hold what they learnt from them. Tell the coordinator which runs.\n"
        "The site's own file and backups are as they were."
    )
    return DataWithdrawn(
        name=done.name,
        old=done.old,
        new=done.new,
        records=done.records,
        already=done.already,
        runs=list(done.runs),
        decision=args.then,
        deleted=list(done.deleted),
    )


def _split(words: str | None) -> list[str]:
    return [word.strip() for word in (words or "").split(",") if word.strip()]


def _ids(path: str) -> list[str]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--ids {path} cannot be read: {error}") from error
    return text.splitlines()
