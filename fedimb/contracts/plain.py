"""Contract of the method that adds nothing: it sends no records beyond the platform's."""

from fedimb.contracts.base import Contract
from fedimb.registry import register

PLAIN = Contract(name="plain")
register("contract", "plain")(PLAIN)
