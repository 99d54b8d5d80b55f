"""Parts of a coordinator, a site or a stranger that does not follow the protocol."""

import json
import secrets

from flwr.app import ConfigRecord, Message

from fedimb.contracts import platform as names
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.home import NodeHome
from fedimb.deploy.signing import Order, content_digest, load_key, sign
from fedimb.deploy.site.orders import Received, sign_reply


def order_id(message: Message) -> str:
    """The id of the order that a message is."""
    return str(message.content.config_records[names.ORDER]["id"])


def sign_order(deployment: Deployment, plan: str, site: str, run: str, message: Message) -> None:
    """Sign a message to a site, as the coordinator of this plan and run does."""
    order = Order.of(message, site, plan, run, secrets.token_hex(16))
    text = order.statement("order", content_digest(message.content))
    record = {"id": order.id, "signature": sign(load_key(deployment.file("sign.key")), text)}
    message.content[names.ORDER] = ConfigRecord(record)


def sign_again(home: NodeHome, run_id: int, asked: Message, order: str, reply: Message) -> Message:
    """What a site made of its reply, signed with its own key, as the honest node does."""
    try:
        name = home.file("state", "flower", str(run_id)).read_text()
    except OSError:  # it never joined
        return reply
    plan = json.loads(home.file("state", "runs", name, "run.json").read_text())["plan"]
    if not reply.has_error():
        reply.content.pop(names.SIGNATURE, None)
    return sign_reply(home, Received(order, "", Order.of(asked, home.site, plan, name, order)), asked, reply)
