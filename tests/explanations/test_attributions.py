"""Attributions where the right value is known: a linear model, a planted patch; and what random weights must not do."""

import numpy as np
import pytest
import torch
from torch import nn

from fedimb import registry
from fedimb.data.inputs import TableColumns
from fedimb.errors import ConfigError
from fedimb.explanations.base import ClientRows, choose_rows
from fedimb.explanations.layout import InputLayout
from fedimb.explanations.quality import overlap, pointing_game, rank_correlation, sanity
from fedimb.models.base import Classifier
from fedimb.shapes import SignalShape


class Linear(Classifier):
    def __init__(self, width: int, classes: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.head = nn.Linear(width, classes)

    def features(self, x):
        return x.flatten(1)


class Small(Classifier):
    """One convolution, then the mean: what a place adds to the logit is its own value in the map."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
            self.head = nn.Linear(8, 2)

    def features(self, x):
        return self.body(x).mean(dim=(2, 3))


def trained(model, x, y, steps=150, lr=0.5):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model.eval()


def planted(n=60, side=8, seed=0):
    """Faint noise; rows of class 1 have a bright 3 x 3 patch somewhere: x, y and the mask of the patch."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 0.1, (n, 1, side, side)).astype(np.float32)
    y = np.arange(n) % 2
    masks = np.zeros((n, side, side), bool)
    for i in np.flatnonzero(y):
        top, left = rng.integers(0, side - 2, 2)
        masks[i, top : top + 3, left : left + 3] = True
        x[i, 0][masks[i]] = 1
    return torch.from_numpy(x), torch.from_numpy(y), masks


def rows_of(model, x, y, drawn, people=None, layout=None):
    return ClientRows(
        model=model.eval(),
        x=x,
        y=np.asarray(y),
        people=np.arange(len(y)) if people is None else people,
        held_out=x[:0],
        class_names=("common", "rare"),
        layout=layout or InputLayout.of(tuple(x.shape[1:]), model),
        seed=1,
        with_random_weights=drawn,
    )


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("lstm", (3, 16), "signal"),  # no convolution says so
        ("cnn_transformer", (3, 16), "signal"),
        ("mlp", (3, 16), "signal"),
        ("mlp", SignalShape((6, 16)), "signal"),
        ("mlp", (16, 16), "picture"),
        ("cnn4conv", (16, 16), "picture"),
    ],
)
def test_windows_of_signals_are_no_pictures_whatever_the_model(name, shape, kind):
    model = registry.build("model", name, given={"n_classes": 2, "input_shape": shape})
    layout = InputLayout.of(shape, model)
    assert layout.kind == kind
    groups = layout.feature_mask(8)[0].unique(return_counts=True)[1]
    assert groups.tolist() == ([8] * (2 * shape[0]) if kind == "signal" else [64] * 4)


@pytest.mark.parametrize("name", ["integrated_gradients", "shapley_sampling", "kernel_shap", "lime"])
def test_of_a_linear_model_they_are_w_times_the_difference(name):
    pytest.importorskip("captum")
    model = Linear(5, 3)
    x, baseline = (torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) for n in (4, 1))
    y = torch.tensor([0, 1, 2, 1])
    wanted = (model.head.weight[y] * (x - baseline)).detach()
    part = registry.build("explanation", name, **({"penalty": 0.0} if name == "lime" else {}))
    found = part.explain(model, x, y, baseline, InputLayout.of((5,), model), seed=0)
    assert torch.allclose(found, wanted, atol=2e-5)
    assert torch.equal(part.explain(model, x, y, baseline, InputLayout.of((5,), model), seed=0), found)


@pytest.mark.parametrize("name", ["integrated_gradients", "grad_cam", "shapley_sampling"])
def test_a_planted_patch_is_pointed_at_in_every_row(name):
    pytest.importorskip("captum")
    x, y, masks = planted()
    model = trained(Small(), x, y)
    assert (model(x).argmax(1) == y).all()
    settings = {"square": 1, "samples": 2} if name == "shapley_sampling" else {}
    part = registry.build("explanation", name, **settings)
    layout = InputLayout.of((1, 8, 8), model)
    some = torch.where(y == 1)[0][:10]
    signed = part.explain(model, x[some], y[some], torch.zeros(1, 1, 8, 8), layout, seed=0)
    assert pointing_game(part._shown(signed, layout).numpy(), masks[some]) == 1.0


def test_the_pointing_game_counts_misses_and_leaves_out_rows_without_a_mask():
    maps = np.array([[0.1, 0.9], [0.9, 0.1], [0.5, 0.5]])
    masks = np.array([[False, True], [False, True], [False, False]])
    assert pointing_game(maps, masks) == 0.5


def test_a_trained_model_passes_the_sanity_check_and_models_with_random_weights_fail_it():
    pytest.importorskip("captum")
    x, y, _ = planted(40)
    part = registry.build("explanation", "integrated_gradients", steps=1, rows=10, pictures=0)
    layout = InputLayout.of((1, 8, 8), Linear(64, 2))

    def verdict(model, first=100):
        found = part.at_client(rows_of(model, x, y, lambda k: Linear(64, 2, first + k).eval(), layout=layout))
        return part.combine({0: {**found.by_class, **found.overall}}, layout, ("common", "rare"))["sanity"]

    assert verdict(trained(Linear(64, 2), x, y))["passed"]
    passed = sum(verdict(Linear(64, 2, seed), 1000 + 20 * seed)["passed"] for seed in range(8))
    assert passed <= 2  # each with probability 1/20: more than two of eight in 0.6 % of such tests


def test_an_explanation_that_ignores_the_model_never_passes():
    assert not sanity(np.full(20, 0.4), 1.0).passed
    assert sanity(np.array([0.5, *np.zeros(19)]), 0.0).p == 0.05
    assert not sanity(np.array([-0.5, *np.zeros(19)]), 0.0).passed


def test_ranks_and_overlap_have_known_values():
    one = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    assert rank_correlation(one[:1], -one[:1]) == pytest.approx(-1)
    assert rank_correlation(one[:1], np.exp(one[:1])) == pytest.approx(1)
    assert rank_correlation(one[1:], one[:1]) == 0
    assert overlap(np.array([0.5, 0.5, 0]), np.array([0, 0.5, 0.5])) == 0.5


def test_rows_are_of_as_many_people_as_possible_and_few_people_give_none():
    y = np.array([0] * 12 + [1] * 30)
    people = np.array([*range(12), *np.arange(30) // 5 + 100])  # 12 people; 6 people of 5 rows
    rng = np.random.default_rng(0)
    chosen = choose_rows(y, people, 3, 6, 6, rng)
    assert [len(own) for own in chosen] == [6, 6, 0]
    assert len(set(people[chosen[1]])) == 6
    assert [len(own) for own in choose_rows(y, people, 3, 30, 7, rng)] == [12, 0, 0]


def test_windows_of_signals_are_no_pictures_whatever_model_reads_them():
    recurrent = nn.Sequential(nn.LSTM(3, 2))
    for shape, model in ((SignalShape((3, 8)), Linear(24, 2)), ((3, 8), recurrent), ((2, 40), Linear(80, 2))):
        layout = InputLayout.of(shape, model)
        assert layout.kind == "signal"
        assert len(layout.feature_mask(4).unique()) == shape[0] * shape[1] // 4  # no square spans two channels
    assert InputLayout.of((8, 8), Linear(64, 2)).kind == "picture"


@pytest.mark.parametrize("name", ["lime", "integrated_gradients"])
def test_the_sanity_check_is_of_as_many_people_as_every_figure_that_leaves(name):
    part = registry.build("explanation", name, floor=25, rows=60)
    apart = np.arange(60)
    assert len(part._checked_places(apart, np.array([0, 30, 30, 60]))) == 25
    shared = np.array([*range(30), *range(30)])  # both classes are of the same people
    places = part._checked_places(shared, np.array([0, 30, 30, 60]))
    assert len(np.unique(shared[places])) == 25
    few = registry.build("explanation", name, floor=3, rows=60)
    each = few.checked_rows // 2
    assert few._checked_places(apart, np.array([0, 30, 30, 60])).tolist() == [*range(each), *range(30, 30 + each)]


def test_a_tables_columns_are_added_up_and_a_pictures_channels_too():
    columns = TableColumns(("age", "sex"), {"sex": ("f", "m")}, indicators=("age",))
    layout = InputLayout.of((4,), Linear(4, 2), columns)
    assert layout.names == ("age", "sex", "age missing")
    assert layout.group.tolist() == [0, 1, 1, 2]
    maps = layout.maps(torch.tensor([[1.0, 2.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    assert maps.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    picture = InputLayout.of((2, 1, 2), Linear(4, 2))
    assert picture.maps(torch.tensor([[[[1.0, 0.0]], [[-1.0, 2.0]]]])).tolist() == [[[0.5, 0.5]]]


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("integrated_gradients", {"randomized": 5}, "give 19 or more, or 0"),
        ("lime", {"rows": 5}, "rows=5 is below floor=10"),
        ("what_if", {"rows": 5}, "rows=5 is below floor=10"),
    ],
)
def test_settings_that_show_nothing_are_refused(name, settings, says):
    with pytest.raises(ConfigError, match=says):
        registry.build("explanation", name, **settings)


def test_without_captum_one_line_names_the_extra(monkeypatch):
    monkeypatch.setattr("fedimb.explanations.base.find_spec", lambda name: None)
    part = registry.build("explanation", "lime")
    with pytest.raises(ConfigError, match=r"needs captum: pip install 'fedimb\[explain\]'"):
        part.check(Linear(4, 2), InputLayout.of((4,), Linear(4, 2)), "multiclass", ("a", "b"))


def test_grad_cam_needs_a_convolution_with_places():
    part = registry.build("explanation", "grad_cam")
    with pytest.raises(ConfigError, match="use integrated_gradients"):
        part.check(Linear(4, 2), InputLayout.of((4,), Linear(4, 2)), "multiclass", ("a", "b"))
