import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import ConfigError, DataError
from fedimb.generation.smote import oversample, smote


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 3), max_size=25), st.lists(st.integers(0, 9), min_size=4, max_size=4), st.integers(0, 2**32)
)
def test_makes_what_is_wanted_of_classes_with_two_rows(labels, wanted, seed):
    y = torch.tensor(labels, dtype=torch.int64)
    x = torch.rand(len(y), 2, 3, generator=seeded(seed))
    made, made_y = smote(x, y, torch.tensor(wanted), seeded(seed))
    sizes = torch.bincount(y, minlength=4)
    assert torch.bincount(made_y, minlength=4).tolist() == [
        w if n >= 2 else 0 for w, n in zip(wanted, sizes, strict=True)
    ]
    assert made.shape == (len(made_y), 2, 3)
    assert made.dtype == x.dtype
    again, _ = smote(x, y, torch.tensor(wanted), seeded(seed))
    assert torch.equal(made, again)


def test_points_lie_between_a_row_and_one_of_its_k_nearest():
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0], [100.0]])
    y = torch.tensor([0, 0, 0, 0, 1])
    made, _ = smote(x, y, torch.tensor([4000, 50]), seeded(), k=1)
    points = made[:, 0]
    assert points.max() <= 7  # class 1 has one row, and no line leads to it
    # Nearest of 0, 1, 3, 7 are 1, 0, 1, 3: a half of the points in [0, 1], a quarter each in [1, 3] and [3, 7].
    shares = torch.stack([((points >= a) & (points < b)).double().mean() for a, b in ((0, 1), (1, 3), (3, 7))])
    assert torch.allclose(shares, torch.tensor([0.5, 0.25, 0.25]).double(), atol=0.03)
    second = points[(points > 3) & (points < 7)]
    assert abs(float(second.mean()) - 5) < 0.15  # uniform on the line


def test_more_neighbours_than_there_are_is_all_there_are():
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    made, _ = smote(x, torch.zeros(2, dtype=torch.int64), torch.tensor([50]), seeded(), k=5)
    assert torch.equal(made[:, 0], made[:, 1])
    assert len(made.unique(dim=0)) == 50


def test_wrong_settings_and_labels_are_refused():
    x, y = torch.rand(3, 2), torch.tensor([0, 1, 1])
    with pytest.raises(ConfigError, match="k=0"):
        smote(x, y, torch.tensor([1, 1]), seeded(), k=0)
    with pytest.raises(DataError, match="label"):
        smote(x, y, torch.tensor([1]), seeded())
    with pytest.raises(DataError, match="at least 0"):
        oversample(y, torch.tensor([-1, 1]), seeded())


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 3), max_size=25),
    st.lists(st.integers(0, 30), min_size=4, max_size=4),
    st.integers(0, 2**32),
)
def test_oversampling_shows_each_row_of_a_class_equally_often(labels, wanted, seed):
    y = torch.tensor(labels, dtype=torch.int64)
    chosen = oversample(y, torch.tensor(wanted), seeded(seed))
    assert chosen.dtype == torch.int64
    times = torch.bincount(chosen, minlength=len(y))
    for c in range(4):
        of_class = times[y == c]
        assert of_class.sum() == (wanted[c] if len(of_class) else 0)
        assert len(of_class) == 0 or of_class.max() - of_class.min() <= 1
