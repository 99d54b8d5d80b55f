"""The ClientApp of a hospital node: the simulated clients' runtime on registered data, behind an egress filter."""

import os
from functools import partial

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedimb.deploy.home import NODE_HOME, NodeHome
from fedimb.deploy.site.egress_filter import egress_filter
from fedimb.deploy.site.node_app import handle_message, local_node, terms_of
from fedimb.deploy.site.orders import Received, sign_reply
from fedimb.errors import FedimbError


def _home() -> NodeHome:
    root = os.environ.get(NODE_HOME)
    if not root:
        raise FedimbError(f"{NODE_HOME} is not set: start the node with fedimb node run")
    return local_node(root)


class NodeApp(ClientApp):
    """The app of a node: every message, of whatever type, passes the egress filter and leaves its line in the log.

    Flower's own dispatch would raise for a type it does not know, before any filter.
    """

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message of the coordinator; refuse any other."""
        home, received = _home(), Received.of(message)
        reply = egress_filter(home, partial(terms_of, home, received), message, context, _answer)
        return sign_reply(home, received, message, reply)


def _answer(message: Message, context: Context) -> Message:
    return handle_message(_home(), message, context)


app = NodeApp()
