"""A region's end towards the root: a node that holds no data, and answers with what its coordinator has added up.

It joins, has its plan approved, keeps an audit log and a ledger as every node does; only the answers come from the
region's own coordinator (`fedimb.deploy.region_spool`), whose sites never hear of the root.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

from flwr.app import Message, RecordDict

from fedimb.annotation.private import write_private
from fedimb.contracts import platform as names
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import INCIDENT, NOT_APPROVED, Shareable
from fedimb.deploy.region_spool import FOLDER, Spool, Unanswered, time_below
from fedimb.deploy.registered_data.data_version import DataVersion
from fedimb.deploy.site.account import Account, Asked
from fedimb.deploy.site.sharing import Patients
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.plain import JsonObject
from fedimb.records import pack, unpack
from fedimb.schema import RunConfig

DATA = "region"
"""In the ledger: the name of the data that a region answers about, all of its sites'."""
_JOINED = "joined.safetensors"


@dataclass(frozen=True)
class RegionData:
    """What stands for a data version at a region: those of all its sites.

    Attributes:
        version: hash of theirs.
        name: in the ledger.
    """

    version: str
    name: str = DATA


class RegionAccount(Account):
    """A run in a region's ledger: it registers no records, which another data set could share."""

    def _note_lineage(self) -> None:
        """Nothing to note."""


@dataclass(frozen=True)
class RegionRun:
    """One run at a region's node.

    Attributes:
        home, name, plan, config, client: as of a `fedimb.deploy.site.node_app.NodeRun`.
        facts: what the region told of its sites when it joined.
    """

    home: NodeHome
    name: str
    plan: StudyPlan
    config: RunConfig
    client: int
    facts: JsonObject

    def account(self) -> Account:
        """This run in the region's ledger."""
        data = cast(DataVersion, RegionData(str(self.facts["version"])))
        return RegionAccount(self.home, self.name, self.plan, self.config, self.client, len(self.plan.sites), data)

    def patients(self) -> Patients:
        """Rows of all sites; how many of a class is in the records' own counts alone."""
        held = int(self.facts["rows"]) + int(self.facts["validation"])
        return Patients(held, (0,) * len(self.plan.classes))

    def joined(self) -> RecordDict:
        """The reply to the root's query to join."""
        return unpack(self.home.file(*FOLDER, self.name, _JOINED).read_bytes())

    def answer(self, message: Message) -> RecordDict:
        """The coordinator's answer to a message of the root, within ``clients.deadline_s`` if there is such a limit.

        Raises:
            Shareable: there is none, in words without any site's name.
        """
        deadline_s = self.config.clients.deadline_s
        return _ask(self.home, self.name, message, Asked.of(message).digest, deadline_s)


def join_region(home: NodeHome, name: str, plan: StudyPlan, config: RunConfig, message: Message) -> RegionRun:
    """Let the region's sites join a run that the region has approved.

    Raises:
        Shareable: they do not, or the ledger does not allow the run.
    """
    asked: dict[str, Any] = dict(message.content.config_records[names.RUN])
    stored = home.file(*FOLDER, name, _JOINED)  # the run joined before: its data are known
    known: JsonObject = {"version": ""}
    if stored.is_file():
        known = dict(unpack(stored.read_bytes()).config_records[names.SITE])
    # Before a site is asked, whose own ledger would note a run that this one does not allow.
    RegionRun(home, name, plan, config, int(asked["client"]), known).account().check_join()
    Spool(home.root, name).open({"plan": plan.sha, "config": str(asked["cfg-json"]), "region": home.site})
    root_s = asked.get("wait-s")
    content = _ask(home, name, message, "join", root_s if isinstance(root_s, float) and root_s > 0 else None)
    facts: JsonObject = dict(content.config_records[names.SITE])
    if facts.get("site") != home.site:
        raise Shareable(NOT_APPROVED, f"{home.site}: its coordinator answers for another region")
    run = RegionRun(home, name, plan, config, int(asked["client"]), facts)
    run.account().check_join()
    write_private(home.folder(*FOLDER, name) / _JOINED, pack(content))
    return run


def _ask(home: NodeHome, run: str, message: Message, digest: str, root_s: float | None) -> RecordDict:
    """Ask the coordinator. ``root_s``: seconds that the root waits for this node; None: until it is away."""
    wait_s = math.inf if root_s is None else time_below(float(root_s))
    try:
        return Spool(home.root, run).ask(message.metadata.message_type, digest, message.content, wait_s)
    except Unanswered as error:
        text = str(error)
        about = text if text.startswith(("waiting: ", f"{home.site}: ")) else f"{home.site}: {text}"
        raise Shareable(error.code or INCIDENT, about) from None
