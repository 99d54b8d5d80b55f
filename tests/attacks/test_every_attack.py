"""Every registered attack keeps to its contract. An attack added later is tested unasked."""

import numpy as np
import pytest

from fedimb import registry
from fedimb.attacks.base import Attack, AttackSettings
from fedimb.testing import ContractError, check_attack


@pytest.mark.parametrize("name", registry.names("attack"))
def test_the_contract(name):
    check_attack(name)


class Broken(Attack):
    def __init__(self, settings: AttackSettings, known) -> None:
        super().__init__(settings, known)


class InPlace(Broken):
    def update(self, received, trained, rng):
        trained["body"] *= 2
        return trained


class Wide(Broken):
    def update(self, received, trained, rng):
        return {key: value.astype(np.float64) for key, value in trained.items()}


class Unseeded(Broken):
    def update(self, received, trained, rng):
        return {key: value + np.random.default_rng().normal() for key, value in trained.items()}


class Foreign(Broken):
    def poison(self, x, y, generator):
        return x, y + 1


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (InPlace, "found changed in place"),
        (Wide, "expected float32"),
        (Unseeded, "the same for the same seed|expected float32"),
        (Foreign, "class ids from 0 to"),
    ],
)
def test_a_broken_attack_is_named(broken, says):
    with registry.isolated():
        registry.register("attack", "broken")(broken)
        with pytest.raises(ContractError, match=says):
            check_attack("broken")
