"""Made rows of tables with categories."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import ConfigError
from fedimb.generation.categories import check_categories, nearest_categories
from fedimb.generation.examples import Examples
from fedimb.generation.generators.table_flow import TableFlow
from fedimb.generation.training import Training, train_generator

SPANS = ((1, 4), (4, 5))


def table(n):
    """A number, three categories or none, a mark."""
    at = torch.arange(n) % 4
    onehot = torch.nn.functional.one_hot(at, 4)[:, :3].float()
    return torch.column_stack([torch.randn(n, generator=torch.Generator().manual_seed(0)), onehot, (at % 2).float()])


@settings(max_examples=50)
@given(st.lists(st.lists(st.floats(-2, 2, width=32), min_size=5, max_size=5), min_size=1, max_size=6))
def test_the_nearest_of_the_categories_and_none(rows):
    x = torch.tensor(rows)
    made = nearest_categories(x, SPANS)
    assert torch.equal(made[:, 0], x[:, 0])
    for start, stop in SPANS:
        corners = torch.cat([torch.eye(stop - start), torch.zeros(1, stop - start)])
        block = made[:, start:stop]
        assert (block.unsqueeze(1) == corners).all(2).any(1).all()
        if stop - start == 1:
            clear = (x[:, start] - 0.5).abs() > 1e-6
            assert torch.equal(block[clear, 0], (x[clear, start] > 0.5).float())
    assert torch.equal(nearest_categories(made, SPANS), made)


def test_rows_of_the_table_stay_as_they_are():
    assert torch.equal(nearest_categories(table(8), SPANS), table(8))
    assert nearest_categories(table(8), ()) is not None
    x = torch.tensor([[0.0, 0.2, 0.5, 0.3, 0.4], [0.0, 0.1, 0.1, 0.2, 0.6]])
    assert nearest_categories(x, SPANS)[:, 1:].tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("wrong", [[[0, 6]], [[2, 2]], [[0, 3], [2, 4]], [[1]], [[-1, 2]]])
def test_spans_that_are_none_are_refused(wrong):
    with pytest.raises(ConfigError, match="is not a span"):
        check_categories("table_flow", wrong, 5)
    with pytest.raises(ConfigError, match="is not a span"):
        TableFlow(2, 1, (5,), categories=wrong)


def test_samples_of_a_table_flow_are_rows_of_the_table():
    x = table(40)
    y, d = torch.arange(40) % 2, torch.zeros(40, dtype=torch.int64)
    drawn = []
    for spans in (SPANS, ()):
        made = TableFlow(2, 1, (5,), width=16, depth=1, steps=2, categories=spans)
        train_generator(made, Examples(x, y, d), Training(steps=20, batch=16, warmup=2), 0)
        drawn.append(made.sample(y, d, torch.Generator().manual_seed(1)))
    assert torch.equal(nearest_categories(drawn[1], SPANS), drawn[0])  # nothing else changes
    assert not torch.equal(drawn[0], drawn[1])
