"""Losses of labels that are unknown in part: the right values, and nothing of an unknown label in any gradient."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from fedimb import registry
from fedimb.training.losses.bce import BinaryCrossEntropy
from fedimb.training.losses.cfpl import ConstrainedFalsePositives
from fedimb.training.losses.partial_ce import PartialCrossEntropy

GIVEN = {"n_classes": 4, "prior": np.array([40, 20, 10, 5]), "round": 3, "rounds": 10}
NAN = float("nan")


def cells_losses():
    names = registry.names("loss")
    return [name for name in names if "cells" in registry.flags("loss", name).get("unknown_labels", ())]


def built(name):
    return registry.build("loss", name, {k: v for k, v in GIVEN.items() if k in registry.parameters("loss", name)})


def logits(n=6):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)


def targets(n=6):
    return (torch.rand(n, 4, generator=torch.Generator().manual_seed(1)) < 0.4).float()


def test_the_losses_that_take_unknown_cells_are_found_by_their_flag():
    assert {"bce", "weighted_bce", "asymmetric_focal", "cfpl"} <= set(cells_losses())


@pytest.mark.parametrize("name", cells_losses())
def test_a_loss_without_unknown_cells_is_what_it_was_and_is_finite_with_them(name):
    z, t = logits(), targets()
    full = built(name).rows(z, t)
    some = t.clone()
    some[0, 1] = some[3] = NAN
    partial = built(name).rows(z, some)
    assert partial.isfinite().all()
    known = [1, 2, 4, 5]
    torch.testing.assert_close(partial[known], full[known], rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(partial.sum(), z)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", [name for name in cells_losses() if name != "cfpl"])
def test_an_unknown_cell_has_no_part_in_loss_or_gradient(name):
    """Masked: as if the class's problem had never had this row. cfpl takes it for a weak negative by intent."""
    z, t = logits(), targets()
    hidden = torch.zeros_like(t, dtype=torch.bool)
    hidden[:, 1] = True
    hidden[2] = True
    loss = built(name).rows(z, t.masked_fill(hidden, NAN)).sum()
    (gradient,) = torch.autograd.grad(loss, z)
    assert (gradient[hidden] == 0).all()
    assert (gradient[~hidden] != 0).any()
    # The same as the sum over known cells, one class at a time: a 0 or a 1 in their place would not be.
    alone = sum(built(name).rows(z[i], t[i].masked_fill(hidden[i], NAN)) for i in range(len(t)))
    torch.testing.assert_close(loss, alone)
    for filled in (0.0, 1.0):
        other = built(name).rows(z, t.masked_fill(hidden, filled)).sum()
        assert abs(float((other - loss).detach())) > 1e-4


def test_bce_is_the_sum_over_known_cells():
    z, t = logits(), targets()
    some = t.clone()
    some[0, 0] = some[1, 3] = some[5] = NAN
    each = binary_cross_entropy_with_logits(z, t, reduction="none")
    expected = (each * ~some.isnan()).sum(1)
    torch.testing.assert_close(BinaryCrossEntropy().rows(z, some), expected)
    assert float(BinaryCrossEntropy().rows(z, some)[5]) == 0


def test_the_manual_backward_pass_of_stacked_clients_agrees():
    z, some = logits(), targets()
    some[1] = NAN
    weights = torch.full((6,), 1 / 6)
    for name in cells_losses():
        rows, gradient = built(name).loss_and_grad(z, some, weights)
        (expected,) = torch.autograd.grad(built(name).rows(z, some).mean(), z)
        torch.testing.assert_close(gradient, expected)
        assert rows.isfinite().all()


def test_cfpl_drops_an_unknown_cell_once_the_model_finds_it():
    z = torch.tensor([[2.0, -1.0]], requires_grad=True)
    unknown = torch.full((1, 2), NAN)

    def value(round):
        return ConstrainedFalsePositives(threshold=0.5, warmup=0.2, round=round, rounds=10).rows(z, unknown)

    softplus = [math.log1p(math.exp(v)) for v in (2.0, -1.0)]
    assert float(value(1)) == pytest.approx(sum(softplus))  # threshold 1: both are negatives
    assert float(value(2)) == pytest.approx(sum(softplus))
    assert float(value(4)) == pytest.approx(softplus[1])  # threshold .5 from here on: sigmoid(2) = .88 is above it
    assert float(value(10)) == pytest.approx(softplus[1])
    (gradient,) = torch.autograd.grad(value(10).sum(), z)
    assert gradient[0, 0] == 0
    assert gradient[0, 1] > 0
    limits = [ConstrainedFalsePositives(0.5, 0.2, round, 10).limit for round in (1, 2, 3, 4, 5)]
    assert limits == pytest.approx([1, 1, 0.75, 0.5, 0.5])


def test_cfpl_is_bce_where_all_is_known_and_at_a_threshold_of_0():
    z, t = logits(), targets()
    torch.testing.assert_close(ConstrainedFalsePositives().rows(z, t), BinaryCrossEntropy().rows(z, t))
    t[0] = NAN
    torch.testing.assert_close(ConstrainedFalsePositives(0.0, 0.0).rows(z, t), BinaryCrossEntropy().rows(z, t))


SETS = np.array([[False, True, True, False], [True, True, True, True]])


def test_partial_cross_entropy_raises_the_probability_of_the_set():
    z = logits()
    labels = torch.tensor([0, 3, 4, 4, 5, 2])  # 4: class 1 or 2; 5: any class
    found = PartialCrossEntropy(4, SETS).rows(z, labels)
    p = z.softmax(1)
    assert float(found[2]) == pytest.approx(-math.log(float(p[2, 1] + p[2, 2])), rel=1e-5)
    torch.testing.assert_close(found[[0, 1, 5]], cross_entropy(z, labels.clamp(max=3), reduction="none")[[0, 1, 5]])


def test_a_row_of_which_nothing_is_known_is_as_if_it_were_not_there():
    z, labels = logits(), torch.tensor([0, 5, 2, 5, 1, 3])
    loss = PartialCrossEntropy(4, SETS)
    (gradient,) = torch.autograd.grad(loss.rows(z, labels).sum(), z)
    assert gradient[[1, 3]].abs().max() < 1e-6
    known = [0, 2, 4, 5]
    (without,) = torch.autograd.grad(loss.rows(z[known], labels[known]).sum(), z)
    torch.testing.assert_close(gradient[known], without[known])


def test_with_classes_only_it_is_cross_entropy():
    z, labels = logits(), torch.tensor([0, 1, 2, 3, 0, 1])
    torch.testing.assert_close(PartialCrossEntropy(4)(z, labels), cross_entropy(z, labels))


def test_a_coarse_label_is_no_class_to_a_loss_that_does_not_know_it():
    with pytest.raises((IndexError, RuntimeError)):
        registry.build("loss", "ce")(logits(), torch.tensor([0, 1, 2, 4, 0, 1]))
