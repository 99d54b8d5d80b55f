"""Every registered coreset rule keeps to its contract. A rule added later is tested unasked."""

from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.testing import check_coreset
from fedimb.testing.expectations import Contract
from fedimb.testing.selection import candidates, check_any_client

CHOOSING = [name for name in registry.names("coreset") if not registry.flags("coreset", name).get("keeps_all")]


@pytest.mark.parametrize("name", registry.names("coreset"))
def test_the_contract(name):
    check_coreset(name)


@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.integers(0, 14), min_size=2, max_size=4), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_any_client_any_budget(counts, share, seed):
    for name in CHOOSING:
        check_any_client(Contract("coreset", name), name, {}, counts, share, seed)


def test_keeping_all_keeps_nothing_less():
    with pytest.raises(ConfigError, match="asked for 20 of 47"):
        registry.build("coreset", "full").select(candidates([40, 6, 1, 0]), 20)


def test_every_rule_has_its_settings_page():
    pages = {path.name.removesuffix(".yaml") for path in (files("fedimb.configs") / "coreset").iterdir()}
    assert pages == set(registry.names("coreset"))
