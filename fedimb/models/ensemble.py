"""An ensemble as one model: the weighted mean of its members' class probabilities."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedimb import registry
from fedimb.models.base import Classifier

_LEAST = 1e-30
"""Probability whose logarithm stands for that of 0."""


class Ensemble(Classifier):
    """Logits are the logarithm of the weighted mean of the members' probabilities.

    The head is the identity, and is neither trained nor stored.

    Args:
        members: name of each member -> its model's name and arguments, as in ``model``.
        annotated: name of a member -> ids of the classes that it knows: its probabilities are over these, and 0
            elsewhere. A member that is not named knows all.
        n_classes, input_shape: given by fedimb.
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: tuple[int, ...],
        members: Mapping[str, Mapping[str, Any]],
        annotated: Mapping[str, list[int]] | None = None,
    ) -> None:
        super().__init__()
        given = {"n_classes": n_classes, "input_shape": input_shape}
        built = {}
        for name, own in members.items():
            args = {key: value for key, value in own.items() if key != "name"}
            built[name] = registry.build("model", own["name"], given, **args)
        self.members = nn.ModuleDict(built)
        self.member_weights = nn.Parameter(torch.full((len(members),), 1 / len(members)))
        unknown = torch.zeros(len(members), n_classes, dtype=torch.bool)
        for position, name in enumerate(members):
            if annotated and name in annotated:
                unknown[position] = True
                unknown[position, annotated[name]] = False
        self.register_buffer("unknown", unknown, persistent=False)
        self.head = nn.Linear(n_classes, n_classes, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(n_classes))
        self.head.requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        """Inputs [n, *shape] -> log probabilities [n, C]."""
        unknown = cast(Tensor, self.unknown)
        total = x.new_zeros(len(x), self.head.in_features)
        for position, member in enumerate(self.members.values()):
            total = total + self.member_weights[position] * own_probabilities(member(x), unknown[position])
        return total.clamp_min(_LEAST).log()


def own_probabilities(logits: Tensor, unknown: Tensor) -> Tensor:
    """Softmax [n, C] over the classes that are not unknown [C] bool; 0 for those."""
    return logits.masked_fill(unknown, -torch.inf).softmax(dim=-1)
