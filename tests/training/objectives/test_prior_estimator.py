"""The neural prior estimator: the head's second layer learns the prior, and its logits are adjusted by it."""

import math

import pytest
import torch
from scipy.optimize import brentq
from small_runs import config

from fedimb.errors import ConfigError
from fedimb.models.logistic import Logistic
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.objectives.prior_estimator import PriorEstimator
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

SHARES = (0.7, 0.2, 0.1)
STEPS, LR = 2000, 0.05


@pytest.fixture(scope="module")
def trained():
    """100 rows without information (inputs of 0), so that only biases learn."""
    torch.manual_seed(0)
    model = Logistic(n_classes=3, input_shape=(2,), head="npe")
    y = torch.repeat_interleave(torch.arange(3), torch.tensor([round(100 * share) for share in SHARES]))
    spec = TrainSpec("train", STEPS, 100, "sgd", LR, 0.0, 0.0, CrossEntropy(), Shuffle(), (PriorEstimator(),))
    train_locally(model, torch.zeros(100, 2), y, spec, torch.Generator().manual_seed(0))
    return model


def test_each_unit_falls_as_its_share_of_the_labels_says(trained):
    # dh/dt = -pi sigmoid(h) from h = 0 has the solution e^-h - h = pi t + 1
    for estimate, share in zip(trained.head.estimator.bias.tolist(), SHARES, strict=True):
        expected = brentq(lambda h, share=share: math.exp(-h) - h - share * STEPS * LR - 1, -20, 0)
        assert estimate == pytest.approx(expected, abs=0.01)


def test_with_it_the_logits_are_those_without_the_prior_nearly(trained):
    x = torch.zeros(1, 2)
    trained.train()
    plain = trained(x).detach()
    trained.eval()
    adjusted = trained(x).detach()
    estimate = trained.head.estimator.bias.detach()
    torch.testing.assert_close(adjusted, plain + estimate - estimate.mean())
    assert float(plain.softmax(1).max()) == pytest.approx(0.7, abs=0.01)
    assert float(adjusted.softmax(1).max()) < 0.4  # 1/3 for an exact prior


def test_an_untrained_estimator_changes_no_logit():
    model, x = Logistic(n_classes=3, input_shape=(2,), head="npe"), torch.randn(4, 2)
    torch.testing.assert_close(model.eval()(x), model.train()(x))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model.head=npe"], "only the objective 'prior_estimator' trains"),
        (["aggregator.objectives=[prior_estimator]"], "needs a model with model.head=npe"),
        (["model.head=npe", "aggregator.objectives=[prior_estimator]", "calibration=la_post"], "double correction"),
        (["model.head=npe", "aggregator.objectives=[prior_estimator]", "calibration=tau"], "its estimate of the prior"),
        (["loss=dm_simplex"], "needs a model with model.head=simplex"),
        (["model.head=simplex"], "works with loss dm_simplex only"),
        (["model.head=simplex", "loss=dm_simplex", "calibration=la_post"], "double correction"),
        (["model.head=simplex", "loss=dm_simplex", "calibration=tau"], "distances to a fixed simplex"),
        (["model.head=simplex", "loss=dm_simplex", "evaluation.temperature=true"], "no temperature makes prob"),
    ],
)
def test_what_does_not_fit_is_refused_before_work(words, says):
    with pytest.raises(ConfigError, match=says):
        config(*words)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf])
def test_a_weight_that_trains_nothing_is_refused(weight):
    with pytest.raises(ConfigError, match="objective 'prior_estimator': weight must be > 0"):
        PriorEstimator(weight)
