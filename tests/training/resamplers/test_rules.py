"""What each resampler adds or leaves out, against hand-made rows and a second computation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.training.resamplers.adasyn import Adasyn
from fedimb.training.resamplers.borderline_smote import BorderlineSmote
from fedimb.training.resamplers.enn import EditedNeighbours
from fedimb.training.resamplers.imovno import ImovnoCleaning, crowding
from fedimb.training.resamplers.smote import Smote
from fedimb.training.resamplers.smote_enn import SmoteEdited
from fedimb.training.resamplers.smote_nc import SmoteNominalContinuous, decode, encode
from fedimb.training.resamplers.tomek import TomekLinks

OVER = [Smote, BorderlineSmote, Adasyn]


def rows(counts, d=3, seed=0, apart=1.0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    return (rng.normal(size=(len(y), d)) + apart * y[:, None]).astype(np.float32), y.astype(np.int64)


def between(point, members):
    """Whether a point lies on a segment between two of the members."""
    for i, a in enumerate(members):
        for b in members[i + 1 :]:
            share = (point - a) @ (b - a) / ((b - a) @ (b - a))
            if -1e-5 <= share <= 1 + 1e-5 and np.linalg.norm(a + share * (b - a) - point) < 1e-4:
                return True
    return False


@pytest.mark.parametrize("kind", OVER)
def test_made_rows_lie_between_rows_of_their_class_after_the_real_ones(kind):
    x, y = rows([30, 6, 3, 1])
    found, classes = kind().resample(x, y, 0)
    assert (found[: len(x)] == x).all()
    assert (classes[: len(y)] == y).all()
    made = list(zip(found[len(x) :], classes[len(y) :], strict=True))
    assert made
    assert all(between(point, x[y == label]) for point, label in made)
    assert 0 not in classes[len(y) :]
    assert 3 not in classes[len(y) :]  # one row: between nothing


@pytest.mark.parametrize(("ratio", "wanted"), [(1.0, [30, 30, 30, 1]), (0.5, [30, 15, 15, 1]), (0.1, [30, 6, 3, 1])])
def test_smote_gives_every_class_the_wanted_share_of_the_largest(ratio, wanted):
    x, y = rows([30, 6, 3, 1])
    assert np.bincount(Smote(ratio=ratio).resample(x, y, 0)[1]).tolist() == wanted


def test_borderline_smote_grows_from_rows_in_danger_alone():
    # 1.0 and 1.3 have two of their three nearest rows in class 0, 9 and more have none; the two nearest rows of the
    # class are the other one and 9
    x = np.concatenate([np.linspace(0, 0.5, 12), [1.0, 1.3, 9.0, 9.1, 9.2]]).astype(np.float32)[:, None]
    y = np.array([0] * 12 + [1] * 5)
    found, classes = BorderlineSmote(k=2, m=3).resample(x, y, 0)
    made = found[len(x) :][:, 0]
    assert np.bincount(classes).tolist() == [12, 12]
    assert ((made >= 1.0) & (made <= 9.0)).all()
    far_apart = BorderlineSmote(m=3).resample(*rows([12, 4], apart=50.0), 0)
    assert np.bincount(far_apart[1]).tolist() == [12, 4]  # nobody is in danger


def test_adasyn_grows_in_proportion_to_neighbours_of_other_classes():
    x, y = rows([40, 10], seed=2, apart=1.5)
    _, classes = Adasyn(k=5).resample(x, y, 0)
    distance = np.linalg.norm(x[y == 1][:, None] - x, axis=2)
    near = np.argsort(distance, axis=1)[:, 1:6]
    share = (y[near] == 0).mean(axis=1)
    assert (classes == 1).sum() - 10 == np.rint(share / share.sum() * 30).sum()
    far_apart = Adasyn().resample(*rows([12, 4], apart=50.0), 0)
    assert np.bincount(far_apart[1]).tolist() == [12, 4]


def agreeing(x, y, k):
    distance = np.linalg.norm(x[:, None].astype(np.float64) - x, axis=2)
    np.fill_diagonal(distance, np.inf)
    return (y[np.argsort(distance, axis=1)[:, :k]] == y[:, None]).all(axis=1)


@pytest.mark.parametrize("keep_minority", [True, False])
def test_enn_leaves_out_rows_that_disagree_with_a_neighbour_and_keeps_the_minority_if_asked(keep_minority):
    x, y = rows([40, 12, 8])
    found, classes = EditedNeighbours(k=3, keep_minority=keep_minority).resample(x, y, 0)
    stays = agreeing(x, y, 3) | (keep_minority & (y != 0))
    assert 0 < stays.sum() < len(y)
    assert (found == x[stays]).all()
    assert (classes == y[stays]).all()
    if keep_minority:
        assert np.bincount(classes)[1:].tolist() == [12, 8]


def test_tomek_links_lose_the_row_of_the_larger_class():
    x, y = np.array([[0.0], [0.4], [1.0], [1.1], [5.0]], dtype=np.float32), np.array([0, 0, 0, 1, 1])
    assert TomekLinks().resample(x, y, 0)[0][:, 0].tolist() == pytest.approx([0.0, 0.4, 1.1, 5.0])
    assert TomekLinks(keep_minority=False).resample(x, y, 0)[0][:, 0].tolist() == pytest.approx([0.0, 0.4, 5.0])


@pytest.mark.parametrize("keep_minority", [True, False])
def test_smote_enn_is_smote_then_enn_and_real_rows_of_rare_classes_stay_if_asked(keep_minority):
    x, y = rows([40, 6, 4])
    grown_x, grown_y = Smote().resample(x, y, 7)
    stays = agreeing(grown_x, grown_y, 3)
    if keep_minority:
        stays[: len(y)] |= y != 0
    found, classes = SmoteEdited(keep_minority=keep_minority).resample(x, y, 7)
    assert (found == grown_x[stays]).all()
    assert (classes == grown_y[stays]).all()
    assert len(found) < len(grown_x)


LINE = [0, 0.1, 0.2, 0.3, 0.4, 3.2, 4.9, 5.2, 6.0, 5.6, 6.1, 6.3, 6.4]  # nine rows of class 0, four of class 1


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        ({}, [6.0, 5.2, 4.9]),  # its three neighbours are of class 1; 0.4 and 0.7 from class 1, then a gap to 2.4
        ({"least": 7}, [6.0, 5.2]),
        ({"least": 8}, [6.0]),
        ({"least": 9}, []),
        ({"core": 0.6}, [6.0]),  # two of three neighbours are enough: no overlap
        ({"noise": 0.4, "keep_minority": False}, [6.0, 5.2, 4.9]),  # least=5: class 1 has four rows
        ({"noise": 0.4, "keep_minority": False, "least": 3}, [6.0, 5.2, 4.9, 5.6]),
    ],
)
def test_imovno_leaves_out_noise_and_the_largest_class_below_the_big_jump(settings, gone):
    x, y = np.array(LINE, np.float32)[:, None], np.repeat([0, 1], [9, 4])
    found, classes = ImovnoCleaning(**({"k": 3} | settings)).resample(x, y, 0)
    stays = [place for place, value in enumerate(LINE) if value not in gone]
    assert (found == x[stays]).all()
    assert (classes == y[stays]).all()


@given(hnp.arrays(np.float64, st.integers(0, 20), elements=st.floats(0, 1e6)))
def test_what_crowds_is_below_the_largest_gap(distance):
    near = crowding(distance)
    assert len(near) < max(len(distance), 1)
    if len(near):
        order = np.sort(distance)
        gaps = np.diff(order)
        assert gaps[len(near) - 1] == pytest.approx(gaps.max(), rel=1e-6)
        assert sorted(distance[near]) == order[: len(near)].tolist()
    else:
        assert len(distance) < 3 or np.ptp(distance) <= 1e-9 * distance.max()


def test_imovnos_regions_must_not_overlap():
    with pytest.raises(ConfigError, match=r"noise=0\.7 must be below core=0\.7"):
        ImovnoCleaning(noise=0.7)


def mixed(seed=0):
    """Two numbers, a column of four categories of which rare rows have only two, and a missing mark."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], [40, 8]).astype(np.int64)
    category = np.where(y == 0, rng.integers(0, 5, 48), rng.integers(1, 3, 48))  # 4: none of them
    onehot, mark = np.eye(5)[category][:, :4], rng.integers(0, 2, 48)
    return np.column_stack([rng.normal(size=48), onehot, rng.normal(size=48), mark]).astype(np.float32), y


GROUPS = ((1, 5), (6, 7))


def test_smote_nc_draws_numbers_and_never_a_category_that_no_row_of_the_class_has():
    x, y = mixed()
    found, classes = SmoteNominalContinuous(categories=GROUPS).resample(x, y, 0)
    assert (found[: len(x)] == x).all()
    made = found[len(x) :]
    assert np.bincount(classes).tolist() == [40, 40]
    own = x[y == 1]
    for start, stop in GROUPS:
        seen = {tuple(row) for row in own[:, start:stop].tolist()}
        assert {tuple(row) for row in made[:, start:stop].tolist()} <= seen
    numbers = [0, 5]
    assert (made[:, numbers] >= own[:, numbers].min(axis=0) - 1e-5).all()
    assert (made[:, numbers] <= own[:, numbers].max(axis=0) + 1e-5).all()
    assert len({tuple(row) for row in made[:, numbers].tolist()}) == len(made)


def test_categories_come_back_as_they_went():
    x, _ = mixed()
    coded = encode(x, GROUPS)
    assert coded.shape == (48, 4)
    assert set(coded[:, 2]) == {0, 1, 2, 3, 4}
    assert (decode(coded, GROUPS, x.shape[1]) == x).all()


def test_a_table_with_categories_is_refused_where_numbers_would_be_drawn_between_them():
    for name in ("smote", "borderline_smote", "adasyn", "smote_enn"):
        with pytest.raises(ConfigError, match=r"2 columns of categories or missing marks.*use resampler=smote_nc"):
            registry.build("resampler", name, {"categories": GROUPS})
    for none in ((), None):
        with pytest.raises(ConfigError, match="these data have none; use resampler=smote"):
            SmoteNominalContinuous(categories=none)
    with pytest.raises(ConfigError, match="needs a column of numbers"):
        SmoteNominalContinuous(categories=((0, 2), (2, 5))).check((5,))


@pytest.mark.parametrize("name", [name for name in registry.names("resampler") if name != "none"])
def test_images_are_refused(name):
    given = {"categories": GROUPS if name == "smote_nc" else None}
    with pytest.raises(ConfigError, match=r"these data are \(1, 8, 8\); give embeddings"):
        registry.build("resampler", name, given).check((1, 8, 8))


@pytest.mark.parametrize("wrong", [{"k": 0}, {"ratio": 0.0}, {"ratio": 1.1}])
def test_arguments_outside_their_range_are_refused(wrong):
    for kind in OVER:
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
            kind(**wrong)
