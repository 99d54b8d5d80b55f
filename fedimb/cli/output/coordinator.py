"""Outputs of ``fedimb deploy``, at the coordinator."""

from typing import TYPE_CHECKING

from fedimb.cli.output.base import Output, Part, Place

if TYPE_CHECKING:
    from fedimb.deploy.dossier import Dossier


class DeploymentCreated(Output):
    """A new deployment.

    Attributes:
        name: its name.
        folder: its folder; ca.key in it is secret.
        fingerprint: of ca.crt, to read out to each site.
        signing_key_fingerprint: of sign.key, which signs the messages to sites; they compare it when they approve a
            plan.
        host, port: what sites connect to.
    """

    name: str
    folder: Place
    fingerprint: str
    signing_key_fingerprint: str
    host: str
    port: int


class SiteStatus(Part):
    """A site of a deployment.

    Attributes:
        site: its name.
        state: "online", "offline", "not registered", or "unknown while down".
        since: when this state began; null if unknown.
        contact: whom to call.
    """

    site: str
    state: str
    since: str | None
    contact: str


class DeploymentStatus(Output):
    """State of a deployment. The exit code is 1 if it is down or something needs attention.

    Attributes:
        name: its name.
        up: whether the servers are up.
        host, port: what sites connect to.
        fingerprint: of ca.crt.
        valid_until: certificate -> its last day.
        sites: all sites.
        warnings: what needs attention.
    """

    name: str
    up: bool
    host: str
    port: int
    fingerprint: str
    valid_until: dict[str, str]
    sites: list[SiteStatus]
    warnings: list[str]


class SiteChanged(Output):
    """A site that was added, removed, or got a new key.

    Attributes:
        site: its name.
        change: "added", "removed" or "rotated".
        key_fingerprint: to compare by telephone; null for a removed site.
        contact: whom to call.
        servers_updated: whether the servers are up and know it; else it takes effect at the next fedimb deploy up.
    """

    site: str
    change: str
    key_fingerprint: str | None
    contact: str
    servers_updated: bool


class CertificateRenewed(Output):
    """A new server certificate.

    Attributes:
        valid_until: its last day.
    """

    valid_until: str


class StandbyWritten(Output):
    """A standby's copy of a deployment.

    Attributes:
        folder: its folder.
        copied: when, UTC.
        sites: number of nodes in the copied database.
        runs: run -> rounds that its copy covers; null: no checkpoint yet.
    """

    folder: Place
    copied: str
    sites: int
    runs: dict[str, int | None]


class StandbyTaken(Output):
    """A standby that is now the coordinator.

    Attributes:
        name: the deployment's name.
        folder: its folder.
        runs: those that have not ended, to be resumed.
    """

    name: str
    folder: Place
    runs: list[str]


class BundleWritten(Output):
    """A tar for installing nodes offline.

    Attributes:
        file: the tar.
        bytes: its size.
    """

    file: Place
    bytes: int


class PlanWritten(Output):
    """A study plan.

    Attributes:
        sha: its hash.
        folder: its folder, with plan.json, plan.md and plan.html.
        leaves: number of kinds of records that leave a site.
    """

    sha: str
    folder: Place
    leaves: int


class DeployDemo(Output):
    """A complete deployment on this machine, after its run.

    Attributes:
        folder: the run folder.
        root: the folder of the coordinator and the sites.
        seconds: what the run of three rounds took.
    """

    folder: Place
    root: Place
    seconds: float


class MissingArtefact(Part):
    """An artefact that a dossier lacks.

    Attributes:
        artefact: its name in docs/regulation.md.
        files: which of its files are missing.
        items: the items it leaves unanswered.
        verb: what makes it.
    """

    artefact: str
    files: list[str]
    items: list[str]
    verb: str


class DossierWritten(Output):
    """A dossier that was made or checked. The exit code is 1 if it is not complete.

    Attributes:
        folder: where it is.
        complete: whether all artefacts are there as they were gathered; what people have to answer does not count.
        files: number of files.
        answered, unanswered: items whose artefacts are all there, or not.
        missing: artefacts that are not there.
        for_people: items that need a document that people write.
        damaged: files that are not as they were gathered.
    """

    folder: Place
    complete: bool
    files: int
    answered: list[str]
    unanswered: list[str]
    missing: list[MissingArtefact]
    for_people: list[str]
    damaged: list[str]

    @classmethod
    def from_dossier(cls, found: "Dossier") -> "DossierWritten":
        """The output for a dossier."""
        missing = [
            MissingArtefact(artefact=one.artefact, files=list(one.files), items=list(one.items), verb=one.verb)
            for one in found.missing
        ]
        return cls(
            folder=str(found.folder),
            complete=found.complete,
            files=found.files,
            missing=missing,
            exit_code=0 if found.complete else 1,
            answered=list(found.answered),
            unanswered=list(found.unanswered),
            for_people=list(found.for_people),
            damaged=list(found.damaged),
        )
