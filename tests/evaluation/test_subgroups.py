"""Scores by subgroup: exact sums over clients, and what the published figures say of the hidden cells."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from fedimb.evaluation.probabilities import brier, top_label_ece
from fedimb.evaluation.subgroups import (
    SCORED,
    SHARED,
    SITE,
    Attribute,
    SiteCells,
    SubgroupCounts,
    count_subgroups,
    hidden_by_attribute,
    hidden_cells,
    hidden_classes_of_sites,
    subgroup_metrics,
    subgroup_tables,
    sum_counts,
    worst_subgroup,
)

FLOOR = 5
SEX, AGE = Attribute("sex", ("f", "m", "missing")), Attribute("age", ("under 40", "40 and over"))


def drawn(rng: np.random.Generator, n: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(probabilities, labels, groups of SEX and AGE, patients) of n rows, rare classes and groups among them."""
    logits = 2 * rng.normal(size=(n, classes))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = rng.choice(classes, size=n, p=np.array([0.7, 0.2, 0.1])[:classes])
    groups = np.stack([rng.choice(3, size=n, p=[0.5, 0.4, 0.1]), rng.choice(2, size=n, p=[0.2, 0.8])])
    return shares, y, groups, rng.integers(0, max(1, n // 2), size=n)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 60))
def test_the_sum_over_clients_is_the_pooled_computation(seed: int, clients: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    shares, y, groups, people = drawn(rng, n)
    at = people % clients  # no patient is at two
    parts = [
        count_subgroups(shares[at == k], y[at == k], groups[:, at == k], 3, people[at == k]) for k in range(clients)
    ]
    pooled = count_subgroups(shares, y, groups, 3, people)
    for order in (parts, parts[::-1]):
        total = sum_counts(order)
        for name in (*SHARED[:2], *SCORED):
            np.testing.assert_array_equal(getattr(total, name), getattr(pooled, name))
        np.testing.assert_array_equal(total.together > 0, pooled.together > 0)
    shown = [np.zeros((3, 3), bool), np.zeros((3, 2), bool)]
    tables = subgroup_tables(pooled, (SEX, AGE), shown, minority=[2])
    for a, table in enumerate(tables):
        for g, group in enumerate(table["groups"]):
            own = groups[a] == g
            held = [c for c in range(3) if (own & (y == c)).any()]
            recall = [(shares[own & (y == c)].argmax(1) == c).mean() for c in held]
            expected = {"ece": top_label_ece(shares[own], y[own]), "brier": brier(shares[own], y[own])}
            expected |= {"macro_recall": np.mean(recall) if held else math.nan}
            for name, value in expected.items():
                assert group[name] == pytest.approx(value, abs=1e-8, nan_ok=True)


def test_a_patient_counts_once_per_class_in_the_group_of_the_first_row() -> None:
    equal = np.full((4, 2), 0.5)
    found = count_subgroups(equal, [0, 0, 1, 0], [[1, 0, 0, 0]], 2, people=[7, 7, 7, 8])
    assert found.people[0].tolist() == [[1, 1], [1, 0]]
    assert found.rows[0].tolist() == [[2, 1], [1, 0]]


# What everybody can read, as linear equations over the table that made it, and the range of each hidden cell.


def published(counts: SubgroupCounts, attributes: tuple[Attribute, ...], sites: np.ndarray | None) -> dict[str, object]:
    """What a run publishes of these people: [.] one row each, so that rows are people."""
    cells = None if sites is None else SiteCells(sites[:, 0].sum(-1), sites.sum(2))
    hidden, lost = hidden_by_attribute(counts, attributes, FLOOR, cells)
    tables = subgroup_tables(counts, attributes, hidden, minority=[2])
    return {"hidden": hidden, "tables": tables, "lost": lost}


def ranges(
    equations: list[tuple[np.ndarray, float]], n: int, wanted: list[np.ndarray]
) -> Iterator[tuple[float, float]]:
    """(least, most) of each sum of cells in ``wanted`` over all tables of n cells >= 0 that fit the equations."""
    a, b = np.stack([e for e, _ in equations]), np.array([v for _, v in equations])
    for target in wanted:
        found = [linprog(sign * target, A_eq=a, b_eq=b, method="highs") for sign in (1, -1)]
        assert all(one.status == 0 for one in found)
        yield found[0].fun, -found[1].fun


def attack(joint: np.ndarray, attributes: tuple[Attribute, ...]) -> list[tuple[float, float, int, int]]:
    """Solve for the hidden cells of a table of people [S, C, G1, G2] from everything a run publishes of it.

    The attacker also knows which combinations of groups, and of site and group, do not occur at all, and every site's
    number of rows.

    Returns:
        (least, most, true value, how far apart these have to be) of each hidden cell that holds somebody: the floor, or
        all people of its class; of a site also all people of the smallest one, because these numbers are known.
    """
    sites, classes = joint.shape[:2]
    cells = [tuple(c) for c in np.argwhere(joint >= 0)]
    where = np.repeat(np.arange(len(cells)), joint.reshape(-1))
    rows = np.array(cells)[where].reshape(-1, 4)
    equal = np.full((len(rows), classes), 1 / classes)
    groups = np.stack([rows[:, 2 + a] if one.name != SITE else rows[:, 0] for a, one in enumerate(attributes)])
    most = max(len(one.groups) for one in attributes)
    counts = count_subgroups(equal, rows[:, 1], groups, most)
    of_sites = [
        count_subgroups(equal[rows[:, 0] == s], rows[rows[:, 0] == s, 1], groups[:, rows[:, 0] == s], most).people
        for s in range(sites)
    ]
    said = published(counts, attributes, np.stack(of_sites))

    at = np.array(cells)
    equations: list[tuple[np.ndarray, float]] = []

    def know(chosen: np.ndarray) -> None:
        equations.append((chosen.astype(float), float(joint.reshape(-1)[chosen].sum())))

    for c in range(classes):
        know(at[:, 1] == c)  # the overall confusion matrix
    for s in range(sites):
        know(at[:, 0] == s)  # each site's rows
        for c in np.flatnonzero(~said["lost"]):
            know((at[:, 0] == s) & (at[:, 1] == c))  # its own scores, and those without it
    for axis, other in itertools.combinations((0, 2, 3), 2):  # combinations that do not occur
        for i, j in itertools.product(range(joint.shape[axis]), range(joint.shape[other])):
            chosen = (at[:, axis] == i) & (at[:, other] == j)
            if not joint.reshape(-1)[chosen].sum():
                know(chosen)
    targets, true = [], []
    smallest = min(n for n in joint.reshape(sites, -1).sum(axis=1) if n)
    for a, table in enumerate(said["tables"]):
        axis = 0 if table["name"] == SITE else 2 + a
        used = np.unique(groups[a])
        for g, group in enumerate(table["groups"]):
            for c, n in enumerate(group["rows"]):
                chosen = (at[:, axis] == g) & (at[:, 1] == c)
                held = int(joint.reshape(-1)[chosen].sum())
                if n is not None:
                    assert n == held
                    assert n == 0 or n >= FLOOR
                    know(chosen)
                elif held and len(used) > 1:  # a group of everybody is the class total
                    targets.append(chosen.astype(float))
                    wide = min(FLOOR, int(joint[:, c].sum()), *([int(smallest)] if axis == 0 else []))
                    true.append((held, wide))
    found = list(ranges(equations, len(cells), targets))
    return [(low, high, held, wide) for (low, high), (held, wide) in zip(found, true, strict=True)]


def not_pinned(low: float, high: float, held: int, wide: int) -> bool:
    """Whether the range of a cell is wide enough, or its value not small."""
    return high - low >= wide - 1e-6 or held >= FLOOR


JOINTS = {
    "one small cell": [[[[30, 9], [40, 8], [0, 0]], [[2, 1], [20, 5], [0, 0]], [[9, 3], [9, 7], [0, 0]]]],
    "few in all": [[[[30, 9], [40, 8], [1, 0]], [[2, 0], [1, 1], [0, 0]], [[0, 0], [4, 0], [0, 0]]]],
    "one group alone": [[[[30, 9], [0, 0], [0, 0]], [[3, 0], [0, 0], [0, 0]], [[9, 9], [6, 6], [0, 2]]]],
    "a site that does not record sex": [
        [[[20, 9], [21, 8], [0, 0]], [[3, 0], [14, 6], [0, 0]], [[6, 6], [6, 6], [0, 0]]],
        [[[0, 0], [0, 0], [30, 9]], [[0, 0], [0, 0], [20, 8]], [[0, 0], [0, 0], [7, 6]]],
    ],
    "groups of one within groups of the other": [
        [[[30, 0], [9, 0], [0, 40]], [[25, 0], [5, 0], [0, 40]], [[25, 0], [3, 0], [0, 12]]],
    ],
    "a small site": [
        [[[20, 9], [21, 8], [1, 0]], [[13, 0], [14, 6], [0, 0]], [[6, 6], [6, 6], [0, 0]]],
        [[[2, 0], [9, 9], [0, 1]], [[1, 0], [0, 1], [0, 0]], [[2, 0], [3, 1], [0, 0]]],
        [[[9, 9], [9, 9], [0, 1]], [[9, 0], [9, 1], [0, 0]], [[8, 0], [7, 1], [0, 0]]],
    ],
}


@pytest.mark.parametrize(
    ("name", "by_site"), [*((name, False) for name in JOINTS), *((n, True) for n, joint in JOINTS.items() if joint[1:])]
)
def test_nobody_can_solve_for_a_hidden_cell(name: str, by_site: bool) -> None:
    joint = np.array(JOINTS[name])
    attributes = (SEX, AGE)
    if by_site:
        attributes = (SEX, AGE, Attribute(SITE, tuple(f"site {s}" for s in range(len(joint)))))
    found = attack(joint, attributes)
    assert found  # something is hidden
    assert all(not_pinned(*one) for one in found), found


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
def test_nor_in_tables_of_any_kind(seed: int, sites: int, nested: bool) -> None:
    rng = np.random.default_rng(seed)
    joint = rng.poisson(rng.choice([0.3, 1.0, 4.0, 20.0], size=(sites, 3, 3, 2)))
    if nested:
        joint[:, :, :2, 1], joint[:, :, 2, 0] = 0, 0
    if joint.sum():
        attributes = (SEX, AGE, Attribute(SITE, tuple(map(str, range(sites)))))
        assert all(not_pinned(*one) for one in attack(joint, attributes[: 2 + (sites > 1)]))


def test_without_secondary_suppression_the_attack_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack is able to solve: with the small cells alone hidden it finds them."""
    import fedimb.evaluation.subgroups as subgroups

    monkeypatch.setattr(subgroups, "hidden_cells", lambda people, floor, rows: (people > 0) & (people < floor))
    found = attack(np.array(JOINTS["one small cell"]), (SEX, AGE))
    assert any(high - low < 1e-6 and held < FLOOR for low, high, held, _ in found)


def test_what_is_hidden_does_not_depend_on_the_model() -> None:
    rng = np.random.default_rng(0)
    shares, y, groups, people = drawn(rng, 90)
    one, other = (count_subgroups(p, y, groups, 3, people) for p in (shares, shares[:, ::-1]))
    for a, b in zip(*(hidden_by_attribute(c, (SEX, AGE), FLOOR)[0] for c in (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_group_with_a_hidden_class_has_no_macro_recall() -> None:
    rng = np.random.default_rng(1)
    shares, y, groups, _ = drawn(rng, 400)
    counts = count_subgroups(shares, y, groups, 3)
    hidden, _ = hidden_by_attribute(counts, (SEX, AGE), FLOOR)
    tables = subgroup_tables(counts, (SEX, AGE), hidden, minority=[2])
    for a, table in enumerate(tables):
        for g, group in enumerate(table["groups"]):
            assert math.isnan(group["macro_recall"]) == (hidden[a][:, g].any() or not group["classes"])
    metrics = subgroup_metrics(tables)
    whole = [g["macro_recall"] for t in tables for g in t["groups"] if not math.isnan(g["macro_recall"])]
    assert metrics["test/worst_subgroup_macro_recall"] == min(whole)
    name, group = worst_subgroup(tables)
    assert metrics["test/worst_subgroup_gap"] == group["gap"] == group["shown_recall"] - group["all_recall"]
    gaps = [v for k, v in metrics.items() if k.startswith(f"test/subgroup/{name}/") and k.endswith("/gap")]
    assert group["gap"] in gaps


def test_large_groups_stay_whole_where_partners_are_needed() -> None:
    people = np.array([[40, 41, 3], [40, 25, 3], [31, 30, 0]])
    assert hidden_cells(people, FLOOR).tolist() == [[False, True, True], [False, True, True], [False] * 3]


def test_a_single_hidden_class_of_sites_takes_the_largest_with_it() -> None:
    hidden = hidden_classes_of_sites(np.array([[50, 30, 2], [60, 31, 9]]), FLOOR)
    assert hidden.tolist() == [True, False, True]


def test_a_persons_second_row_in_a_cell_of_nobody_is_not_shown() -> None:
    """Everybody counts in the cell of the first row: a cell of one row and no people was taken for an empty one."""
    people = np.array([*range(30), 0])
    groups = np.array([[*[0, 1] * 15, 2]])  # person 0 again, in the third group
    counts = count_subgroups(np.full((31, 2), 0.5), np.zeros(31, int), groups, 3, people)
    assert (counts.people[0, 0].tolist(), counts.rows[0, 0].tolist()) == ([15, 15, 0], [15, 15, 1])
    ((hidden,), _) = hidden_by_attribute(counts, (SEX,), FLOOR)
    assert hidden[0].tolist() == [False, True, True]
    of_sites = Attribute(SITE, ("a", "b", "c"))
    ((hidden,), _) = hidden_by_attribute(counts, (of_sites,), FLOOR)
    assert hidden.all()


@pytest.mark.parametrize(("floor", "groups", "most"), [(3, 2, 16), (3, 3, 15), (5, 3, 18)])
def test_who_knows_the_rule_learns_that_a_cell_is_small_and_not_how_small(floor: int, groups: int, most: int) -> None:
    """Every table of one class with the same total, the same cells hidden and the others the same, by trying all."""
    large = [1000 * (g + 1) for g in range(groups)]  # another class, which fixes the order of the groups
    for total in range(floor, most):
        same: dict[tuple, list[tuple[int, ...]]] = {}
        for some in itertools.product(range(total + 1), repeat=groups - 1):
            cells = (*some, total - sum(some))
            if cells[-1] >= 0:
                hidden = hidden_cells(np.array([cells, large]), floor)[0].tolist()
                shown = tuple(-1 if h else n for h, n in zip(hidden, cells, strict=True))
                same.setdefault(shown, []).append(cells)
        for shown, tables in same.items():
            for g in (g for g in range(groups) if shown[g] < 0):
                values = {cells[g] for cells in tables}
                assert not values & set(range(1, floor)) or len(values) >= floor - 1, (shown, total, values)


def test_a_small_cell_of_a_site_could_be_of_any_size_below_the_floor() -> None:
    """Two sites, three classes, all tables with the same totals and the same shown classes. Were every class that is
    hidden one with a small cell, their sizes would follow from the totals.
    """
    floor, rng, pinned, all_of = 5, np.random.default_rng(0), 0, 0
    for _ in range(12):
        table = rng.poisson(rng.choice([2, 5, 9, 20], size=(2, 3)))
        totals, own = table.sum(axis=0), table[0].sum()
        same: dict[tuple, list[np.ndarray]] = {}
        for a, b in itertools.product(range(totals[0] + 1), range(totals[1] + 1)):
            if 0 <= own - a - b <= totals[2]:
                one = np.array([a, b, own - a - b])
                both = np.stack([one, totals - one])
                hidden = hidden_classes_of_sites(both, floor)
                same.setdefault((*hidden.tolist(), *both[:, ~hidden].ravel().tolist()), []).append(both)
        for key, tables in same.items():
            for site, c in itertools.product(range(2), range(3)):
                values = {int(one[site, c]) for one in tables}
                if key[c] and not all(key[:3]) and totals[c] >= floor and values & set(range(1, floor)):
                    all_of += 1
                    pinned += len(values) < 2
    assert all_of > 100
    assert pinned == 0
