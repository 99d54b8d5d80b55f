"""The ClientApp of a hospital node: the simulated clients' runtime on registered data, behind an egress filter."""

import os
from functools import partial

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedimb.clientapp.app import declared_queries
from fedimb.deploy.home import NODE_HOME, NodeHome
from fedimb.deploy.site.egress_filter import egress_filter
from fedimb.deploy.site.node_app import handle_message, local_node, terms_of
from fedimb.errors import FedimbError


def _home() -> NodeHome:
    root = os.environ.get(NODE_HOME)
    if not root:
        raise FedimbError(f"{NODE_HOME} is not set: start the node with fedimb node run")
    return local_node(root)


def _filter(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    home = _home()
    return egress_filter(home, partial(terms_of, home), message, context, call_next)


def _answer(message: Message, context: Context) -> Message:
    return handle_message(_home(), message, context)


app = ClientApp(mods=[_filter])
app.train()(_answer)
for _query in sorted(declared_queries()):
    app.query(_query)(_answer)
