"""State that Flower's own strategies keep from round to round, declared here because they have no ``state_dict``.

Tested against the installed Flower: tests/serverapp/test_stock_state.py runs rounds of every strategy it exports and
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
"""Class -> attributes that change during rounds. ``strategy`` is the one inside a wrapper: its state counts too."""


def stock_attributes(kind: type) -> list[str]:
    """The declared attributes of a class and of the Flower classes it derives from."""
    return [name for cls in kind.__mro__ for name in STOCK_STATE.get(cls, ())]
