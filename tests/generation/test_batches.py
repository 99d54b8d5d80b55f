"""Batches: balanced by class or by rows; conditions dropped."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedimb.generation.batches import draw_batch, drop_conditions
from tests.generation.generator_cases import ids, rng


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 30), st.integers(0, 5))
def test_positions_are_of_the_rows_and_classes_of_those_present(labels, n, seed):
    y = torch.tensor(labels)
    for balance in ("class", "rows"):
        rows = draw_batch(y, n, balance, rng(seed))
        assert rows.shape == (n,)
        assert rows.dtype == torch.int64
        assert int(rows.min()) >= 0
        assert int(rows.max()) < len(y)
        assert torch.equal(rows, draw_batch(y, n, balance, rng(seed)))


def test_every_class_is_as_likely_and_every_row_of_it():
    y = ids(5, 0, 0, 5, 0, 0, 2)  # not sorted, with gaps
    rows = draw_batch(y, 30_000, "class", rng())
    share = torch.bincount(rows, minlength=7) / len(rows)
    wanted = torch.tensor([1 / 6, 1 / 12, 1 / 12, 1 / 6, 1 / 12, 1 / 12, 1 / 3])
    assert torch.allclose(share, wanted, atol=0.012)
    share = torch.bincount(draw_batch(y, 30_000, "rows", rng()), minlength=7) / 30_000
    assert torch.allclose(share, torch.full((7,), 1 / 7), atol=0.012)


def test_dropped_ids_become_the_null_and_none_at_rate_zero():
    y = torch.arange(5).repeat(2000)
    assert torch.equal(drop_conditions(y, 5, 0.0, rng()), y)
    dropped = drop_conditions(y, 5, 0.2, rng())
    assert abs(float((dropped == 5).float().mean()) - 0.2) < 0.02
    assert torch.equal(dropped[dropped < 5], y[dropped < 5])
