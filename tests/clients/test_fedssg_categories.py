"""What a client of FedSSG trains on beside its rows: rows of its table, whatever made them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from fedimb.clients.fedssg import FedSSGClient
from fedimb.contracts.fedssg import SAMPLES, TAKE, WANTED
from fedimb.data.inputs import TableColumns
from fedimb.generation.examples import Examples
from fedimb.generation.transport import to_record
from fedimb.records import array_record, arrays_of

COLUMNS = TableColumns(("age", "sex"), {"sex": ("f", "m")}, ("age",))  # age, sex=f, sex=m, "age missing"


def context(columns):
    x = torch.tensor([[0.1, 1, 0, 0], [0.9, 0, 1, 0], [0.5, 1, 0, 1], [0.3, 0, 1, 1]])
    y = torch.tensor([0, 0, 1, 1])
    store = SimpleNamespace(columns=columns, n_classes=2, sites=None, site_names=())
    data = SimpleNamespace(store=store, known_view="train", tensors=lambda _: (x, y), rows=lambda _: np.arange(4))
    generator = torch.Generator().manual_seed(0)
    return SimpleNamespace(data=data, state=RecordDict(), generator=lambda: generator)


@pytest.mark.parametrize("columns", [COLUMNS, None])
@pytest.mark.parametrize("sent", [True, False])
def test_made_rows_are_put_on_the_tables_categories(columns, sent):
    content = RecordDict({WANTED: array_record({"wanted": np.array([6, 6])})})
    made = torch.tensor([[0.25, 0.4, 0.55, 0.2], [0.75, 0.1, 0.2, 0.9]])
    if sent:
        content[SAMPLES] = to_record(Examples(made, torch.tensor([0, 1]), torch.tensor([0, 0])))
    own = context(columns)
    FedSSGClient(made="smote").query(TAKE, content, own)
    x = arrays_of(own.state, "synthetic")["x"]
    assert set(np.unique(x[:, 1:])) <= {0, 1} if columns else len(np.unique(x[:, 1:])) > 2
    if sent and columns:
        np.testing.assert_array_equal(x[:, 1:], [[0, 1, 0], [0, 0, 1]])
        np.testing.assert_allclose(x[:, 0], [0.25, 0.75])
    if not sent:
        assert len(np.unique(x[:, 0])) > 2  # numbers stay between rows
