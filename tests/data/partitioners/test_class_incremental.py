"""Which class appears in which phase."""

import numpy as np
import pytest

from fedimb.data.federation import Federation
from fedimb.data.partitioners.class_incremental import ClassIncremental
from fedimb.data.prepare import prepare
from fedimb.errors import ConfigError, DataError

NAMES = tuple("abcdefg")
COUNTS = np.array([70, 5, 60, 10, 50, 20, 40])  # from the most frequent: 0 2 4 6 5 3 1


def classes(phases, counts=COUNTS, seed=0, **settings):
    return ClassIncremental(phases, **settings).classes(counts, NAMES[: len(counts)], np.random.default_rng(seed))


def test_by_frequency_and_its_reverse():
    assert classes(3) == ((0, 2, 4), (5, 6), (1, 3))
    assert classes(3, order="rare_first") == ((1, 3, 5), (4, 6), (0, 2))


@pytest.mark.parametrize("seed", range(5))
def test_mixed_phases_have_a_long_tail_each(seed):
    found = classes(3, order="mixed", seed=seed)
    assert [len(own) for own in found] == [3, 2, 2]
    for group in ({0, 2, 4}, {6, 5, 3}):  # of neighbours in frequency each phase has one
        assert all(len(group & set(own)) == 1 for own in found)


@pytest.mark.parametrize("order", ["mixed", "shuffled"])
def test_a_drawn_order_is_the_seed_s(order):
    drawn = [classes(3, order=order, seed=seed) for seed in range(4)]
    assert drawn[0] == classes(3, order=order, seed=0)
    assert len(set(drawn)) > 1
    assert all(sorted(c for own in one for c in own) == list(range(7)) for one in drawn)


def test_a_list_of_names_and_numbers():
    assert classes([["b", "a"], [6], ["c", 3, "e", 5]]) == ((0, 1), (6,), (2, 3, 4, 5))


@pytest.mark.parametrize(
    ("phases", "settings", "message"),
    [
        (1, {}, "give at least 2"),
        ([["a"]], {}, "give at least 2"),
        (2, {"order": "rarest"}, "no order 'rarest'"),
        ([[0], [1]], {"order": "mixed"}, "leave order out"),
        (2, {"rows": {"name": "class_incremental"}}, "give one that deals rows"),
        (2, {"rows": {"name": "annotated_subsets"}}, "give one that deals rows"),
        (2, {"rows": {"name": "virtual"}}, "deals no rows"),
    ],
)
def test_settings_that_cannot_be(phases, settings, message):
    with pytest.raises(ConfigError, match=message):
        ClassIncremental(phases, **settings)


@pytest.mark.parametrize(
    ("phases", "counts", "message"),
    [
        (8, COUNTS, "set partition.phases to at most 7"),
        ([["a", "h"], [1]], COUNTS, "no class 'h'"),
        ([[0, 7], [1]], COUNTS, "there are 0 to 6"),
        ([[0, "a"], [1, 2, 3, 4, 5, 6]], COUNTS, "names class 'a' twice"),
        ([[0, 1, 2, 3], [4, 5]], COUNTS, "does not say when class 'g'"),
        ([[0, 1, 2, 3, 4, 5, 6], []], COUNTS, "phase 2 of partition.phases names no class"),
        (3, np.array([3, 2, 1, 0, 0]), r"no client has a row of phase 3 \(e\)"),
    ],
)
def test_phases_that_the_data_do_not_have(phases, counts, message):
    with pytest.raises(DataError, match=message):
        classes(phases, counts)


DIGITS = {"source": {"name": "digits"}, "test": {"name": "stratified", "fraction": 0.2}, "long_tail": "exponential"}


def test_rows_are_dealt_as_by_the_inner_partition_and_phases_survive_a_file(tmp_path):
    inner = {"name": "dirichlet", "alpha": 0.5}
    data = DIGITS | {"imbalance_factor": 20.0}
    found = prepare(data, {"name": "class_incremental", "phases": 3, "rows": inner}, 4, seed=1)
    alone = prepare(data, inner, 4, seed=1)
    assert found.sha == alone.sha
    assert alone.phases == ()
    counts = found.class_totals
    assert [len(own) for own in found.phases] == [4, 3, 3]
    assert min(counts[list(found.phases[0])]) >= max(counts[list(found.phases[1])])
    found.save(tmp_path)
    assert Federation.load(tmp_path).phases == found.phases
    assert found.phases_line().startswith("phases: 1: ")


def test_rows_with_several_labels_are_in_no_phase(tmp_path):
    rows = [f"{i}.5,{i % 2},{i % 3 // 2}" for i in range(30)]
    (tmp_path / "two.csv").write_text("\n".join(["x,a,b", *rows]) + "\n")
    source = {"name": "tabular_csv", "files": [str(tmp_path / "two.csv")], "target": ["a", "b"]}
    data = {"source": source, "test": {"name": "stratified", "fraction": 0.2}}
    with pytest.raises(DataError, match="several labels"):
        prepare(data, {"name": "class_incremental", "phases": 2}, 3, seed=0)
