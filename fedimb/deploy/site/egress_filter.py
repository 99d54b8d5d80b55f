"""The egress filter of a hospital node: the filter of simulated clients (`fedimb.privacy.egress_filter`), and more.

It works in this order: check that the study plan lists the message; have the site's ledger accept it (`Account`), which
has the stored reply if it was answered before; run the client; mask exceptions; check that every record is declared;
apply the site's sharing policy; store the reply; write a line to the audit log, on disk; send the reply. If the line
cannot be written, only an error is sent. A crash between writing and sending leaves a line for a message that was not
sent, and the message may be requested again, so each message that left has *at least* one line.

Apart from replies, Flower 1.41 itself sends only registration, heartbeats and requests from a node. A ClientApp's
output and log records stay there: only ServerApps and agents mirror theirs for upload
(flwr/superlink/cli/flwr_serverapp.py:37, supercore/cli/flwr_agentapp.py:41), flwr/supernode/runtime/run_clientapp.py
starts no uploader, and the node's client of the Fleet API (supernode/fleet_http_client.py) has no call for logs. The
text of an exception raised out of the ClientApp would be sent (run_clientapp.py:202-214), which is why no exception
gets that far.
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
from fedimb.deploy.incidents import Shareable, keep_incident, masked_incident
from fedimb.deploy.site.account import Account
from fedimb.deploy.site.sharing import Patients, refusal
from fedimb.errors import FedimbError
from fedimb.privacy.egress_filter import REFUSED, declared_for, violation
from fedimb.records import pack, payload_bytes

log = logging.getLogger("fedimb")

_SHAPES = 8
_KINDS = {ArrayRecord: "arrays", MetricRecord: "metrics", ConfigRecord: "config"}


@dataclass(frozen=True)
class Terms:
    """What a run is allowed to receive from this site.

    Attributes:
        contracts: contracts of the run, the platform's first.
        messages: message types the approved plan lists (`fedimb.deploy.study_plan.outbound_records.message_types`);
            None: all that are declared.
        run: the run's name at the site, for the log.
        patients: number of patients in the data the run uses; None: unknown.
        account: the run in the site's ledger, which answers each message once; None: nothing is counted.
    """

    contracts: list[Contract]
    messages: frozenset[str] | None = None
    run: str = ""
    patients: Patients | None = None
    account: Account | None = None


def egress_filter(
    home: NodeHome,
    terms_of: Callable[[Message, Context], Terms],
    message: Message,
    context: Context,
    call_next: ClientAppCallable,
) -> Message:
    """The outermost mod of the ClientApp at a node. Raises nothing except exceptions that end the process.

    Args:
        home: the node's folder.
        terms_of: returns the run's terms; raises `Shareable` if the site has not agreed to the run or a person must
            act first. The text of `Shareable` is sent to the coordinator, the text of other exceptions is not.
        message, context, call_next: as Flower passes them to a mod.
    """
    egress = _EgressFilter(home, message, context)
    try:
        terms = terms_of(message, context)
        egress.run, egress.account = terms.run, terms.account
        reply = egress.reply(terms, call_next)
    except Shareable as error:
        reply = egress.error(error.code, str(error))
    except Exception as error:  # its text may contain a patient's data
        reply = egress.incident(incidents.INCIDENT, error)
    return egress.send(reply)


class _EgressFilter:
    def __init__(self, home: NodeHome, message: Message, context: Context) -> None:
        self.home, self.message, self.context = home, message, context
        self.phase, self.run = message.metadata.message_type, str(context.run_id)
        self.facts: dict[str, Any] = {}
        self.account: Account | None = None
        try:
            self.site = home.site
        except FedimbError:  # a damaged node.yaml; reading the policy fails again later, as an incident
            self.site = "the site"

    def reply(self, terms: Terms, call_next: ClientAppCallable) -> Message:
        """The reply, reduced to what contracts and the site's policy allow."""
        if terms.messages is not None and self.phase not in terms.messages:
            return self.error(REFUSED, f"{self.site}: the approved study plan does not list message '{self.phase}'")
        stored = None if self.account is None else self.account.accept(self.message)
        reply = call_next(self.message, self.context) if stored is None else Message(stored, reply_to=self.message)
        if reply.has_error():
            return self._client_error(reply.error)
        declared = declared_for(self.phase, terms.contracts)
        if reason := violation(reply, declared):
            return self.incident(REFUSED, f"egress filter: {reason}")
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
        if stored is not None:
            self.facts["again"] = True
        elif self.account is not None:
            reply.content = self.account.keep(self.message, reply.content)
        return reply

    def _client_error(self, error: Error) -> Message:
        """An error reply of the client: its code is sent, its text, which may name a folder, is not."""
        if error.code == LOST:
            self.incident(LOST, error.reason)
            return self.error(LOST, f"state_lost: {self.site} lacks the state this message builds on")
        return self.incident(error.code, error.reason)

    def incident(self, code: int, cause: BaseException | str | None) -> Message:
        name = keep_incident(self.home, self.phase, self.run, cause or "no reason given")
        self.facts["incident"] = name
        return self.error(code, masked_incident(self.site, self.phase, name))

    def error(self, code: int, text: str) -> Message:
        return Message(Error(code=code, reason=text), reply_to=self.message)

    def send(self, reply: Message) -> Message:
        """Write the audit line, then return the message with the line's number and hash."""
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
        about: dict[str, Any] = {"run": self.run, "flower_run": str(self.context.run_id), "type": self.phase}
        if self.account is not None and (mark := self.account.mark):
            about["ledger"] = mark
        if names.STEP in self.message.content:
            step = self.message.content.config_records[names.STEP]
            about |= {key: step[key] for key in ("round", "step") if key in step}
        if reply.has_error():
            code, reason = reply.error.code, reply.error.reason
            return {**about, **self.facts, "outcome": "error", "code": code, "text": reason, "records": []}
        records = [record_facts(key, value) for key, value in reply.content.items()]
        return {**about, **self.facts, "outcome": "sent", "records": records}


def record_facts(key: str, value: ArrayRecord | MetricRecord | ConfigRecord) -> dict[str, object]:
    """What the audit log stores about one record: key, kind, shapes, payload bytes and ``sha256``.

    The hash is over `fedimb.records.pack` of the record alone, so anyone who has the record can compute it.
    """
    content = RecordDict({key: value})
    about = {"key": key, "kind": _KINDS[type(value)], "bytes": payload_bytes(content)}
    if isinstance(value, ArrayRecord):
        if len(value) <= _SHAPES:
            about["shape"] = {name: list(array.shape) for name, array in value.items()}
        else:
            about["arrays"] = len(value)
    return about | {"sha256": hashlib.sha256(pack(content)).hexdigest()}
