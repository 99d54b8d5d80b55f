import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import ConfigError
from fedimb.training.samplers.rotating import Rotating

LABELS = torch.tensor([0] * 7 + [3] * 2 + [5] * 4)


def epochs(sampler, count, labels=LABELS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [sampler.epoch(labels, generator) for _ in range(count)]


def test_an_epoch_holds_all_of_the_rarest_class_and_as_many_of_each_other():
    for order in epochs(Rotating(), 5):
        assert torch.equal(torch.bincount(labels := LABELS[order]), torch.tensor([2, 0, 0, 2, 0, 2]))
        assert {7, 8} <= set(order.tolist())
        assert set(labels[:3].tolist()) == set(labels[3:].tolist()) == {0, 3, 5}  # every batch of three: each class


@settings(max_examples=20, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    window=st.none() | st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_a_full_turn_shows_every_row(labels, window, seed):
    labels = torch.tensor(labels)
    counts = torch.bincount(labels)
    width = window or int(counts[counts > 0].min())
    turn = -(-int(counts.max()) // width)  # K of the paper
    orders = epochs(Rotating(window), turn, labels, seed)
    assert set(torch.cat(orders).tolist()) == set(range(len(labels)))
    for order in orders:
        assert torch.equal(torch.bincount(labels[order], minlength=len(counts)), (counts > 0) * width)


def test_rows_of_a_frequent_class_do_not_repeat_before_the_others_were_shown():
    shown = torch.cat(epochs(Rotating(), 3))
    assert len(set(shown[LABELS[shown] == 0].tolist())) == 6  # 3 epochs x 2 of 7 rows


def test_another_view_and_another_round_are_cut_anew():
    sampler, generator = Rotating(1), torch.Generator().manual_seed(0)
    sampler.epoch(LABELS, generator)
    assert set(sampler.epoch(torch.tensor([1, 1]), generator).tolist()) <= {0, 1}
    first = [tuple(epochs(Rotating(1), 1, seed=s)[0].sort().values.tolist()) for s in range(20)]
    assert len(set(first)) > 5


def test_no_rows_and_no_window():
    assert len(Rotating().epoch(LABELS[:0], torch.Generator())) == 0
    with pytest.raises(ConfigError, match="rows_per_class=0: give at least 1, or null"):
        Rotating(0)
