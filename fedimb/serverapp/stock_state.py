"""What Flower's own strategies keep from round to round: they have no ``state_dict``, so it is declared here.

Tested against the installed Flower: tests/serverapp/test_stock_state.py plays rounds of every strategy it exports and
compares what changed with this table.
"""

from flwr.serverapp import strategy as flower

STOCK_STATE: dict[type, tuple[str, ...]] = {
    flower.FedAvgM: ("current_arrays", "momentum_vector"),
    flower.FedAdagrad: ("current_arrays", "m_t", "v_t"),
    flower.FedAdam: ("current_arrays", "m_t", "v_t"),
    flower.FedYogi: ("current_arrays", "m_t", "v_t"),
    flower.QFedAvg: ("current_arrays",),
    flower.FedXgbBagging: ("current_bst",),
    flower.FedXgbCyclic: ("registered_nodes",),
    flower.DifferentialPrivacyServerSideFixedClipping: ("strategy", "current_arrays"),
    flower.DifferentialPrivacyClientSideFixedClipping: ("strategy",),
    flower.DifferentialPrivacyServerSideAdaptiveClipping: ("strategy", "current_arrays", "clipping_norm"),
    flower.DifferentialPrivacyClientSideAdaptiveClipping: ("strategy", "clipping_norm"),
}
"""Class -> attributes that change during rounds. ``strategy`` is the strategy a wrapper holds: its state counts too."""


def stock_attributes(kind: type) -> list[str]:
    """The declared attributes of a class and of the Flower classes it derives from."""
    return [name for cls, names in STOCK_STATE.items() if issubclass(kind, cls) for name in names]
