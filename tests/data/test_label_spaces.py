"""Which classes each client annotates: what its labels say of the others, and what that counts for."""

import numpy as np
import pytest
import torch
from small_runs import config

from fedimb.data.arrays import SourceData
from fedimb.data.federation import Federation
from fedimb.data.label_spaces import UNKNOWN, ClientLabels, LabelsConfig, LabelSpaces, label_spaces, labels_of_site
from fedimb.data.partitioners.annotated_subsets import AnnotatedSubsets
from fedimb.data.prepare import prepare
from fedimb.data.store import Store
from fedimb.data.views import ClientData
from fedimb.errors import ConfigError, DataError

NAMES = ("car", "truck", "rider", "train")


def spaces(raw, clients=2, names=NAMES, task="multiclass", sites=None):
    return label_spaces(LabelsConfig.parse(raw), clients, names, task, sites or {})


def test_a_client_that_is_not_named_annotates_every_class_and_the_rest_of_another_is_one_coarse_label():
    found = spaces({"annotated": {0: ["car", 1]}})
    assert found.annotated.tolist() == [[True, True, False, False], [True] * 4]
    assert found.seen.tolist() == [[0, 1, 4, 4], [0, 1, 2, 3]]  # C + 0 for rider and train
    assert found.sets.tolist() == [[False, False, True, True]]
    assert found.kept("multiclass") is None
    assert found.kept("multilabel") == "cells"
    assert spaces({"annotated": {0: ["car", 1]}, "unknown": "coarse"}).kept("multiclass") == "coarse"


def test_five_classes_at_one_site_map_to_eight_at_another():
    """The form of HeroCrystal's class lists: a site that has one word for several classes of the run."""
    names = ("car", "truck", "rider", "person", "train", "motorcycle", "bicycle", "bus")
    found = spaces({"coarse": {"kitti": [["truck", "bus"], ["rider", "motorcycle", "bicycle"]]}}, 2, names,
                   sites={"kitti": [1]})  # fmt: skip
    assert found.seen[0].tolist() == list(range(8))
    assert found.seen[1].tolist() == [0, 8, 9, 3, 4, 9, 9, 8]
    assert [np.flatnonzero(one).tolist() for one in found.sets] == [[1, 7], [2, 5, 6]]
    assert int(found.annotated[1].sum()) == 3


def test_where_every_client_annotates_everything_there_is_nothing_to_say():
    assert spaces({}) is None
    assert spaces({"annotated": {"0": list(NAMES)}}) is None


@pytest.mark.parametrize(
    ("raw", "error", "says"),
    [
        ({"annotated": {"0": ["cra"]}}, ConfigError, "data.labels.annotated.0: no class 'cra'. Did you mean 'car'?"),
        ({"annotated": {"2": ["car"]}}, ConfigError, "there is no client or site '2'; give one of 0 to 1"),
        ({"annotated": {"0": []}}, ConfigError, "each with a list of classes"),
        ({"annotatd": {}}, ConfigError, "Did you mean 'data.labels.annotated'?"),
        ({"coarse": {"0": [["car"]]}}, ConfigError, "lists of at least two classes"),
        ({"coarse": {"0": [["car", "truck"], ["truck", "rider"]]}}, ConfigError, "class 'truck' is in it twice"),
        ({"unknown": "negative"}, ConfigError, "data.labels.unknown: no rule 'negative'"),
        ({"annotated": {"0": ["car"]}, "coarse": {"0": [["car", "truck"]]}}, ConfigError, "annotated.0 lists it too"),
        ({"annotated": {"0": [4]}}, ConfigError, "no class '4'"),
        ({"annotated": {"0": ["car"], "1": ["car", "truck", "rider"]}}, DataError, "no client annotates class 'train'"),
    ],
)
def test_a_wrong_declaration_is_refused_with_place_and_remedy(raw, error, says):
    with pytest.raises(error) as caught:
        spaces(raw)
    assert says in str(caught.value)


@pytest.mark.parametrize(("given", "says"), [(1, "1 is the id of class '2'"), (3, "no class has the id 3")])
def test_a_class_whose_name_is_a_number_is_given_as_text(given, says):
    assert spaces({"annotated": {"0": ["1", "3"]}}, names=("1", "2", "3")).seen[0].tolist() == [0, 3, 2]
    with pytest.raises(ConfigError, match=f"{says}.*write names as text: '{given}'"):
        spaces({"annotated": {"0": [given]}}, names=("1", "2", "3"))


def test_a_site_is_named_once_and_its_name_is_not_taken_for_another_sites_client_id():
    for kind, one in (("annotated", ["car", "truck"]), ("coarse", [["car", "truck"]])):
        with pytest.raises(ConfigError, match=f"data.labels.{kind}.0: this is client 0, as 'kitti' is"):
            spaces({kind: {"kitti": one, "0": one}}, sites={"kitti": [0]})
    config = LabelsConfig.parse({"annotated": {"1": ["car", "truck"]}})
    assert labels_of_site(config, ("1", "2"), 0, NAMES).seen.tolist() == [0, 1, 4, 4]
    assert labels_of_site(config, ("1", "2"), 1, NAMES) is None
    by_id = LabelsConfig.parse({"annotated": {"1": ["car", "truck"]}})
    assert labels_of_site(by_id, ("linz", "va"), 1, NAMES).seen.tolist() == [0, 1, 4, 4]


def test_several_labels_have_cells_not_coarse_labels():
    for raw in ({"unknown": "coarse"}, {"coarse": {"0": [["car", "truck"]]}}):
        with pytest.raises(ConfigError, match="a coarse label is of rows with one class"):
            spaces(raw, task="multilabel")


def test_a_classs_rows_are_counted_over_the_clients_that_annotate_it():
    found = spaces({"annotated": {"0": ["car", "truck"]}})
    found = LabelSpaces(found.seen, found.sets, "coarse", rows=np.array([300, 100]), left_out=np.zeros(2, np.int64))
    assert found.known_share.tolist() == [1.0, 1.0, 0.25, 0.25]
    true = np.array([[150, 30, 90, 30], [50, 10, 30, 10]])
    known = found.counts(true)
    assert known.tolist() == [[150, 30, 0, 0], [50, 10, 30, 10]]
    assert found.full_counts(known.sum(axis=0).astype(float)).tolist() == true.sum(axis=0).tolist()


def test_no_label_is_known_only_as_far_as_the_others_are():
    part = ClientLabels(np.array([0, 3, 2]), np.array([[False, True, False]]), none=2)
    targets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.uint8)
    nan = np.nan
    expected = [[1, nan, 0], [0, nan, nan], [0, nan, nan]]
    np.testing.assert_array_equal(part.targets(targets), np.array(expected, np.float32))
    whole = ClientLabels(np.arange(3), np.zeros((0, 3), bool), none=2)
    np.testing.assert_array_equal(whole.targets(targets), targets.astype(np.float32))


def several(tmp_path):
    x = np.arange(5, dtype=np.float32)[:, None]
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]], np.uint8)
    y = np.array([0, 1, 1, 2, 2])
    data = SourceData(x=x, y=y, class_names=("a", "b", "c"), targets=targets, task="multilabel")
    return Store.build(data, tmp_path / "s", "f")


def test_a_cell_of_a_class_that_the_client_does_not_annotate_is_unknown_in_every_view(tmp_path):
    labels = ClientLabels(np.array([0, 3, 2]), np.array([[False, True, False]]))
    data = ClientData(several(tmp_path), np.array([0, 1, 2, 3]), np.array([4]), labels=labels)
    y = data.tensors("train")[1]
    assert torch.isnan(y[:, 1]).all()
    assert y[:, [0, 2]].tolist() == [[1, 0], [0, 0], [1, 0], [0, 1]]
    assert data.tensors("validation")[1][0].isnan().tolist() == [False, True, False]
    assert data.counts("train").tolist() == [2, 0, 1]
    # Row 1 has only the label that is not known here; row 2's rarest known one is a.
    assert data.primary("train").tolist() == [0, UNKNOWN, 0, 2]
    assert data.label_sets is None
    # The true labels cannot be reached around the views.
    assert data.store.targets is None
    assert set(np.asarray(data.store.y).tolist()) == {UNKNOWN}
    with pytest.raises(DataError):
        data.store.class_counts(np.arange(2))
    with pytest.raises(DataError, match="annotates only some classes"):
        data.hide_labels()


def test_a_row_of_a_class_that_the_client_does_not_annotate_has_a_coarse_label(tmp_path):
    data = SourceData(x=np.zeros((4, 1), np.float32), y=np.array([0, 1, 2, 2]), class_names=("a", "b", "c"))
    labels = ClientLabels(np.array([0, 3, 3]), np.array([[False, True, True]]))
    client = ClientData(Store.build(data, tmp_path / "s", "f"), np.array([0, 1, 2]), np.array([3]), labels=labels)
    assert client.tensors("trained_on")[1].tolist() == [0, 3, 3]
    assert client.primary("trained_on").tolist() == [0, 3, 3]
    assert client.counts("train").tolist() == [1, 0, 0]
    assert client.counts("validation").tolist() == [0, 0, 0]
    assert client.label_sets.tolist() == [[False, True, True]]


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_annotated_by_a_holder_and_the_annotators_are_spread(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, (6, 8)) * rng.integers(0, 2, (6, 8))
    counts[rng.integers(6), counts.sum(axis=0) == 0] = 1
    found = AnnotatedSubsets(classes=[3, 5]).annotated(counts, np.random.default_rng(seed))
    assert (found.sum(axis=1) >= 3).all()
    assert (found.sum(axis=1) <= 5).all()
    assert (found & (counts > 0)).any(axis=0).all()
    again = AnnotatedSubsets(classes=[3, 5]).annotated(counts, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, again)


def test_with_the_same_rows_everywhere_two_classes_differ_by_one_annotator_at_most():
    found = AnnotatedSubsets(classes=3).annotated(np.ones((4, 10), np.int64), np.random.default_rng(0))
    assert found.sum(axis=1).tolist() == [3, 3, 3, 3]
    assert sorted(found.sum(axis=0).tolist()) == [1] * 8 + [2] * 2


def test_too_few_slots_and_wrong_settings_are_refused():
    with pytest.raises(DataError, match=r"raise partition\.classes"):
        AnnotatedSubsets(classes=2).annotated(np.ones((4, 10), np.int64), np.random.default_rng(0))
    for wrong in (0, [3], [4, 3]):
        with pytest.raises(ConfigError, match=r"or \[fewest, most\]"):
            AnnotatedSubsets(classes=wrong)
    with pytest.raises(ConfigError, match="has its rows dealt by another itself"):
        AnnotatedSubsets(rows={"name": "annotated_subsets"})


SUBSETS = ("partition=annotated_subsets", "partition.classes=[3,5]", "partition.rows={name: dirichlet, alpha: 0.5}")


def prepared(*words):
    one = config(*words)
    return prepare(one.data, one.partition, one.clients.count, one.seed)


def test_masked_rows_are_left_out_of_every_list_and_the_federation_comes_back_from_its_folder(tmp_path):
    found, full = prepared(*SUBSETS, "data.validation=0.2"), prepared("partition.alpha=0.5", "data.validation=0.2")
    y, seen = np.asarray(found.store.y), found.labels.annotated
    for k in range(found.n_clients):
        rows = np.sort(np.concatenate([found.train[k], found.validation[k]]))
        dealt = np.sort(np.concatenate([full.train[k], full.validation[k]]))
        np.testing.assert_array_equal(rows, dealt[seen[k][y[dealt]]])  # dealt as without labels of their own
        assert found.labels.rows[k] == len(dealt)
        assert found.labels.left_out[k] == len(dealt) - len(rows)
    np.testing.assert_array_equal(found.counts, found.labels.counts(full.counts))
    assert found.unknown_rule == "masked"
    assert found.unknown_labels is None
    found.save(tmp_path)
    again = Federation.load(tmp_path)
    assert again.sha == found.sha != full.sha
    np.testing.assert_array_equal(again.labels.annotated, seen)
    assert "labels" not in (full.save(tmp_path / "full") or (tmp_path / "full" / "partition.json").read_text())


def test_coarse_rows_stay_and_count_for_no_class():
    found, full = prepared(*SUBSETS, "data.labels.unknown=coarse"), prepared("partition.alpha=0.5")
    assert [list(rows) for rows in found.train] == [list(rows) for rows in full.train]
    np.testing.assert_array_equal(found.counts, found.labels.counts(full.counts))
    assert found.unknown_rule == found.unknown_labels == "coarse"
    k = int(np.argmin(found.labels.annotated.sum(axis=1)))
    y = found.client(k).tensors("train")[1].numpy()
    true = np.asarray(found.store.y)[found.train[k]]
    known = y < found.n_classes
    np.testing.assert_array_equal(y[known], true[known])
    sets = found.labels.sets[y[~known] - found.n_classes]
    assert sets[np.arange(len(sets)), true[~known]].all()  # the true class is always possible
    assert not (sets & found.labels.annotated[k]).any()


def test_validation_rows_that_are_scored_outside_the_clients_have_known_labels():
    found = prepared(*SUBSETS, "data.labels.unknown=coarse", "data.validation=0.3")
    y, rows = np.asarray(found.store.y), found.known_validation()
    owner = {int(row): k for k, own in enumerate(found.validation) for row in own}
    assert 0 < len(rows) < len(owner)
    assert all(found.labels.annotated[owner[int(row)], y[row]] for row in rows)
    masked = prepared(*SUBSETS, "data.validation=0.3")
    np.testing.assert_array_equal(masked.known_validation(), np.sort(masked.validation.rows))


def test_what_has_no_effect_or_contradicts_the_partition_is_refused():
    with pytest.raises(ConfigError, match="without clients that leave a class unannotated"):
        prepared("data.labels.unknown=coarse")
    with pytest.raises(ConfigError, match="beside a partition that draws"):
        prepared(*SUBSETS, "data.labels.annotated={0: ['1']}")


def test_a_class_whose_annotators_hold_no_row_of_it_is_refused():
    alone = prepared("partition=pathological", "partition.classes_per_client=2")
    k = int(np.flatnonzero(alone.counts[:, 9])[0])
    holders = np.flatnonzero(alone.counts[:, 9]).tolist()
    lists = ",".join(f"{h}: ['0','1','2','3','4','5','6','7','8']" for h in holders)
    assert k in holders
    with pytest.raises(DataError, match="no client that annotates class '9' holds a row of it"):
        prepared("partition=pathological", "partition.classes_per_client=2", f"data.labels.annotated={{{lists}}}")
