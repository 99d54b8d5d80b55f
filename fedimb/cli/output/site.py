"""Outputs of ``fedimb node``, at a hospital."""

from typing import Any

from pydantic import Field

from fedimb.cli.output.base import Output, Part, Place
from fedimb.cli.output.parts import CheckLine


class NodeCreated(Output):
    """A new node.

    Attributes:
        site: its name.
        folder: its folder, with the key, which stays there.
        join_file: file to send to the coordinator.
        key_fingerprint: to read out to the coordinator.
    """

    site: str
    folder: Place
    join_file: Place
    key_fingerprint: str


class KeyRotated(Output):
    """A node's new key.

    Attributes:
        site: its name.
        join_file: file to send to the coordinator.
        key_fingerprint: to read out to the coordinator.
    """

    site: str
    join_file: Place
    key_fingerprint: str


class DataSet(Part):
    """A registered data set.

    Attributes:
        name, version, tags: which.
        created: when this version was registered.
        rows, patients, left_out: rows; patients (null without a patient column); rows left out because withdrawn.
        patients_per_class: class -> patients, or rows if there is no patient column.
        merkle_root: what the site publishes.
    """

    name: str
    version: str
    tags: list[str]
    created: str
    rows: int
    patients: int | None
    left_out: int
    patients_per_class: dict[str, int]
    merkle_root: str

    @classmethod
    def from_version(cls, version: Any) -> "DataSet":
        """The entry of a `DataVersion`."""
        facts = version.facts
        return cls(
            name=version.name,
            version=version.version,
            tags=list(version.tags),
            created=str(version.about["created"]),
            rows=facts["rows"],
            patients=facts["patients"],
            left_out=facts["left_out"],
            patients_per_class=facts["patients_per_class"],
            merkle_root=facts["merkle_root"],
        )


class DataRegistered(Output):
    """A data set that was registered.

    Attributes:
        change: "registered", "new version" or "unchanged".
        data_set: the data set.
    """

    change: str
    data_set: DataSet


class PinnedRun(Part):
    """A run and the version it uses.

    Attributes:
        run: its id.
        name, version: of the data set.
        since: when it began to use it.
        decision: decision after a withdrawal; null if there was none.
    """

    run: str
    name: str
    version: str
    since: str
    decision: str | None


class DataListing(Output):
    """Registered data.

    Attributes:
        data_sets: all data sets.
        runs: runs that use them.
    """

    data_sets: list[DataSet]
    runs: list[PinnedRun]


class VerifiedData(Part):
    """A data set that was read again.

    Attributes:
        name, version: which.
        rows: number of records.
        error: what changed; empty if nothing did.
    """

    name: str
    version: str
    rows: int
    error: str


class DataVerified(Output):
    """Whether records are as registered. The exit code is 2 if something changed.

    Attributes:
        data_sets: those that were read.
    """

    data_sets: list[VerifiedData]


class ProofWritten(Output):
    """A proof that a record is in a registered version.

    Attributes:
        file: the file; null if none was asked for.
        proof: the proof; null if it is in the file.
    """

    file: Place | None
    proof: dict[str, Any] | None


class ProofChecked(Output):
    """A proof that holds.

    Attributes:
        record, records: number of the record, counted from 1, and of all records.
        root: the Merkle root.
        root_compared: whether it was compared with the one that the site published.
        revealed: the record, if the proof holds it.
    """

    record: int
    records: int
    root: str
    root_compared: bool
    revealed: dict[str, Any] | None


class DataWithdrawn(Output):
    """A withdrawal.

    Attributes:
        name, old, new: data set, and its versions before and after.
        records, already: rows left out now, and ids withdrawn before.
        runs: runs that used them.
        decision: "stop", "continue" or "retrain".
        deleted: what was deleted here.
    """

    name: str
    old: str
    new: str
    records: int
    already: int
    runs: list[str]
    decision: str
    deleted: list[str]


class NodeChecked(Output):
    """Whether a node can take part. The exit code is 2 if a check failed.

    Attributes:
        site: its name.
        time: when.
        fit: whether it can.
        checks: all checks.
    """

    site: str
    time: str
    fit: bool
    checks: list[CheckLine]


class NodeStatus(Output):
    """State of a node. The exit code is 0 if healthy, 1 if it needs attention, 2 if it does not take part.

    Attributes:
        judgement: the state in one line.
        site: the site's name.
        state: "running", "waiting", "absent", "failed" or "stopped".
        since: when this state began.
        reason: why, and what to do if anything needs to be done.
        time: when this was written.
        supervisor: process id -> start time of the process that wrote it.
        node: process id of the SuperNode; null if none is running.
        connected: since when the coordinator knows the node; null if it does not.
        restarts: restarts since the supervisor started.
        message: the last message answered: time, run, type, round, outcome.
        inbox: items that wait for a person at the site.
        certificate: when the coordinator's authority expires.
        disk: bytes used and free, and the limit.
        warnings: what will need attention soon.
        fedimb, flower: versions.
        schema: version of status.json.
    """

    judgement: str
    site: str
    state: str
    since: str
    reason: str
    time: str
    supervisor: dict[str, str]
    node: int | None
    connected: str | None
    restarts: int
    message: dict[str, Any] | None
    inbox: int
    certificate: str | None
    disk: dict[str, Any]
    warnings: list[str]
    fedimb: str
    flower: str
    schema_: int = Field(alias="schema")


class WaitingItem(Part):
    """Something that waits for a person, or did.

    Attributes:
        id: as fedimb node approve takes it.
        kind: "plan", "labels" or "release".
        state: "waiting"; of labels the progress; of plans also "approved", "rejected" or "expired".
        text: description.
    """

    id: str
    kind: str
    state: str
    text: str


class InboxListing(Output):
    """What waits for a person at a site.

    Attributes:
        site: the site's name.
        items: plans, labels, releases.
    """

    site: str
    items: list[WaitingItem]


class PlanShown(Output):
    """A study plan.

    Attributes:
        sha: its hash.
        text: the page, as Markdown.
        page: the page, as HTML.
    """

    sha: str
    text: str
    page: Place


class Asked(Part):
    """What was asked about a data set, over all plans, runs and versions.

    Attributes:
        data: names of the data sets of this lineage.
        runs, rounds, queries: runs joined, training rounds and other messages.
        samples: synthetic rows that left.
        epsilon: of the updates, at budget.delta; null if some left without noise.
        counts_epsilon: of noisy class counts.
        noiseless: rounds whose updates left without noise.
        sum_sets: sets of sites that masked sums were over, with the rows that they were about.
        recovered: masked sums that were opened without a site.
    """

    data: list[str]
    runs: int
    rounds: int
    queries: int
    samples: int
    epsilon: float | None
    counts_epsilon: float
    noiseless: int
    sum_sets: list[str]
    recovered: int

    @classmethod
    def from_spent(cls, data: list[str], spent: Any, delta: float) -> "Asked":
        """The entry of a `fedimb.deploy.site.spending.Spent`."""
        numbers = {
            key: getattr(spent, key) for key in ("runs", "rounds", "queries", "samples", "noiseless", "recovered")
        }
        epsilons = {"epsilon": spent.epsilon(delta), "counts_epsilon": spent.counts_epsilon(delta)}
        return cls(data=data, **numbers, **epsilons, sum_sets=list(spent.sum_sets))


class LedgerShown(Output):
    """The site's ledger.

    Attributes:
        site: the site's name.
        did: what a person's decision did; empty if none was given.
        data_sets: what was asked about each lineage.
        budget: the site's own limits, as in node.yaml.
        lines: lines of the ledger, all as written.
    """

    site: str
    did: str
    data_sets: list[Asked]
    budget: dict[str, float | None]
    lines: int


class Decided(Output):
    """A decision.

    Attributes:
        item: what was decided on, as given.
        decision: "approved" or "rejected".
        text: what it means.
        before, after: of an approved plan, what was asked about its data so far, and what if all of it is used; null
            if no data set has its tags.
    """

    item: str
    decision: str
    text: str
    before: Asked | None = None
    after: Asked | None = None


class AuditVerified(Output):
    """The audit log. The exit code is 2 if a line is not as it was written.

    Attributes:
        log: the file.
        lines: number of lines; null if one is bad.
        bad_line: the first bad line; null if all are as written.
        compared: whether it was compared with the heads that the coordinator kept.
    """

    log: Place
    lines: int | None
    bad_line: str | None
    compared: bool


class AuditExported(Output):
    """A period of the audit log.

    Attributes:
        file: the file; null if none was asked for.
        lines: the lines; null if they are in the file.
    """

    file: Place | None
    lines: list[dict[str, Any]] | None


class PaperWritten(Output):
    """A site's paper about a study plan, for an authority.

    Attributes:
        site: the site's name.
        plan: hash of the plan.
        file: where it is.
    """

    site: str
    plan: str
    file: Place
