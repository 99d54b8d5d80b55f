"""Orders at a site: only what the coordinator of the approved plan signed is answered, once, and the reply is signed.

```
plans/<sha>/orders/<run>     ids of the orders that were taken, one per line
```
"""

import os
import re
from dataclasses import dataclass

from flwr.app import ConfigRecord, Error, Message

from fedimb.contracts import platform as names
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import INCIDENT, ORDER_REFUSED, Shareable, keep_incident, masked_incident
from fedimb.deploy.signing import Order, content_digest, error_digest, load_key, sign, verify, with_signature
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.errors import FedimbError
from fedimb.tracking.lock import locked

_ID = r"[0-9a-f]{32}"
_RUN = r"[^\x00-\x1f\x7f/\\.][^\x00-\x1f\x7f/\\]{0,199}"
_WAIT_S = 30.0


@dataclass
class Received:
    """A message as it arrived, without its order record.

    Attributes:
        id, signature: of the order record; empty if there was none.
        order: the order, once it was found to be the coordinator's; until then the reply is not signed.
    """

    id: str
    signature: str
    order: Order | None = None

    @staticmethod
    def of(message: Message) -> "Received":
        """Take the order record out of a message, so that nothing else sees it."""
        found = message.content.config_records.get(names.ORDER) if message.has_content() else None
        if found is None:
            return Received("", "")
        del message.content[names.ORDER]
        return Received(str(found.get("id", "")), str(found.get("signature", "")))

    def accept(self, home: NodeHome, plan: StudyPlan, run: str, message: Message) -> None:
        """Accept the message as an order of the plan's coordinator to this site, for the first time.

        Raises:
            Shareable: it is not signed, was altered, is for another site, plan, run or round, or was already taken.
        """
        if not re.fullmatch(_RUN, run):
            raise Shareable(ORDER_REFUSED, f"{home.site} does not take a run of that name: it is not a file's name")
        if not re.fullmatch(_ID, self.id):
            raise Shareable(
                ORDER_REFUSED,
                f"{home.site} answers only messages that the coordinator signed, and this one is not signed: run "
                "fedimb deploy run with the release that the plan names",
            )
        order = Order.of(message, home.site, plan.sha, run, self.id)
        if not verify(plan.coordinator, order.statement("order", content_digest(message.content)), self.signature):
            raise Shareable(
                ORDER_REFUSED,
                f"{home.site} refused a message whose signature is not the coordinator's for this site, plan, run and "
                "content: it was altered on its way, meant for another site, or signed with another key than the plan "
                "names",
            )
        _take(home, plan.sha, run, self.id)
        self.order = order


def _take(home: NodeHome, plan: str, run: str, id_: str) -> None:
    """Note an order's id on disk. Raises Shareable if it was noted before."""
    path = home.folder("plans", plan, "orders") / run
    with locked(path.with_name(f".{run}.lock"), _WAIT_S):
        taken = path.read_bytes().split(b"\n") if path.exists() else []
        if id_.encode() in taken:
            raise Shareable(ORDER_REFUSED, f"{home.site} refused a message that was sent before: somebody replayed it")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.write(b"\n" * bool(taken and taken[-1]) + id_.encode() + b"\n")  # after a line that a crash cut short
            file.flush()
            os.fsync(file.fileno())


def sign_reply(home: NodeHome, received: Received, message: Message, reply: Message) -> Message:
    """Sign a reply with the site's key, as the answer to one order. An answer to nobody's order stays unsigned.

    An error carries its signature at the end of its text, because Flower sends nothing else of it. What cannot be
    signed does not leave.
    """
    order = received.order
    if order is None:
        return reply
    try:
        key = load_key(home.file("key"))
        if reply.has_error():
            code, reason = reply.error.code, reply.error.reason or ""
            signature = sign(key, order.statement("reply", error_digest(code, reason)))
            return Message(Error(code, with_signature(reason, signature)), reply_to=message)
        signature = sign(key, order.statement("reply", content_digest(reply.content)))
        reply.content[names.SIGNATURE] = ConfigRecord({"signature": signature})
        return reply
    except (FedimbError, OSError) as error:
        incident = keep_incident(home, order.kind, order.run, error)
        return Message(Error(INCIDENT, masked_incident(home.site, order.kind, incident)), reply_to=message)
