"""What the two sides of SCAFFOLD agree on: the aggregator `scaffold` and the local term `control_variate`."""

from fedimb.contracts.base import Record, Values

VARIATE = Record(
    "x.variate",
    "arrays",
    "change of the client's mean training gradient since its last round: as telling as a gradient",
    "model",
    dtypes=("float16", "float32", "float64"),
    optional=True,
    values={"*": Values(sent="change")},
)
"""To the client: the server's variate c by parameter name. To the server: the client's change of c_k, absent if the
client made no step."""

SINCE = "variate-since"
"""Scalar in the train message's config: the round in which c began at 0. A client's c_k is only valid with that c."""
