"""Every registered explanation keeps to its contract. One added later is tested unasked."""

import numpy as np
import pytest
import torch

from fedimb import registry
from fedimb.explanations.attribution import Attribution
from fedimb.explanations.base import Explained
from fedimb.testing import ContractError, check_explanation


@pytest.mark.parametrize("name", registry.names("explanation"))
def test_the_contract(name):
    check_explanation(name)


class Broken(Attribution):
    name = "broken"
    needs = ()

    def attribute(self, model, x, target, baseline, layout):
        return x - baseline


class OfFew(Broken):
    def at_client(self, rows):
        maps = np.stack([rows.layout.maps(rows.x).numpy()[rows.y == c].sum(0) for c in range(len(rows.class_names))])
        counts = np.bincount(rows.y, minlength=len(rows.class_names))
        mean = maps / np.maximum(counts, 1).reshape(-1, *[1] * (maps.ndim - 1))
        return Explained({"rows": counts, "maps": mean.astype(np.float32)})


class Undeclared(Broken):
    def at_client(self, rows):
        found = super().at_client(rows)
        found.by_class["inputs"] = np.zeros((len(rows.class_names), 2), np.float32)
        return found


class Unseeded(Broken):
    def attribute(self, model, x, target, baseline, layout):
        return x + float(np.random.default_rng().normal())


class Trains(Broken):
    def attribute(self, model, x, target, baseline, layout):
        model(x).sum().backward()
        return torch.zeros_like(x)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (OfFew, "fewer people than `floor`"),
        (Undeclared, "is not declared"),
        (Unseeded, "the same for the same seed"),
        (Trains, "no gradients left"),
    ],
)
def test_a_broken_one_is_told(broken, says):
    with registry.isolated():
        registry.register("explanation", "broken")(broken)
        with pytest.raises(ContractError, match=says):
            check_explanation("broken", randomized=0)
