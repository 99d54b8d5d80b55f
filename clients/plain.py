"""The client side of the method that adds nothing: ordinary local training."""

from fedimb.clients.base import Client
from fedimb.registry import register


@register("client", "plain")
class PlainClient(Client):
    """Trains on every row it holds."""
