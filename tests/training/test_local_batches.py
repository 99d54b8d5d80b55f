"""Which rows local training sees in which batch, with BatchNorm and without."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_training import Normed, Recorded, fresh, generator, rows, spec
from torch import nn

from fedimb.errors import ConfigError, FedimbError
from fedimb.models.mlp import MLP
from fedimb.training.local import has_batch_norm, train_locally
from fedimb.training.objectives.base import LocalObjective
from fedimb.training.samplers.shuffle import Shuffle


def test_the_last_batch_of_an_epoch_may_be_short():
    sizes = []

    class Sizes(LocalObjective):
        def loss(self, model, features, logits, labels):
            sizes.append(len(labels))

    x, y = rows(9)
    assert train_locally(fresh(), x, y, spec(steps=7, objectives=(Sizes(),)), generator()).steps == 7
    assert sizes == [4, 4, 1, 4, 4, 1, 4]


def test_one_row_trains_unless_the_model_has_batch_norm():
    x, y = rows(1)
    assert train_locally(fresh(), x, y, spec(steps=3), generator()).steps == 3
    model = fresh(Normed)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    result = train_locally(model, x, y, spec(steps=3), generator())
    assert (result.steps, result.examples) == (0, 1)
    assert np.isnan(result.loss)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def batches_seen(n, steps, batch_size, sampler=None, kind=Normed):
    sizes = []

    class Sizes(LocalObjective):
        def loss(self, model, features, logits, labels):
            sizes.append(len(labels))

    x, y = rows(n)
    local = spec(steps=steps, batch_size=batch_size, objectives=(Sizes(),), sampler=sampler or Shuffle())
    result = train_locally(fresh(kind), x, y, local, generator())
    assert result.steps == len(sizes)
    return sizes


def test_batch_norm_joins_a_batch_of_one_to_the_one_before_and_keeps_the_epochs():
    assert batches_seen(9, 6, 4) == [4, 5, 4, 5]
    assert batches_seen(9, 5, 4) == [4, 5, 4, 5]
    assert batches_seen(9, 4, 4) == [4, 5, 4]
    assert batches_seen(10, 6, 4) == [4, 4, 2, 4, 4, 2]
    assert batches_seen(9, 6, 4, kind=MLP) == [4, 4, 1, 4, 4, 1]
    assert batches_seen(5, 2, 8) == [5, 5]


def test_batch_norm_joins_by_what_the_sampler_gave_and_not_by_the_rows_there_are():
    assert batches_seen(9, 6, 4, Recorded(6)) == [4, 2, 4, 2, 4, 2]
    assert batches_seen(8, 6, 4, Recorded(9)) == [4, 5, 4, 5]
    assert batches_seen(8, 3, 4, Recorded(1)) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 14), st.integers(1, 9), st.integers(2, 6))
def test_batch_norm_never_meets_one_row_and_whole_epochs_show_every_row(n, epochs, batch_size):
    sizes = batches_seen(n, epochs * -(-n // batch_size), batch_size)
    assert min(sizes) >= 2
    assert sum(sizes) == epochs * n


def test_batch_norm_with_batches_of_one_is_refused():
    x, y = rows(5)
    with pytest.raises(ConfigError, match=r"local\.batch_size=1 .* GroupNorm"):
        train_locally(fresh(Normed), x, y, spec(batch_size=1), generator())
    assert train_locally(fresh(), x, y, spec(batch_size=1), generator()).steps == 7


def test_a_sampler_that_chooses_nothing_is_an_error_and_not_a_loop():
    x, y = rows(5)
    with pytest.raises(FedimbError, match="Recorded chose none of 5 rows"):
        train_locally(fresh(), x, y, spec(sampler=Recorded(0)), generator())


def test_batch_norm_layers_are_found_wherever_they_are():
    assert has_batch_norm(Normed())
    assert has_batch_norm(nn.Sequential(nn.Sequential(nn.BatchNorm2d(3))))
    assert not has_batch_norm(nn.Sequential(nn.GroupNorm(1, 3), nn.LayerNorm(3)))
