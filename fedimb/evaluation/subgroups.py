"""Scores by subgroup (sex, age band, device, site), from counts that sum exactly over clients, small cells hidden.

A *cell* is the rows of one class in one group of an attribute. All figures of a group are computed from its shown cells
alone, so whoever knows everything published knows shown cells and class totals, and nothing else of the cells:

- a cell of fewer than ``floor`` people is hidden; an empty one describes nobody and is shown as 0;
- the hidden cells of a class and attribute have a known sum (class total - shown cells), so a cell that is not small
  joins them, of the smallest group that is shown, and more until all but one of them could be of any size below
  ``floor`` and one is not. So who knows this rule learns that a cell is small, and not how small: with small cells
  alone in the sum, 13 - 5 = 8 people in two cells below 5 would be four each. If no cell with people is left to join,
  the empty ones are hidden too: only the class's total bounds them;
- attributes of which some groups never occur together (a site that does not record one, a code and its chapter) can be
  subtracted from each other: of these, a class with hidden cells is shown by the attribute listed first alone;
- of the sites' own rows even the totals are known, so a class with a hidden cell is shown for no site at all, and a
  further class is hidden until every hidden cell could be ``floor`` more or less; the same where a site lacks a group
  of an attribute, because that group's total may then be that of the other sites.

The pattern depends on the rows' labels and groups, never on the model: it is the same in every round and for every
calibration, so that rounds cannot be subtracted. A person is counted once per class and attribute.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.evaluation.metrics import numbered
from fedimb.evaluation.probabilities import BINS
from fedimb.evaluation.ratios import mean_defined, ratio

Counts = NDArray[np.int64]
UNIT = 2**30
"""Confidences and squared errors are summed in units of 2**-30, as whole numbers: exact in any order."""
SHARED, SCORED = ("rows", "people", "together"), ("hits", "confidence", "squares")
"""Arrays that are the same for every calibration, and those that are not."""
SITE = "site"
"""The attribute that is a row's own site."""
_MOST_NAMED = 32
RECALLS = ("macro_recall", "minority_recall")


@dataclass(frozen=True, eq=False)
class SubgroupCounts:
    """What one client, or all of them, count: A attributes, C classes, at most G groups, B bins of confidence.

    Attributes:
        rows: [A, C, G] rows of each cell.
        people: [A, C, G] patients (rows, if they name none), each in the cell of its first row.
        together: [A, A, G, G] 1 if a row has both groups; of a sum, the clients with such a row.
        hits: [A, C, G, B] rows predicted correctly, by bin of the largest probability.
        confidence: [A, C, G, B] sums of the largest probability, in `UNIT`.
        squares: [A, C, G] sums of the squared distance between probabilities and truth (Brier), in `UNIT`.
    """

    rows: Counts
    people: Counts
    together: Counts
    hits: Counts
    confidence: Counts
    squares: Counts

    def __add__(self, other: "SubgroupCounts") -> "SubgroupCounts":
        return SubgroupCounts(**{name: getattr(self, name) + getattr(other, name) for name in (*SHARED, *SCORED)})

    def arrays(self, names: Iterable[str]) -> dict[str, Counts]:
        """The arrays of these names."""
        return {name: getattr(self, name) for name in names}


def count_subgroups(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    n_groups: int,
    people: ArrayLike | None = None,
    bins: int = BINS,
) -> SubgroupCounts:
    """Count rows by attribute, class and group.

    Args:
        probabilities: [n, C] float.
        labels: [n] class ids.
        groups: [A, n] the row's group in each attribute, 0 to n_groups - 1.
        n_groups: the largest number of groups of an attribute.
        people: [n] the patient of each row; None: each row is one.
        bins: of confidence, of equal width, as in `fedimb.evaluation.probabilities.top_label_ece`.

    Example:
        >>> found = count_subgroups([[0.75, 0.25], [0.25, 0.75]], [0, 0], [[0, 1]], 2)
        >>> found.rows[0].tolist(), found.hits[0].sum(axis=-1).tolist()
        ([[1, 1], [0, 0]], [[1, 0], [0, 0]])
    """
    shares, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    of_row = np.atleast_2d(np.asarray(groups, np.int64))
    n, classes = shares.shape
    attributes = len(of_row)
    top = shares.argmax(1)
    sure = shares[np.arange(n), top]
    exact = np.rint(np.nan_to_num(sure) * UNIT).astype(np.int64)
    error = ((shares - (y[:, None] == np.arange(classes))) ** 2).sum(1)
    error = np.rint(np.nan_to_num(error) * UNIT).astype(np.int64)
    in_bin = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], sure, side="right")
    who = np.arange(n) if people is None else np.asarray(people)
    _, first = np.unique(np.stack([who, y]), axis=1, return_index=True)  # of each patient and class

    shape = (attributes, classes, n_groups)
    found = {name: np.zeros(shape, np.int64) for name in ("rows", "people", "squares")}
    found |= {name: np.zeros((*shape, bins), np.int64) for name in ("hits", "confidence")}
    found["together"] = np.zeros((attributes, attributes, n_groups, n_groups), np.int64)
    for a, group in enumerate(of_row):
        np.add.at(found["rows"][a], (y, group), 1)
        np.add.at(found["people"][a], (y[first], group[first]), 1)
        np.add.at(found["squares"][a], (y, group), error)
        np.add.at(found["hits"][a], (y, group, in_bin), (top == y).astype(np.int64))
        np.add.at(found["confidence"][a], (y, group, in_bin), exact)
        for b, other in enumerate(of_row):
            found["together"][a, b, group, other] = 1
    return SubgroupCounts(**found)


def sum_counts(counts: Sequence[SubgroupCounts]) -> SubgroupCounts:
    """The sum over clients, exact. Raises ValueError if there are none."""
    if not counts:
        raise ValueError("no client counted its subgroups")
    total = counts[0]
    for one in counts[1:]:
        total = total + one
    return total


def small_cells(people: Counts, floor: int, rows: Counts | None = None) -> NDArray[np.bool_]:
    """The cells that describe fewer people than ``floor``, but somebody.

    Args:
        people: people of each cell, each in the cell of its first row.
        rows: rows of each cell, as somebody's second row may be in a cell of nobody; None: such cells are empty.
    """
    found: NDArray[np.bool_] = ((people if rows is None else rows) > 0) & (people < floor)
    return found


def hidden_cells(people: Counts, floor: int, rows: Counts | None = None) -> NDArray[np.bool_]:
    """The cells of one attribute that are not shown.

    Args:
        people: [C, G] people of each cell.
        floor: the fewest people of a shown cell.
        rows: [C, G], see `small_cells`.

    Returns:
        [C, G].

    Example:
        >>> hidden_cells(np.array([[50, 3, 40], [50, 30, 0], [7, 0, 0]]), 10).tolist()
        [[False, True, True], [False, False, False], [True, True, True]]
    """
    hidden = small_cells(people, floor, rows)
    # The same in every class, so that large groups stay whole; from shown cells alone, so that it tells nothing.
    sizes = people[~hidden.any(axis=1)].sum(axis=0)
    order = np.lexsort((-np.arange(len(sizes)), sizes))
    for cells, mark in zip(people, hidden, strict=True):
        if not mark.any():
            continue
        for g in (g for g in order if not mark[g] and cells[g] > 0):
            mark[g] = True
            if cells[mark].sum() >= floor + (mark.sum() - 1) * (floor - 1):
                break
        else:
            mark[:] = True
    return hidden


def linked(together: Counts, groups: Sequence[int]) -> NDArray[np.bool_]:
    """[A, A] whether some group of one attribute never occurs with some group of another, though both have rows."""
    n = len(groups)
    found = np.zeros((n, n), np.bool_)
    for a in range(n):
        for b in range(n):
            if a != b:
                block = together[a, b, : groups[a], : groups[b]] > 0
                used = block[block.any(axis=1)][:, block.any(axis=0)]
                found[a, b] = not used.all()
    return found


def hidden_classes_of_sites(
    people: Counts, floor: int, also: NDArray[np.bool_] | None = None, rows: Counts | None = None
) -> NDArray[np.bool_]:
    """The classes that are shown for no site. Each site's number of rows counts as known, besides that of each class.

    Args:
        people: [S, C] people of each site and class.
        also: [C] classes to hide for another reason.
        rows: [S, C], see `small_cells`.

    Returns:
        [C]. Over all tables with the same totals, every hidden cell that needs it takes values ``floor`` apart, or as
        far apart as its class has people, and small cells have a partner (`_is_partner`); or all classes are hidden.
    """
    small = small_cells(people, floor, rows)
    needs = small if also is None else small | (also & ((people if rows is None else rows) > 0))
    order = np.argsort(people.sum(axis=0), kind="stable")
    hidden = np.asarray(needs.any(axis=0))
    if small.any() and not hidden.all():
        partner = next(c for c in order[::-1] if not hidden[c])
        hidden[partner if _is_partner(people, small, floor, partner) else slice(None)] = True
    while hidden.any() and not hidden.all():
        cut = people[:, hidden]
        sites, classes = cut.sum(axis=1, keepdims=True), cut.sum(axis=0, keepdims=True)
        room = np.minimum(sites, classes) - np.maximum(0, sites + classes - cut.sum())
        wanted = np.where(needs[:, hidden], np.minimum(floor, classes), 0)
        if (room >= wanted).all():
            break
        hidden[next(c for c in order if not hidden[c])] = True
    return hidden


def _is_partner(people: Counts, small: NDArray[np.bool_], floor: int, partner: int) -> bool:
    """Whether every small cell could be of any other size below ``floor`` if this class is hidden too.

    People of a class and of the partner can change places between two sites without a change of any total. So who knows
    the rule learns that a cell is small, and not how small, as long as the partner's cells do not become small in turn.
    The partner is the largest class, and no other one is tried: which are refused would tell sizes.
    """
    others = people[:, partner]
    for s, c in np.argwhere(small):
        held, rest, beside = int(people[s, c]), np.delete(people[:, c], s), np.delete(others, s)
        more, fewer = min(floor - 1 - held, int(rest.sum())), max(held - 1, 0)
        if others[s] < floor + more or beside.max(initial=0) < floor + fewer or rest[beside >= floor].sum() < more:
            return False
    return True


@dataclass(frozen=True)
class Attribute:
    """An attribute as it is shown: its name, and the names of its groups."""

    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SiteCells:
    """What is known of each site's rows, where scores of single sites are published.

    Attributes:
        by_class: [S, C] people.
        by_group: [S, A, G] people.
    """

    by_class: Counts
    by_group: Counts


def hidden_by_attribute(
    counts: SubgroupCounts, attributes: Sequence[Attribute], floor: int | None, sites: SiteCells | None = None
) -> tuple[list[NDArray[np.bool_]], NDArray[np.bool_]]:
    """What is not shown (see the module).

    Args:
        floor: fewest people of a shown cell; None: everything is shown.
        sites: if scores of single sites are published.

    Returns:
        [C, G] for each attribute; and [C] the classes hidden in scores of single sites, `SITE` among the attributes.
    """
    n_classes = counts.rows.shape[1]
    cells = [counts.people[a, :, : len(one.groups)] for a, one in enumerate(attributes)]
    rows = [counts.rows[a, :, : len(one.groups)] for a, one in enumerate(attributes)]
    if floor is None:
        return [np.zeros(one.shape, np.bool_) for one in cells], np.zeros(n_classes, np.bool_)
    hidden = [hidden_cells(one, floor, own) for one, own in zip(cells, rows, strict=True)]
    links = linked(counts.together, [len(one.groups) for one in attributes])
    of_sites = [a for a, one in enumerate(attributes) if one.name == SITE]
    others = [a for a in range(len(attributes)) if a not in of_sites]
    for a in others:
        for b in others[: others.index(a)]:
            if links[a, b]:
                own, other = hidden[a], hidden[b]
                own[own.any(axis=1) | (other.any(axis=1) & ~other.all(axis=1))] = True
    also: np.ndarray = np.zeros(n_classes, np.bool_)
    lost: np.ndarray = np.zeros(n_classes, np.bool_)
    for a in others:
        if any(links[a, site] for site in of_sites) or (sites is not None and _lacks_a_group(sites.by_group[:, a])):
            # Sites may be groups, so that the number of people of a group is known as that of a site is.
            hidden[a][hidden_classes_of_sites(cells[a].T, floor, np.asarray(hidden[a].any(axis=1)), rows[a].T)] = True
            also |= hidden[a].any(axis=1)
    if sites is not None:
        lost = hidden_classes_of_sites(sites.by_class, floor, also)
    for a in of_sites:
        lost = hidden_classes_of_sites(cells[a].T, floor, also | lost, rows[a].T)
        hidden[a][:] = lost[:, None]
    return hidden, lost


def _lacks_a_group(by_group: Counts) -> bool:
    """Whether a site has nobody of a group, [S, G], that others have."""
    return bool(((by_group == 0) & (by_group.sum(axis=0) > 0)).any())


def subgroup_tables(
    counts: SubgroupCounts,
    attributes: Sequence[Attribute],
    hidden: Sequence[NDArray[np.bool_]],
    minority: Sequence[int],
) -> list[dict[str, Any]]:
    """The scores of every group, for subgroups.json and the report.

    Returns:
        per attribute ``name`` and ``groups``, each with ``group``; ``rows`` [C] and ``recall`` [C] by class, None where
        hidden (recall also without rows); ``macro_recall``, ``ece`` and ``brier`` if no class is hidden,
        ``minority_recall`` if no minority class is; and over the shown classes, of which ``classes`` have
        ``shown_rows``: ``shown_recall`` (mean over classes), ``shown_ece``, ``shown_brier``, the same of all rows of
        these classes (``all_recall``, ``all_ece``, ``all_brier``), and ``gap``: shown_recall - all_recall. Undefined
        values are NaN.
    """
    tables, rare = [], list(minority)
    for a, attribute in enumerate(attributes):
        rows, hits = counts.rows[a], counts.hits[a].sum(axis=-1)
        everyone = ratio(hits.sum(axis=1), rows.sum(axis=1))
        groups = []
        for g, name in enumerate(attribute.groups):
            shown = ~hidden[a][:, g]
            held = np.where(shown, rows[:, g], 0)
            recall = ratio(hits[:, g], held)
            mean, mean_of_all = float(mean_defined(recall)), float(mean_defined(np.where(held > 0, everyone, np.nan)))
            ece, brier = _calibration(counts, a, [g], shown)
            all_ece, all_brier = _calibration(counts, a, slice(None), held > 0)
            whole = bool(shown.all())
            groups.append({
                "group": name,
                "rows": [int(n) if seen else None for n, seen in zip(rows[:, g], shown, strict=True)],
                "recall": [None if math.isnan(r) else float(r) for r in recall],
                "macro_recall": mean if whole else math.nan,
                "minority_recall": float(mean_defined(recall[rare])) if shown[rare].all() else math.nan,
                "ece": ece if whole else math.nan,
                "brier": brier if whole else math.nan,
                "classes": int((held > 0).sum()),
                "shown_rows": int(held.sum()),
                "shown_recall": mean,
                "shown_ece": ece,
                "shown_brier": brier,
                "all_recall": mean_of_all,
                "all_ece": all_ece,
                "all_brier": all_brier,
                "gap": mean - mean_of_all,
            })  # fmt: skip
        tables.append({"name": attribute.name, "groups": groups})
    return tables


def _calibration(
    counts: SubgroupCounts, a: int, groups: Sequence[int] | slice, classes: NDArray[np.bool_]
) -> tuple[float, float]:
    """(ECE, Brier) over the rows of some classes and groups."""
    n = int(counts.rows[a][classes][:, groups].sum())
    if n == 0:
        return math.nan, math.nan
    hits = counts.hits[a][classes][:, groups].sum(axis=(0, 1))
    sure = counts.confidence[a][classes][:, groups].sum(axis=(0, 1))
    squares = int(counts.squares[a][classes][:, groups].sum())
    return float(np.abs(hits * UNIT - sure).sum() / UNIT / n), float(squares / UNIT / n)


def subgroup_metrics(tables: Sequence[Mapping[str, Any]], prefix: str = "test") -> dict[str, float]:
    """The scores of `subgroup_tables` under the names used for logging.

    Returns:
        ``test/subgroup/<attribute>/<id>_<group>/macro_recall``, ``.../minority_recall``, ``.../ece``, ``.../brier``,
        ``.../gap`` (of attributes of at most 32 groups), and the lowest ``test/worst_subgroup_macro_recall``,
        ``..._minority_recall`` and ``..._gap`` of all groups; NaN where undefined or not shown.
    """
    found: dict[str, float] = {}
    for table in tables:
        legal = numbered("", [table["name"]])[0].partition("_")[2]
        names = numbered(f"subgroup/{legal}", [group["group"] for group in table["groups"]])
        if len(names) <= _MOST_NAMED:
            for key, group in zip(names, table["groups"], strict=True):
                found |= {f"{prefix}/{key}/{what}": group[what] for what in (*RECALLS, "ece", "brier", "gap")}
    for what in (*RECALLS, "gap"):
        values = [group[what] for table in tables for group in table["groups"] if not math.isnan(group[what])]
        found[f"{prefix}/worst_subgroup_{what}"] = min(values, default=math.nan)
    return found


def worst_subgroup(tables: Sequence[Mapping[str, Any]], what: str = "gap") -> tuple[str, Mapping[str, Any]] | None:
    """(attribute, group) with the lowest value of ``what``; None if none has one."""
    found = [
        (group[what], table["name"], group)
        for table in tables
        for group in table["groups"]
        if group[what] is not None and not math.isnan(group[what])
    ]
    if not found:
        return None
    _, name, group = min(found, key=lambda one: one[0])
    return name, group
