"""The coordinator's end of signed messages: every message leaves as a signed order, every reply must be its answer."""

import secrets

from flwr.app import ConfigRecord, Error, Message, RecordDict

from fedimb.contracts import platform as names
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.pki import public_line
from fedimb.deploy.signing import Order, content_digest, error_digest, load_key, sign, split_signature, verify
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.errors import ConfigError

UNSIGNED = 1312
"""Error code that replaces a reply, or an error, that the site did not sign for this order: nothing of it is used."""
LOST_BY_FLOWER = (3, 4, 5)
"""Flower's own codes for a message or reply that was lost (flwr.common.constant.ErrorCode); no site signs these."""
_MOST_SHOWN = 300


class SignedMessages:
    """Signs the orders of one run, and checks what comes back.

    Args:
        deployment: has the coordinator's signing key.
        plan: lists the sites and their keys; a client id is a place in the list.
        run: fedimb's name of the run.

    Raises:
        ConfigError: the signing key is not the one that the sites approved with the plan.
    """

    def __init__(self, deployment: Deployment, plan: StudyPlan, run: str) -> None:
        self._key, self._plan, self._run = load_key(deployment.file("sign.key")), plan, run
        if public_line(self._key).decode().strip() != plan.coordinator:
            raise ConfigError(
                f"{deployment.file('sign.key')} is not the key in plan {plan.sha}, with which sites expect messages to "
                "be signed: restore it from a backup, or make a new plan and have the sites approve it"
            )

    def order(self, client: int, message: Message, node: int) -> tuple[Message, Order]:
        """A message to a node with its order record, and the order. Sent again, a message is another order.

        Args:
            client: the client id of its recipient.
            message: content and type.
            node: Flower's node id of the recipient.
        """
        order = Order.of(message, self._plan.sites[client].name, self._plan.sha, self._run, secrets.token_hex(16))
        signature = sign(self._key, order.statement("order", content_digest(message.content)))
        content = dict(message.content) | {names.ORDER: ConfigRecord({"id": order.id, "signature": signature})}
        return Message(RecordDict(content), node, message.metadata.message_type), order

    def check(self, client: int, order: Order, message: Message, reply: Message) -> Message:
        """The reply without its signature if the client's site signed it for this order, else an error (`UNSIGNED`).

        An error that Flower itself reports (the node went away) is passed on: nothing depends on who says so, the
        message is sent again.

        Args:
            client: the client id that was asked.
            order: what it was asked.
            message: the message that the reply answers.
            reply: as it arrived.
        """
        site = self._plan.sites[client]
        if reply.has_error():
            code = reply.error.code
            text, signature = split_signature(reply.error.reason or "")
            if verify(site.key, order.statement("reply", error_digest(code, text)), signature):
                return Message(Error(code, text), reply_to=message)
            if code in LOST_BY_FLOWER:
                return reply
            said = "".join(one if one.isprintable() else " " for one in text)[:_MOST_SHOWN]
            return _unsigned(
                message, f"{site.name} did not sign this error (code {code}), so it may be anybody's: {said}"
            )
        content = reply.content
        found = content.config_records.get(names.SIGNATURE)
        signature = str(found.get("signature", "")) if found is not None else ""
        if found is not None:
            del content[names.SIGNATURE]
        if verify(site.key, order.statement("reply", content_digest(content)), signature):
            return reply
        return _unsigned(
            message,
            f"{site.name}: a reply was left out, because {site.name} did not sign it for this message: it was altered "
            "on its way, is another site's, or was sent before",
        )


def _unsigned(message: Message, text: str) -> Message:
    return Message(Error(UNSIGNED, text), reply_to=message)
