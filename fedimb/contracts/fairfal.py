"""FairFAL's halves agree on what those of any active learning do: see `fedimb.contracts.active`."""

from fedimb.contracts.active import active_contract
from fedimb.registry import register

register("contract", "fairfal")(active_contract("fairfal"))
