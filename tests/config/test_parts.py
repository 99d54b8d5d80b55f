"""What a run builds from its configuration."""

import pytest

from fedimb.config.compose import compose
from fedimb.config.parts import contracts_of
from fedimb.config.validate import validate
from fedimb.errors import ConfigError


def test_a_method_without_a_contract_is_refused_with_the_remedy():
    config = validate(compose([])).model_copy(update={"strategy": {"ghost": {}}})
    with pytest.raises(ConfigError, match=r"'ghost' has no contract: register one .*docs/add-a-strategy.md"):
        contracts_of(config)
