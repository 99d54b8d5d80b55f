"""Gradients pulled towards their moving average, against the rule by hand."""

import copy

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from local_training import fresh, generator, rows, spec
from torch.nn.functional import cross_entropy

from fedimb.contracts.platform import STEP
from fedimb.errors import ConfigError
from fedimb.training.local import train_locally
from fedimb.training.objectives.grad_consistency import GradientConsistency


def message(resets=0):
    return RecordDict({STEP: ConfigRecord({"model": "global", "resets": resets})})


def rounds(model, steps, x, y, state, resets=0, **settings):
    """Rounds of so many full-batch steps each, with the state kept between them."""
    for count in steps:
        objective = GradientConsistency(**settings)
        objective.receive(message(resets), state)
        train_locally(model, x, y, spec(steps=count, batch_size=len(y), objectives=(objective,)), generator())
        objective.keep(state)
    return model


def test_the_rule_by_hand_over_rounds_that_are_shorter_than_what_is_skipped():
    strength, beta, skip, lr = 0.4, 0.7, 3, 0.1
    x, y = rows(9)
    ours, theirs = fresh(), fresh()
    rounds(ours, (2, 2, 2), x, y, RecordDict(), strength=strength, beta=beta, skip=skip)
    mean = None
    for step in range(1, 7):
        gradients = torch.autograd.grad(cross_entropy(theirs(x), y), list(theirs.parameters()))
        mean = gradients if mean is None else [beta * m + (1 - beta) * g for m, g in zip(mean, gradients, strict=True)]
        with torch.no_grad():
            for p, g, m in zip(theirs.parameters(), gradients, mean, strict=True):
                p -= lr * (g - strength * (g - m) if step > skip else g)
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{"strength": 0.0}, {"beta": 0.0}, {"skip": 6}])
def test_without_strength_memory_or_steps_left_nothing_changes(settings):
    x, y = rows(9)
    plain = fresh()
    train_locally(plain, x, y, spec(steps=6, batch_size=9), generator())
    ours = rounds(fresh(), (6,), x, y, RecordDict(), **({"skip": 0} | settings))
    for mine, reference in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, reference)


def test_other_weights_begin_with_an_average_of_their_own():
    x, y = rows(9)
    state, new = RecordDict(), RecordDict()
    rounds(fresh(), (4,), x, y, state, skip=0)
    before = copy.deepcopy(list(state))
    again, alone = (rounds(fresh(seed=1), (4,), x, y, kept, resets=1, skip=0) for kept in (state, new))
    for one, other in zip(again.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert len(before) == len(list(state)) == 1  # what belongs to the earlier weights is gone


def test_an_average_that_is_not_finite_is_not_kept():
    objective, state = GradientConsistency(skip=0), RecordDict()
    model = fresh()
    parameters = list(model.parameters())
    objective.receive(message(), state)
    objective.setup(model, parameters)
    objective.on_gradients(parameters, [torch.full_like(p, float("inf")) for p in parameters])
    objective.keep(state)
    assert not list(state)


@pytest.mark.parametrize("settings", [{"strength": 1.5}, {"strength": -0.1}, {"beta": 1.0}, {"skip": -1}])
def test_values_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match="objective 'grad_consistency'"):
        GradientConsistency(**settings)
