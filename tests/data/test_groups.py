"""Patients joined with groups of identical rows, and the settings that ask for it."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb import registry
from fedimb.data.arrays import SourceData
from fedimb.data.groups import SplitConfig, joined, row_groups
from fedimb.data.prepare import prepare
from fedimb.data.store import Store
from fedimb.errors import ConfigError, DataError

IDS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40)


@settings(max_examples=50, deadline=None)
@given(IDS)
def test_joined_groups_split_neither_and_are_the_smallest(pairs):
    one, other = (np.array(ids) for ids in zip(*pairs, strict=True))
    found = joined(one, other)
    group = {row: {row} for row in range(len(one))}  # by hand: merge the sets of all pairs of rows that share an id
    for a in range(len(one)):
        for b in range(a):
            if (one[a] == one[b] or other[a] == other[b]) and group[a] is not group[b]:
                group[a] |= group[b]
                for row in group[b]:
                    group[row] = group[a]
    for a in range(len(one)):
        assert set(np.flatnonzero(found == found[a])) == group[a]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("file", r"read with data.test=\{name: file, path: FILE\}"),
        ({"groups": "duplicates"}, "no setting 'data.split.groups'. Did you mean 'group'"),
        ({"group": "duplicate"}, "no rule 'duplicate'. Did you mean 'duplicates'"),
        ({"group": "duplicates", "clients": 1}, "give true or false"),
        ({"clients": True}, "set data.split.group=duplicates too"),
    ],
)
def test_wrong_settings_are_refused(raw, says):
    with pytest.raises(ConfigError, match=says) as refused:
        SplitConfig.parse(raw)
    assert "\n" not in str(refused.value)


def doubled(n=60, patients=True, sites=False):
    """``n`` different rows; each third occurs again, of another patient, three rows later."""
    x = np.arange(n, dtype=np.float32)[:, None].repeat(2, axis=1)
    again = np.arange(0, n - 3, 3)
    x = np.concatenate([x, x[again]])
    rows = np.concatenate([np.arange(n), again])
    return SourceData(
        x=x,
        y=(rows % 3).astype(np.int64),
        class_names=("a", "b", "c"),
        patients=np.concatenate([np.arange(n), again + 3]) if patients else None,
        sites=(np.arange(len(x)) // 30 % 2).astype(np.int64) if sites else None,
        site_names=("s", "t") if sites else (),
    )


@pytest.mark.parametrize(("group", "patients", "largest"), [("duplicates", True, 39), ("duplicates", False, 2)])
def test_a_stores_groups(tmp_path, group, patients, largest):
    store = Store.build(doubled(patients=patients), tmp_path / "store", "f")
    found = row_groups(store, group)
    assert np.bincount(np.unique(found.of_row, return_inverse=True)[1]).max() == largest  # chained by patients
    assert row_groups(store, None) is None if not patients else True


def test_without_repeats_nothing_changes(tmp_path):
    data = doubled(patients=False)
    alone = SourceData(x=data.x[:60], y=data.y[:60], class_names=data.class_names)
    assert row_groups(Store.build(alone, tmp_path / "store", "f"), "duplicates") is None


@pytest.fixture
def toy(toys):
    """A source 'toy_doubled' of rows that occur twice."""

    @registry.register("source", "toy_doubled")
    @dataclass
    class ToyDoubled:
        sites: bool = False
        on_bad: str = "refuse"

        def fingerprint(self):
            return f"toy-{self.sites}"

        def load(self):
            return doubled(patients=False, sites=self.sites)

    return ToyDoubled


RULES = [
    {"name": "stratified", "fraction": 0.3},
    {"name": "balanced", "per_class": 5},
    {"name": "fold", "folds": 3, "fold": 1, "repeat": 0},
    {"name": "fold", "folds": 3, "fold": 1, "repeat": 0, "inner_folds": 3},
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, rule.values())))
@pytest.mark.parametrize("clients", [False, True])
def test_identical_rows_are_never_on_two_sides(toy, rule, clients):
    data = {"source": {"name": "toy_doubled"}, "test": rule, "validation": 0.3, "public": 2}
    split = {"group": "duplicates", "clients": clients}
    spread = 0
    for seed in range(3):
        found = prepare(data | {"split": split}, {"name": "iid"}, clients=3, seed=seed)
        value = found.store.x[:, 0]
        lists = {"test": found.test, "public": found.public}
        at = {k: np.concatenate([found.train[k], found.validation[k]]) for k in range(3)}
        train = np.concatenate(list(found.train))
        sides = [set(value[rows].tolist()) for rows in (*lists.values(), np.concatenate(list(at.values())))]
        assert sum(map(len, sides)) == len(set.union(*sides))
        for k in range(3):
            assert not set(value[found.validation[k]]) & set(value[found.train[k]])
        held = [set(value[rows].tolist()) for rows in at.values()]
        spread += sum(map(len, held)) - len(set.union(*held))
        assert len(train)
    assert spread == 0 if clients else spread > 0


def test_a_group_at_two_sites_cannot_be_kept_at_one_client(toy):
    data = {
        "source": {"name": "toy_doubled", "sites": True},
        "test": RULES[0],
        "split": {"group": "duplicates", "clients": True},
    }
    with pytest.raises(
        DataError, match=r"\d+ groups of duplicates have rows at two sites, which partition 'by_column'"
    ):
        prepare(data, {"name": "by_column"}, clients=2, seed=0)
    assert prepare(data, {"name": "iid"}, clients=2, seed=0).n_clients == 2


def test_groups_of_duplicates_are_no_patients(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    np.savez(tmp_path / "d.npz", x=np.repeat(np.eye(10, dtype=np.float32), 2, axis=0), y=np.arange(20) // 2 % 2)
    data = {"source": {"name": "npz", "path": str(tmp_path / "d.npz")}, "split": {"group": "duplicates"}}
    assert prepare(data | {"test": {"name": "stratified", "fraction": 0.2}}, {"name": "iid"}, 2, 0).test.size
    with pytest.raises(DataError, match=r"data\.test=by_patient: the source names no patients"):
        prepare(data | {"test": {"name": "by_patient", "fraction": 0.2}}, {"name": "iid"}, 2, 0)
