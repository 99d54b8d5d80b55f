"""Every registered aggregator keeps to its contract."""

import pytest

from fedimb import registry
from fedimb.testing import check_aggregator

SETTINGS = {"bulyan": {"num_malicious_nodes": 1}, "krum": {"num_malicious_nodes": 1}}
WORDS = {"balancefl": ["loss=batch_restricted_ce"], "fedgrab": ["loss=bce"]}
"""What an aggregator's local objectives need beside it."""

AS_IS = {
    "bucketing": True,
    "class_aware_median": True,
    "balancefl": True,
    "distil": True,
    "fedadam": False,
    "fedavg": True,
    "feddecorr": True,
    "fedgrab": True,
    "fedntd": True,
    "fedmedian": True,
    "fedprox": True,
    "fedtrimmedavg": True,
    "fedyogi": False,
    "moon": True,
    "scaffold": True,
}
"""Whether the weights of a round's only client become the model's."""


LONG = (
    *("bulyan", "distil", "fedadagrad", "fedavgm", "feddyn", "fedexp", "fedmedian", "fednova", "fedprox"),
    *("fedtrimmedavg", "fedyogi", "moon", "multikrum", "qfedavg", "bucketing", "class_aware_median"),
    *("fedntd", "feddecorr", "balancefl", "fedgrab", "fedavg", "krum"),
)
"""Slow tests: another of their kind is among the fast ones, as is each aggregator that is added later.

Of those whose sums are linear scaffold is, of those that keep a state fedadam, and of those that need every update by
itself the one that ``fedimb new`` writes (tests/cli/test_new.py).
"""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in registry.names("aggregator")],
)
def test_the_contract(name):
    check_aggregator(name, single_as_is=AS_IS.get(name), run_words=WORDS.get(name, ()))


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_the_contract_against_an_attacker(name):
    check_aggregator(name, **SETTINGS[name])
