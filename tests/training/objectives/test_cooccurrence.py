"""The penalty on pairs of labels that never stand together."""

import math

import pytest
import torch
from small_runs import config

from fedimb.errors import ConfigError
from fedimb.models.mlp import MLP
from fedimb.training.local import train_locally
from fedimb.training.losses.bce import BinaryCrossEntropy
from fedimb.training.objectives.cooccurrence import ForbiddenPairs
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec


def penalty(pairs, logits, weight=1.0):
    return ForbiddenPairs(pairs, weight).loss(torch.nn.Identity(), torch.zeros(1), logits, torch.zeros(1))


def test_by_hand():
    # sigmoids 1/2, 3/4 and 1/4; then 1/2 three times
    logits = torch.tensor([[0.0, math.log(3), -math.log(3)], [0.0, 0.0, 0.0]])
    assert float(penalty([[0, 1]], logits)) == pytest.approx((3 / 8 + 1 / 4) / 2)
    assert float(penalty([[0, 1], [2, 1]], logits, 2.0)) == pytest.approx(2 * (3 / 8 + 3 / 16 + 1 / 2) / 2)
    assert penalty([[0, 1]], logits, 0.0) is None


def test_training_with_it_lowers_the_joint_probability_of_a_forbidden_pair():
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    y = torch.stack([(x[:, 0] > 0).float(), (x[:, 0] < 0).float(), torch.ones(40)], dim=1)  # 0 and 1 never together
    joint = []
    for objectives in ((), (ForbiddenPairs([[0, 1]], 5.0),)):
        torch.manual_seed(0)
        model = MLP(3, (3,), hidden=[4])
        spec = TrainSpec("train", 40, 20, "sgd", 0.3, 0.0, 0.0, BinaryCrossEntropy(), Shuffle(), objectives)
        train_locally(model, x, y, spec, torch.Generator().manual_seed(0), torch.zeros(40, dtype=torch.int64))
        p = model(x).sigmoid().detach()
        joint.append(float((p[:, 0] * p[:, 1]).mean()))
    assert joint[1] < 0.7 * joint[0]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"pairs": []}, "pairs is empty"),
        ({"pairs": [[1, 1]]}, "two different class ids"),
        ({"pairs": [[0, 1, 2]]}, "two different class ids"),
        ({"pairs": [[0, 1]], "weight": -1.0}, "weight must be >= 0"),
    ],
)
def test_what_is_no_pair_is_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        ForbiddenPairs(**wrong)


def test_a_class_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="class 3 in pairs, but there are 3 classes"):
        ForbiddenPairs([[0, 3]]).setup(MLP(3, (3,), hidden=[4]), [])
    with pytest.raises(ConfigError, match="class 3 in pairs, but there are 3"):  # before the run
        ForbiddenPairs([[0, 3]]).check(3)


def test_pairs_are_read_from_the_words_of_a_run():
    made = config("loss=bce", "aggregator.objectives=[{name: cooccurrence, pairs: [[0, 3], [1, 2]]}]")
    assert made.aggregator["objectives"] == [{"name": "cooccurrence", "pairs": [[0, 3], [1, 2]]}]
    with pytest.raises(ConfigError, match="pairs"):
        config("aggregator.objectives=[{name: cooccurrence, pairs: 3}]")
