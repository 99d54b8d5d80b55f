"""The exit door of a hospital node: what simulated clients pass (`fedimb.privacy.egress_filter`), and more.

In this order: is the message one that the study plan lists; the client's work; exceptions masked; every record
declared; the site's sharing policy; a line in the audit log, on disk; then the reply goes. If the line cannot be
written nothing goes but an error. A crash between line and sending leaves a line for a message that did not go, and
the message may be asked again: each one that left has *at least* one line.

What Flower 1.41 itself sends of a node, besides replies: registration, heartbeats, requests. A ClientApp's output and
log records stay: only ServerApps and agents mirror theirs for upload (flwr/superlink/cli/flwr_serverapp.py:37,
supercore/cli/flwr_agentapp.py:41), flwr/supernode/runtime/run_clientapp.py starts no uploader, and the node's client of
the Fleet API (supernode/fleet_http_client.py) has no call for logs. The text of an exception that leaves the ClientApp
would travel (run_clientapp.py:202-214), which is why none does.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedimb.clientapp.state import LOST
from fedimb.contracts import platform as names
from fedimb.contracts.base import Contract
from fedimb.deploy import incidents
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import Shareable, keep_incident, masked
from fedimb.deploy.site.sharing import Patients, refusal
from fedimb.errors import FedimbError
from fedimb.privacy.egress_filter import REFUSED, declared_for, violation
from fedimb.records import pack, payload_bytes

log = logging.getLogger("fedimb")

_SHAPES = 8
_KINDS = {ArrayRecord: "arrays", MetricRecord: "metrics", ConfigRecord: "config"}


@dataclass(frozen=True)
class Terms:
    """On what terms a run may have answers.

    Attributes:
        contracts: the run's, the platform's first.
        messages: types the approved plan lists (`fedimb.deploy.study_plan.page.message_types`); None: all that are
        declared.
        run: what the site calls the run, for its log.
        patients: of the data the run uses; None: not known.
    """

    contracts: list[Contract]
    messages: frozenset[str] | None = None
    run: str = ""
    patients: Patients | None = None


def egress_filter(
    home: NodeHome,
    terms_of: Callable[[Message, Context], Terms],
    message: Message,
    context: Context,
    call_next: ClientAppCallable,
) -> Message:
    """A ClientApp's outermost mod at a node. Never raises but for what ends the process.

    Args:
        terms_of: the run's terms; raises `Shareable` where the site has not agreed to the run or a person must act
            first. That text reaches the coordinator, the text of any other exception does not.
    """
    door = _Door(home, message, context)
    try:
        terms = terms_of(message, context)
        door.run = terms.run
        reply = door.answer(terms, call_next)
    except Shareable as error:
        reply = door.error(error.code, str(error))
    except Exception as error:  # whatever it is, its text may hold a patient's data
        reply = door.incident(incidents.INCIDENT, error)
    return door.let_go(reply)


class _Door:
    def __init__(self, home: NodeHome, message: Message, context: Context) -> None:
        self.home, self.message, self.context = home, message, context
        self.phase, self.run = message.metadata.message_type, str(context.run_id)
        self.facts: dict[str, Any] = {}
        try:
            self.site = home.site
        except FedimbError:  # a damaged node.yaml; reading the policy fails again where it is an incident
            self.site = "the site"

    def answer(self, terms: Terms, call_next: ClientAppCallable) -> Message:
        """The reply, as far as contracts and the site's policy let it go."""
        if terms.messages is not None and self.phase not in terms.messages:
            return self.error(REFUSED, f"{self.site}: the approved study plan lists no message '{self.phase}'")
        reply = call_next(self.message, self.context)
        if reply.has_error():
            return self._client_error(reply.error)
        declared = declared_for(self.phase, terms.contracts)
        if reason := violation(reply, declared):
            return self.incident(REFUSED, f"exit door: {reason}")
        withheld = []
        for record in declared:
            if record.key not in reply.content:
                continue
            why = refusal(self.home.config.sharing, record, reply.content[record.key], terms.patients)
            if why is None:
                continue
            if not record.optional:
                return self.error(incidents.SHARING_REFUSED, f"{self.site} refuses {why}")
            log.warning("%s: withheld %s", self.phase, why)
            withheld.append(record.key)
            del reply.content[record.key]
        if withheld:
            self.facts["withheld"] = withheld
        return reply

    def _client_error(self, error: Error) -> Message:
        """An error the client answers with: its code goes, its text, which may name a folder, does not."""
        if error.code == LOST:
            self.incident(LOST, error.reason)
            return self.error(LOST, f"state_lost: {self.site} lacks the state this message builds on")
        return self.incident(error.code, error.reason)

    def incident(self, code: int, cause: BaseException | str | None) -> Message:
        name = keep_incident(self.home, self.phase, self.run, cause or "no reason given")
        self.facts["incident"] = name
        return self.error(code, masked(self.site, self.phase, name))

    def error(self, code: int, text: str) -> Message:
        return Message(Error(code=code, reason=text), reply_to=self.message)

    def let_go(self, reply: Message) -> Message:
        """First the line, then the message with the line's number and hash."""
        try:
            head = AuditLog(self.home.file("audit.jsonl")).append("message", self._line(reply))
            if not reply.has_error():
                reply.content[names.AUDIT] = ConfigRecord({"line": head.line, "sha": head.sha})
            return reply
        except Exception as error:
            name = keep_incident(self.home, self.phase, self.run, error)
            text = f"{self.site} cannot write its audit log, so nothing leaves it (incident {name})"
            return self.error(incidents.INCIDENT, text)

    def _line(self, reply: Message) -> dict[str, Any]:
        about = {"run": self.run, "flower_run": str(self.context.run_id), "type": self.phase}
        if names.STEP in self.message.content:
            step = self.message.content.config_records[names.STEP]
            about |= {key: step[key] for key in ("round", "step") if key in step}  # type: ignore[misc]
        if reply.has_error():
            code, reason = reply.error.code, reply.error.reason
            return {**about, **self.facts, "outcome": "error", "code": code, "text": reason, "records": []}
        records = [described(key, value) for key, value in reply.content.items()]
        return {**about, **self.facts, "outcome": "sent", "records": records}


def described(key: str, value: ArrayRecord | MetricRecord | ConfigRecord) -> dict[str, object]:
    """What the audit log says of one record: key, kind, shapes, payload bytes and ``sha256``.

    The hash is that of `fedimb.records.pack` of the record alone, so whoever has the record can compute it.
    """
    content = RecordDict({key: value})
    about = {"key": key, "kind": _KINDS[type(value)], "bytes": payload_bytes(content)}
    if isinstance(value, ArrayRecord):
        if len(value) <= _SHAPES:
            about["shape"] = {name: list(array.shape) for name, array in value.items()}
        else:
            about["arrays"] = len(value)
    return about | {"sha256": hashlib.sha256(pack(content)).hexdigest()}
