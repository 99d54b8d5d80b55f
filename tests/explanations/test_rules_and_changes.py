"""A surrogate tree of tree-made labels, and nearest changes of a linear model: the right values are known."""

import numpy as np
import pytest
import torch
from torch import nn

from fedimb import registry
from fedimb.data.inputs import TableColumns
from fedimb.data.scaling import Scaling
from fedimb.errors import ConfigError
from fedimb.explanations.base import ClientRows
from fedimb.explanations.layout import InputLayout
from fedimb.models.base import Classifier

NAMES = ("well", "ill", "worse")


class TreeMade(Classifier):
    """Says class 1 where x0 > 0.125 and x1 > -0.625, class 2 where x0 > 0.125 otherwise, else class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.head.weight)

    def features(self, x):
        right, up = x[:, 0] > 0.125, x[:, 1] > -0.625
        return torch.stack([~right, right & up, right & ~up], dim=1).float()


class Linear(Classifier):
    def __init__(self, weight) -> None:
        super().__init__()
        self.head = nn.Linear(len(weight[0]), len(weight), bias=False)
        self.head.weight.data = torch.tensor(weight)

    def features(self, x):
        return x


def rows_of(model, x, y, columns=None, people=None, held_out=None, scaling=None):
    layout = InputLayout.of(tuple(x.shape[1:]), model, columns, scaling)
    names = NAMES[: model.head.out_features]
    people = np.arange(len(x)) if people is None else people
    held_out = x[:0] if held_out is None else held_out
    return ClientRows(model.eval(), x, np.asarray(y), people, held_out, names, layout, 0, lambda k: model)


def normal(n, width, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_a_tree_of_tree_made_labels_has_fidelity_one_on_rows_it_has_not_seen():
    x, held_out = normal(400, 3), normal(100, 3, 1)
    scaling = Scaling(np.array([50, 0, 0], np.float32), np.array([8, 1, 1], np.float32))
    rows = rows_of(
        TreeMade(), x, np.arange(400) % 3, TableColumns(("age", "b", "c")), held_out=held_out, scaling=scaling
    )
    part = registry.build("explanation", "surrogate_tree")
    found = part.at_client(rows)
    facts = part.combine({0: {**found.by_class, **found.overall}}, rows.layout, NAMES)
    assert facts["fidelity"] == 1.0
    assert facts["found"] == [1.0, 1.0, 1.0]
    assert facts["trees"][0]["held_out"]
    assert facts["trees"][0]["rules"][0] == "age < 51:"  # 0.125 deviations of 8 above 50
    thresholds = found.overall["threshold"][found.overall["feature"] >= 0]
    assert sorted(thresholds.tolist()) == [-0.625, 0.125]  # on the grid


@pytest.mark.parametrize("each", [1, 5])
def test_no_leaf_has_rows_of_fewer_people_than_the_floor(each):
    x = normal(200, 4)
    model = Linear(torch.randn(3, 4, generator=torch.Generator().manual_seed(3)).tolist())
    rows = rows_of(model, x, [0] * 200, people=np.arange(200) // each)
    found = registry.build("explanation", "surrogate_tree", floor=8).at_client(rows).overall
    leaves = found["leaf_rows"][found["feature"] < 0]
    assert leaves.sum() == 200
    assert leaves.min() >= 8
    cells = np.floor(x.numpy() / 0.25 + 0.5)
    at = np.zeros(200, int)
    for _ in range(10):
        inside = found["feature"][at] >= 0
        feature = np.maximum(found["feature"][at], 0)
        left = cells[np.arange(200), feature] * 0.25 <= found["threshold"][at]
        at = np.where(inside, np.where(left, found["left"][at], found["right"][at]), at)
    assert min(len(set(rows.people[at == leaf])) for leaf in set(at)) >= 8


def test_arrays_that_are_no_tree_are_left_out():
    part = registry.build("explanation", "surrogate_tree")
    layout = rows_of(TreeMade(), normal(3, 3), [0] * 3).layout
    ring = {"feature": [0, 0], "threshold": [0, 0], "left": [1, 0], "right": [1, 0], "leaf_rows": [0, 0]}
    arrays = {key: np.array(value) for key, value in ring.items()} | {"leaf_class": np.array([-1, -1])}
    arrays |= {"fidelity": np.array([20, 20, 0]), "rows": np.zeros(3, int), "found": np.zeros(3, int)}
    facts = part.combine({0: arrays}, layout, NAMES)
    assert (facts["trees"], facts["fidelity"]) == ([], None)


def test_of_a_linear_model_the_nearest_change_is_the_margin_over_the_largest_weight():
    model = Linear([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5]])
    x = normal(60, 3)
    y = (x @ model.head.weight[1] > 0).long()
    rows = rows_of(model, x, y, TableColumns(("a", "b", "c")))
    part = registry.build("explanation", "what_if", rows=30)
    found = part.at_client(rows).by_class
    facts = part.combine({0: found}, rows.layout, NAMES[:2])
    assert facts["flipped"] == facts["rows"]
    assert np.array(facts["changed"])[:, 1].min() > 0.9  # the column of the largest weight, where its range allows it
    i = int((x @ model.head.weight[1]).abs().argmin())
    margin = float((x[i] @ model.head.weight[1]).detach().abs())
    nearest = part._nearest(rows, i, int(y[i]), None, part._candidates(rows))
    assert nearest.columns == [1]
    assert nearest.cost == pytest.approx(margin / 2, abs=1e-3)


def test_a_category_is_exchanged_for_one_the_client_has_and_a_fixed_column_stays():
    columns = TableColumns(("sex", "dose"), {"sex": ("f", "m", "x")})
    model = Linear([[0.0, 0.0, 0.0, 0.0], [-1.0, 1.0, 50.0, 0.0]])  # x would flip most, and nobody here has it
    sex = torch.arange(40) % 2
    x = torch.cat([nn.functional.one_hot(sex, 3).float(), normal(40, 1)], dim=1)
    rows = rows_of(model, x, sex, columns)
    part = registry.build("explanation", "what_if", rows=20, floor=5)
    found = part.at_client(rows)
    assert found.by_class["flipped"].tolist() == [20, 20]
    assert found.by_class["changed"].tolist() == [[1, 0], [1, 0]]
    assert found.by_class["distance"].tolist() == [1, 1]  # category_cost
    assert {line.split(",")[-1] for line in found.text[1:]} == {'"f"', '"m"'}
    fixed = registry.build("explanation", "what_if", rows=20, floor=5, fixed=("sex",)).at_client(rows).by_class
    assert fixed["rows"].tolist() == [20, 20]
    assert fixed["flipped"].tolist() == [0, 0]


def test_a_column_that_few_change_is_not_shown():
    model = Linear([[0.0, 0.0], [1.0, 1.0]])
    x = torch.cat([torch.full((30, 1), -1.0), torch.zeros(30, 1)], dim=1)
    x[:3, 1] = 0.9
    x[3:6, 0] = 3.0
    y = (x.sum(1) > 0).long()
    rows = rows_of(model, x, y, TableColumns(("a", "b")))
    found = registry.build("explanation", "what_if", rows=30, floor=5).at_client(rows).by_class
    assert found["rows"].tolist() == [27, 0]  # three people of the other class
    for c in range(2):
        assert all(share == 0 or round(share * found["flipped"][c]) >= 5 for share in found["changed"][c])


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"to": "il"}, "no such class. Did you mean 'ill'"), ({"fixed": ("agee",)}, "no column 'agee'")],
)
def test_names_that_the_data_lack_are_refused(settings, says):
    model = Linear([[0.0, 1.0], [1.0, 0.0]])
    layout = InputLayout.of((2,), model, TableColumns(("age", "dose")))
    with pytest.raises(ConfigError, match=says):
        registry.build("explanation", "what_if", **settings).check(model, layout, "multiclass", NAMES)


def test_pictures_and_rows_with_several_labels_are_refused():
    model = Linear([[0.0, 1.0], [1.0, 0.0]])
    part = registry.build("explanation", "surrogate_tree")
    with pytest.raises(ConfigError, match="explains the columns of a table"):
        part.check(model, InputLayout.of((1, 1, 2), model), "multiclass", NAMES)
    with pytest.raises(ConfigError, match="needs one class per row"):
        part.check(model, InputLayout.of((2,), model), "multilabel", NAMES)
