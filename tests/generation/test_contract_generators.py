"""Every registered trainable generator keeps to its contract. One added later is tested unasked, by its own YAML."""

from importlib.resources import files

import pytest
import yaml

from fedimb import registry
from fedimb.config.validate import GIVEN
from fedimb.testing import check_generator
from tests.generation.generator_cases import NO_OFFLINE, SMALL, shape_of


@pytest.mark.parametrize("name", registry.names("generator"))
def test_its_yaml_names_it_and_fits_its_arguments(name):
    args = yaml.safe_load((files("fedimb.configs") / "generator" / f"{name}.yaml").read_text())
    assert args.pop("name") == name
    assert registry.check_args("generator", name, args, given=GIVEN["generator"]).keys() == args.keys()


@pytest.mark.parametrize("name", [name for name in registry.names("generator") if name not in NO_OFFLINE])
def test_the_contract(name):
    check_generator(name, shape=shape_of(name), **SMALL.get(name, {}))
