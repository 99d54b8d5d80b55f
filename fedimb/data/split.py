"""Held-out rows: first the test set, later each client's validation rows.

If the source has patients, the split is by patient: a patient is never on both sides. Groups of duplicates are treated
in the same way, if asked (`fedimb.data.groups`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedimb.data.folds import fold_of_rows, inner_fold_of_rows
from fedimb.data.groups import at_two_sites
from fedimb.data.identifiers import Names
from fedimb.data.rows import Rows
from fedimb.data.split_floors import Floors
from fedimb.data.split_rules import TEST_RULES, check_test_rule
from fedimb.data.split_time import split_by_time
from fedimb.data.times import Times
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.plain import Settings

__all__ = ["TEST_RULES", "Rows", "check_test_rule", "split_fraction", "split_test"]


def split_test(
    y: NDArray[np.int64],
    class_names: tuple[str, ...],
    rule: Settings,
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None = None,
    official: NDArray[np.bool_] | None = None,
    sites: NDArray[np.int64] | None = None,
    *,
    site_names: Sequence[str] = (),
    times: Times | None = None,
    noun: str = "patients",
) -> tuple[Rows, Rows]:
    """Split off the test set by one rule:

    - ``none``: no test set; the run is scored by the clients' validation rows.
    - ``official``: the source's own.
    - ``balanced`` (``per_class``): equally many rows of each class.
    - ``stratified`` (``fraction``): that fraction of each class.
    - ``by_patient`` (``fraction``): the same, refused for a source without patients.
    - ``by_site`` (``fraction``): that fraction of each class at each site, rounded half up, never a site's last row.
    - ``leave_site_out`` (``sites``): all rows of these sites.
    - ``fold`` (``folds``, ``fold``, ``repeat``): one of the disjoint folds that together cover all rows
      (`fedimb.data.folds`); drawn by ``repeat`` alone, so runs of any seed share them. With ``inner_folds`` and
      ``inner_fold`` that fold is left out of both sides, and the test set is a fold of the rest: for tuning.
    - ``temporal`` (``fraction`` or ``since``): the last rows in time (`fedimb.data.split_time`).

    ``min_per_class``: every class with rows has at least so many to test and so many to train on.

    Args:
        patients: [n] ids of what is never split up, called ``noun`` in messages; None: every row stands for itself.
        official, sites, site_names, times: of the source, see `SourceData`.

    Returns:
        (test, rest), sorted int64, disjoint. Together all rows, except those that may be on neither side: rows that
        test patients have beyond ``per_class`` or before a temporal cut, and the outer fold of an inner one.

    Raises:
        ConfigError: unknown rule or argument, or a value out of range.
        DataError: too few rows of a class, a column that the rule needs and the source lacks, an official split that
            divides a patient's rows, or a patient at two sites of a rule by site.
    """
    check_test_rule(rule)
    name, floors = rule["name"], Floors(y, class_names, rule.get("min_per_class"), patients, noun)
    if name == "none":
        return np.zeros(0, np.int64), np.arange(len(y))
    if name == "official":
        test, rest = _official(official, patients, noun)
    elif name == "by_site":
        test, rest = _by_site(y, class_names, rule["fraction"], rng, patients, sites, noun)
    elif name == "leave_site_out":
        test, rest = _leave_site_out(y, class_names, rule["sites"], patients, sites, site_names, noun)
    elif name == "fold":
        test, rest = _fold(y, class_names, rule, patients, sites)
    elif name == "temporal":
        test, rest = split_by_time(rule, times, patients, noun)
        _refuse_without(y, class_names, rest, "training before the cut in time")
        floors.check_time(test, rest, times)
    elif name == "file":
        raise ConfigError("data.test=file is read by fedimb.data.prepare, which knows the rows' ids")
    else:
        if name == "by_patient" and patients is None:
            raise DataError("data.test=by_patient needs a source with patients; use {name: stratified, fraction: 0.2}")
        return _drawn(y, class_names, rule, rng, patients, floors, noun)
    floors.check(test, rest, f"data.test={name}")
    return test, rest


def _drawn(
    y: NDArray[np.int64],
    class_names: tuple[str, ...],
    rule: Settings,
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None,
    floors: Floors,
    noun: str,
) -> tuple[Rows, Rows]:
    """``balanced``, ``stratified`` and ``by_patient``: classes in turn, the rarest first."""
    n_classes, balanced, floor = len(class_names), rule["name"] == "balanced", floors.floor or 1
    have = np.bincount(y, minlength=n_classes)
    if balanced:
        targets = np.full(n_classes, rule["per_class"], dtype=np.int64)
        least = targets
    else:
        targets = np.where(have > 0, np.maximum(floor, _share(have, rule["fraction"])), 0)
        least = np.minimum(targets, floor)
    for c in np.flatnonzero(have < least + floor * (targets > 0)):
        if floors.floor is not None:
            side = np.flatnonzero(y == c)
            floors.check(side[:0], side, f"a {rule['name']} test set")
        raise DataError(
            f"class '{class_names[c]}' has {have[c]} rows: a {rule['name']} test set needs {least[c]} "
            f"and training 1; lower data.test or leave the class out of the source"
        )
    held = _choose(y, targets, rng, patients, reach=balanced, floor=floor)
    got, left = (np.bincount(y[part], minlength=n_classes) for part in (held, ~held))
    floors.check(np.flatnonzero(held), np.flatnonzero(~held), f"a {rule['name']} test set of whole {noun}")
    for c in np.flatnonzero((got < least) | ((left == 0) & (have > 0))):
        raise DataError(
            f"class '{class_names[c]}' has {have[c]} rows{_groups_of(patients, y == c, noun)}: "
            f"whole {noun} give {got[c]} for testing (needed: {least[c]}) and {left[c]} to train on; "
            f"lower data.test or use more {noun}"
        )
    test = np.flatnonzero(held)
    if patients is not None and balanced:
        test = np.concatenate([rng.permutation(test[y[test] == c])[: rule["per_class"]] for c in range(n_classes)])
    return np.sort(test), np.flatnonzero(~held)


def split_fraction(
    rows: Rows,
    y: NDArray[np.int64],
    fraction: float,
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None = None,
) -> tuple[Rows, Rows]:
    """Hold out about ``fraction`` of each class of ``rows``, rounded half up, but never a class's last row.

    Args:
        rows: [m] int64 rows of the store, of one client.
        y: [n] labels of the whole store; ``patients`` [n] likewise.
        fraction: in [0, 1).

    Returns:
        (kept, held_out), sorted int64.
    """
    if fraction == 0 or len(rows) == 0:
        return np.sort(rows), np.empty(0, dtype=np.int64)
    labels = np.asarray(y[rows])
    targets = _share(np.bincount(labels), fraction)
    out = _choose(labels, targets, rng, None if patients is None else np.asarray(patients[rows]), reach=False)
    return np.sort(rows[~out]), np.sort(rows[out])


def _official(official: NDArray[np.bool_] | None, patients: NDArray[np.int64] | None, noun: str) -> tuple[Rows, Rows]:
    if official is None or official.all() or not official.any():
        raise DataError(
            "data.test=official: the source has no official test set, or no other rows; "
            "give 'data.test={name: stratified, fraction: 0.2}'"
        )
    if patients is not None:
        both = np.intersect1d(patients[official], patients[~official])
        if len(both):
            raise DataError(
                f"the official test set shares {len(both)} {noun} with the training rows, first {both[0]}; "
                f"use data.test={{name: stratified, fraction: .2}}, which keeps {noun} whole"
            )
    return np.flatnonzero(official), np.flatnonzero(~official)


def _by_site(
    y: NDArray[np.int64],
    class_names: tuple[str, ...],
    fraction: float,
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None,
    sites: NDArray[np.int64] | None,
    noun: str,
) -> tuple[Rows, Rows]:
    if sites is None:
        raise DataError("data.test=by_site needs a source with sites; use {name: stratified, fraction: 0.2}")
    if shared := at_two_sites(patients, sites):
        raise DataError(
            f"{shared} {noun} have rows at two sites, so data.test=by_site would split them up; use stratified"
        )
    parts = [split_fraction(np.flatnonzero(sites == s), y, fraction, rng, patients) for s in np.unique(sites)]
    rest, test = (np.sort(np.concatenate(side)) for side in zip(*parts, strict=True))
    _refuse_without(y, class_names, test, f"a test set of {fraction} of each site")
    return test, rest


def _leave_site_out(
    y: NDArray[np.int64],
    class_names: tuple[str, ...],
    held_out: Sequence[str | int],
    patients: NDArray[np.int64] | None,
    sites: NDArray[np.int64] | None,
    site_names: Sequence[str],
    noun: str,
) -> tuple[Rows, Rows]:
    if sites is None:
        raise DataError("data.test=leave_site_out needs a source with sites; use {name: stratified, fraction: 0.2}")
    names = Names(site_names)
    for site in map(str, held_out):
        if site not in names:
            raise DataError(f"data.test.sites: the source has no site '{site}'.{nearest(site, site_names)}")
    inside = np.isin(sites, [at for site in held_out if (at := names.index(site)) is not None])
    if inside.all() or not inside.any():
        lacking = "train on" if inside.all() else "test"
        raise DataError(
            f"data.test.sites=[{', '.join(map(str, held_out))}] leaves no rows to {lacking}; "
            f"the sites are {', '.join(site_names)}"
        )
    if patients is not None and (both := np.intersect1d(patients[inside], patients[~inside])).size:
        raise DataError(
            f"{len(both)} {noun} have rows at a held-out site and at another; hold out those sites too, or use "
            "{name: stratified, fraction: 0.2}"
        )
    test, rest = np.flatnonzero(inside), np.flatnonzero(~inside)
    _refuse_without(y, class_names, rest, "training beside the held-out sites")
    return test, rest


def _fold(
    y: NDArray[np.int64],
    class_names: tuple[str, ...],
    rule: Settings,
    patients: NDArray[np.int64] | None,
    sites: NDArray[np.int64] | None,
) -> tuple[Rows, Rows]:
    inside = fold_of_rows(y, rule["folds"], rule["repeat"], patients, sites) == rule["fold"]
    test, rest = np.flatnonzero(inside), np.flatnonzero(~inside)
    if rule.get("inner_folds") is not None:
        of_rest = inner_fold_of_rows(rest, y, rule, patients, sites)
        test, rest = rest[of_rest == rule["inner_fold"]], rest[of_rest != rule["inner_fold"]]
    # A class with fewer rows than folds is absent from some test sets; pooled over the folds it is complete.
    _refuse_without(y, class_names, rest, f"training beside fold {rule['fold']} of {rule['folds']}")
    return test, rest


def _refuse_without(y: NDArray[np.int64], class_names: tuple[str, ...], side: Rows, what: str) -> None:
    have, there = (np.bincount(part, minlength=len(class_names)) for part in (y, y[side]))
    for c in np.flatnonzero((have > 0) & (there == 0)):
        raise DataError(
            f"class '{class_names[c]}' has {have[c]} rows and {what} gets none of them; "
            f"change data.test or leave the class out of the source"
        )


def _share(counts: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    # 1e-9: 0.15 * 10 is 1.4999999999999998 in some products; a half must round up on every machine.
    return np.floor(counts * fraction + 0.5 + 1e-9).astype(np.int64)


def _groups_of(patients: NDArray[np.int64] | None, rows: NDArray[np.bool_], noun: str) -> str:
    return "" if patients is None else f" of {len(np.unique(patients[rows]))} {noun}"


def _choose(
    y: NDArray[np.int64],
    targets: NDArray[np.int64],
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None,
    reach: bool,
    floor: int = 1,
) -> NDArray[np.bool_]:
    """[n] bool, True for held-out rows: ``targets[c]`` rows of class c, always leaving ``floor`` rows of each class.

    Takes whole patients, greedily, starting with the smallest class (it has the least choice). With ``reach`` at least
    the target is taken; otherwise as close to it as whole patients allow, and at least ``floor`` rows.
    """
    side = np.zeros(len(y), dtype=bool)
    left = np.bincount(y, minlength=len(targets))
    order = np.argsort(left, kind="stable")
    if patients is None:
        for c in order:
            members = rng.permutation(np.flatnonzero(y == c))
            side[members[: min(int(targets[c]), max(0, len(members) - floor))]] = True
        return side
    _, of_row = np.unique(patients, return_inverse=True)
    by_unit = np.argsort(of_row, kind="stable")
    members_of = np.split(by_unit, np.cumsum(np.bincount(of_row))[:-1])
    got = np.zeros_like(left)
    for c in order:
        for unit in rng.permutation(np.unique(of_row[y == c])):
            members = members_of[unit]
            held = np.bincount(y[members], minlength=len(targets))
            missing = targets[c] - got[c]
            if missing <= 0:
                break
            too_much = not reach and got[c] >= floor and held[c] > 2 * missing
            if side[members[0]] or too_much or ((held > 0) & (left - held < floor)).any():
                continue
            side[members] = True
            got += held
            left -= held
    return side
