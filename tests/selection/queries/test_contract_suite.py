"""Every registered query rule keeps to its contract. A rule added later is tested unasked."""

import pytest

from fedimb import registry
from fedimb.testing import check_query
from fedimb.testing.expectations import yaml_settings

LONG = {"gcnal": {"steps": 5, "hidden": 8}}  # trains: fewer steps keep the same contract
every_rule = pytest.mark.parametrize("name", registry.names("query"))


@every_rule
def test_settings_are_the_constructors_own_defaults(name):
    defaults = {key: p.default for key, p in registry.parameters("query", name).items()}
    assert yaml_settings("query", name) == defaults


@every_rule
def test_the_contract(name):
    check_query(name, **LONG.get(name, {}))
