import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import DataError
from fedimb.selection.checks import rows_not_dead
from fedimb.selection.projections import project


def unit(*shape, seed=0):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=-1, keepdim=True)


def labels(n, classes, seed=1):
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))


def test_a_case_worked_by_hand():
    vectors = torch.eye(3)
    row = torch.tensor([[0.6, 0.8, 0.0]])
    found = project(row.repeat(3, 1), torch.tensor([0, 1, 2]), vectors)
    wanted = [[0.6, 0.8, 0.8], [0.8, 0.6, 0.6], [0.0, 1.0, 0.8]]
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), d=st.integers(2, 30), classes=st.integers(2, 6), seed=st.integers(0, 99))
def test_rs_and_ds_are_the_legs_of_a_unit_triangle_and_all_agree_with_loops(n, d, classes, seed):
    points, vectors, y = unit(n, d, seed=seed), unit(classes, d, seed=seed + 1), labels(n, classes, seed)
    found = project(points, y, vectors)
    assert torch.allclose(found[:, 0] ** 2 + found[:, 1] ** 2, torch.ones(n, dtype=torch.float64), atol=1e-12)
    v, t = points.double().numpy(), vectors.double().numpy()
    for i, c in enumerate(y.tolist()):
        rs = float(v[i] @ t[c])
        row = [rs, np.linalg.norm(v[i] - rs * t[c]), max(float(v[i] @ t[j]) for j in range(classes) if j != c)]
        assert np.allclose(found[i], row, atol=1e-6)


def test_blocks_join_without_a_seam():
    points, y, vectors = unit(20_000, 3), labels(20_000, 4), unit(4, 3, seed=5)
    whole = project(points, y, vectors)
    assert torch.equal(whole[8190:8200], project(points[8190:8200], y[8190:8200], vectors))


def test_a_class_without_a_vector_has_no_scores_and_confuses_nobody():
    vectors = torch.tensor([[1.0, 0, 0], [torch.nan] * 3, [0, 0, 1.0]])
    found = project(torch.tensor([[0.0, 1, 0], [0.0, 1, 0], [0.6, 0.8, 0]]), torch.tensor([0, 1, 2]), vectors)
    assert torch.isnan(found[1]).all()
    assert found[0].tolist() == [0, 1, 0]
    assert found[2].tolist() == pytest.approx([0, 1, 0.6])


def test_with_one_class_vector_nothing_is_confusable():
    found = project(torch.eye(2), torch.zeros(2, dtype=torch.int64), torch.tensor([[1.0, 0]]))
    assert torch.isnan(found[:, 2]).all()
    assert found[:, 0].tolist() == [1, 0]


def test_no_rows_no_scores():
    assert project(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), unit(3, 4)).shape == (0, 3)


@pytest.mark.parametrize(
    ("points", "y", "vectors", "message"),
    [
        (torch.full((2, 3), torch.nan), [0, 1], torch.eye(3), "embeddings of 2 of 2 rows are NaN"),
        (2 * torch.eye(3), [0, 1, 2], torch.eye(3), "length 1; one has 2"),
        (torch.eye(3), [0, 1, 2], torch.eye(3) * 0.5, "class vectors must have length 1"),
        (torch.eye(3), [0, 1, 3], torch.eye(3), "labels run from 0 to 3"),
        (torch.eye(3), [0, 1], torch.eye(3), "one int64 label per row"),
        (torch.eye(3), [0, 1, 2], torch.eye(4), "do not match"),
    ],
)
def test_what_cannot_be_scored_is_refused(points, y, vectors, message):
    with pytest.raises(DataError, match=message):
        project(points, torch.tensor(y), vectors)


def test_features_of_a_dead_model_say_what_to_do():
    with pytest.raises(DataError, match=r"all zero for 1 of 2 rows: its units are dead.*lower local\.lr"):
        rows_not_dead(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    assert rows_not_dead(torch.eye(2)).equal(torch.eye(2))
