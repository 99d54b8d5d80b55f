"""The method that adds nothing sends nothing of its own."""

from fedimb.contracts.base import Contract
from fedimb.registry import register

PLAIN = Contract(name="plain")
register("contract", "plain")(PLAIN)
