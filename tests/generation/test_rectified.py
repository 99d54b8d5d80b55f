"""Rectified flow by the book: on data whose velocity is known, losses, Euler's path and guidance come out exactly."""

import pytest
import torch
from torch import nn

from fedimb.generation.examples import Examples
from fedimb.generation.rectified import RectifiedFlow, guided
from tests.generation.generator_cases import ids, rng


class Known(nn.Module):
    """The exact velocity towards one point: z_s = (1 - s) a + s e, so e - a = (z_s - a) / s."""

    def __init__(self, point):
        super().__init__()
        self.point = point

    def forward(self, z, time, y, d):
        return (z - self.point) / (time / 1000).clamp(min=1e-6).view(-1, 1)


class Told(nn.Module):
    """Says what it is told: y + 10 d, the null ids too."""

    def forward(self, z, time, y, d):
        return (y + 10.0 * d)[:, None].expand_as(z)


def flow(net, steps=4, guidance=0.0):
    model = RectifiedFlow(2, 1, (3,), steps, guidance)
    model.net = net
    model.set_scale(torch.zeros(3), torch.ones(3), torch.full((3,), -50.0), torch.full((3,), 50.0))
    y = ids(0, 1)
    model.mark_seen(Examples(torch.zeros(2, 3), y, ids(0, 0)))
    return model


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_exact_velocity_leads_to_the_point_in_any_number_of_steps(steps):
    point = torch.tensor([0.5, -1.0, 2.0])
    made = flow(Known(point), steps).sample(ids(0, 1, 0), ids(0, 0, 0), rng())
    assert torch.allclose(made, point.expand(3, 3), atol=1e-5)


def test_the_exact_velocity_has_no_loss_and_zero_has_that_of_the_target():
    point = torch.tensor([[0.5, -1.0, 2.0]]).repeat(2, 1)
    y, d = ids(0, 1), ids(0, 0)
    assert flow(Known(point[0])).losses_at(point, y, d, 0.7, rng()).max() < 1e-8
    zero = flow(Told()).losses_at(point, ids(0, 0), ids(0, 0), 0.7, rng())
    noise = torch.randn(2, 3, generator=rng())
    assert torch.allclose(zero, (noise - point).square().mean(1), atol=1e-6)


def test_guidance_moves_away_from_what_is_said_without_conditions():
    z, time = torch.zeros(2, 3), torch.full((2,), 500.0)
    y, d = ids(0, 1), ids(0, 0)
    assert torch.equal(guided(Told(), z, time, y, d, (2, 1), 0.0)[:, 0], torch.tensor([0.0, 1.0]))
    assert torch.equal(guided(Told(), z, time, y, d, (2, 1), 1.5)[:, 0], 2.5 * torch.tensor([0.0, 1.0]) - 1.5 * 12.0)
    step = flow(Told(), steps=1, guidance=1.5).sample(y, d, rng()) - torch.randn(2, 3, generator=rng())
    assert torch.allclose(step, -torch.tensor([[-18.0], [-15.5]]).expand(2, 3), atol=1e-5)


def test_levels_are_logit_normal():
    levels = flow(Told()).draw_levels(4000, rng())
    assert levels.min() > 0
    assert levels.max() < 1
    logits = torch.logit(levels)
    assert logits.mean().abs() < 0.05
    assert (logits.std() - 1).abs() < 0.05
