"""Curves of each class during training: known losses give known figures, and training is not disturbed."""

import numpy as np
import pytest
import torch

from fedimb.errors import DataError
from fedimb.generation.base import Generator
from fedimb.generation.class_curves import ClassCurves, class_variances
from fedimb.generation.examples import Examples
from fedimb.generation.training import Training, train_generator
from tests.generation.generator_cases import build, examples, ids, same_bits


class Known(Generator):
    """A row's loss is its own value: low where it was learned by heart."""

    def _losses(self, z, y, d, levels, generator):
        return z[:, 0]


def known(learned, held_out):
    """Rows of the classes 0 and 1, two of each, with these losses."""
    made = Known(2, 1, (1,))
    made.set_common_scale()
    sides = [
        Examples(torch.tensor(values)[:, None], ids(0, 0, 1, 1), ids(0, 0, 0, 0)) for values in (learned, held_out)
    ]
    return ClassCurves(made, *sides, every=2, seed=0)


def test_known_losses_give_their_means_and_who_is_known_by_heart():
    first, second = known([1.0, 2.0, 5.0, 5.0], [3.0, 4.0, 5.0, 5.0]).measure(7)
    assert (first.step, first.label, first.loss, first.loss_held_out, first.memorised) == (7, 0, 1.5, 3.5, 1.0)
    assert (second.label, second.loss, second.memorised) == (1, 5.0, 0.5)
    assert known([1.0, 3.0, 5.0, 5.0], [2.0, 2.0, 5.0, 5.0]).measure(0)[0].memorised == 0.5


def test_it_measures_at_every_so_many_steps_and_training_stays_as_it_was():
    data, held_out = examples((5,)), examples((5,), seed=1)
    watched, plain = build("table_flow"), build("table_flow")
    curves = ClassCurves(watched, data, held_out, every=3, seed=0)
    train_generator(watched, data, Training(steps=7, batch=8), 2, progress=curves)
    train_generator(plain, data, Training(steps=7, batch=8), 2)
    assert [(point.step, point.label) for point in curves.points] == [(3, 0), (3, 1), (3, 2), (6, 0), (6, 1), (6, 2)]
    assert all(np.isfinite([point.loss, point.loss_held_out]).all() for point in curves.points)
    assert same_bits(watched.state_dict(), plain.state_dict())


def test_rows_learned_by_heart_are_found():
    """Random rows: nothing but the rows themselves can be learned."""
    data, held_out = examples((10,), (4, 4)), examples((10,), (20, 20), seed=1)
    model = build("table_flow", n_classes=2, shape=(10,), width=48, depth=1)
    curves = ClassCurves(model, data, held_out, every=300, seed=0)
    train_generator(model, data, Training(steps=300, batch=32, lr=1e-2), 0, progress=curves)
    assert min(point.memorised for point in curves.points) > 0.75
    assert all(point.loss < point.loss_held_out for point in curves.points)


def test_classes_on_one_side_only_and_no_steps_are_refused():
    data = examples((5,))
    with pytest.raises(DataError, match=r"classes \[0, 1, 2\] are learned, and \[0, 1\] held out"):
        ClassCurves(build("table_flow"), data, examples((5,), (4, 4)), every=1, seed=0)
    with pytest.raises(ValueError, match="every=0"):
        ClassCurves(build("table_flow"), data, data, every=0, seed=0)


def test_variances_are_of_each_class_alone():
    x = torch.tensor([[0.0, 0.0], [2.0, 4.0], [9.0, 9.0], [1.0, 1.0]])
    rows = Examples(x, ids(0, 0, 1, 2), ids(0, 0, 0, 0))
    found = class_variances(rows, 3)
    assert found[0] == 2 + 8
    assert np.isnan(found[1:]).all()
