"""Held-out rows: first the test set, later each client's validation rows.

If the source has patients, the split is by patient: a patient is never on both sides.
"""

import numpy as np
from numpy.typing import NDArray

from fedimb.data.folds import fold_of_rows
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.plain import Settings

Rows = NDArray[np.int64]
TEST_RULES: dict[str, tuple[str, ...]] = {
    "none": (),
    "official": (),
    "balanced": ("per_class",),
    "stratified": ("fraction",),
    "by_site": ("fraction",),
    "fold": ("folds", "fold", "repeat"),
}
_LEAST = {"per_class": 1, "folds": 2, "fold": 0, "repeat": 0}


def split_test(
    y: NDArray[np.int64],
    class_names: tuple[str, ...],
    rule: Settings,
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None = None,
    official: NDArray[np.bool_] | None = None,
    sites: NDArray[np.int64] | None = None,
) -> tuple[Rows, Rows]:
    """Split off the test set by one rule:

    - ``none``: no test set; the run is scored by the clients' validation rows.
    - ``official``: the source's own.
    - ``balanced`` (``per_class``): equally many rows of each class.
    - ``stratified`` (``fraction``): that fraction of each class.
    - ``by_site`` (``fraction``): that fraction of each class at each site, rounded half up, never a site's last row.
    - ``fold`` (``folds``, ``fold``, ``repeat``): one of the disjoint folds that together cover all rows
      (`fedimb.data.folds`); drawn by ``repeat`` alone, so runs of any seed share them.

    Returns:
        (test, rest), sorted int64, disjoint. Together all rows, except that a balanced split by patient leaves out the
        rows that its test patients have beyond ``per_class``, which may not be on either side.

    Raises:
        ConfigError: unknown rule or argument, or a value out of range.
        DataError: too few rows of a class, no official split, an official split that divides a patient's rows, or
            ``by_site`` without sites or with a patient at two of them.
    """
    check_test_rule(rule)
    n_classes = len(class_names)
    if rule["name"] == "none":
        return np.zeros(0, np.int64), np.arange(len(y))
    if rule["name"] == "official":
        return _official(official, patients)
    if rule["name"] == "by_site":
        return _by_site(y, class_names, rule["fraction"], rng, patients, sites)
    if rule["name"] == "fold":
        return _fold(y, class_names, rule, patients, sites)
    have = np.bincount(y, minlength=n_classes)
    if rule["name"] == "balanced":
        targets = np.full(n_classes, rule["per_class"], dtype=np.int64)
        least = targets
    else:
        targets = np.where(have > 0, np.maximum(1, _share(have, rule["fraction"])), 0)
        least = np.minimum(targets, 1)
    for c in np.flatnonzero(have < least + (targets > 0)):
        raise DataError(
            f"class '{class_names[c]}' has {have[c]} rows: a {rule['name']} test set needs {least[c]} "
            f"and training 1; lower data.test or leave the class out of the source"
        )
    side = _choose(y, targets, rng, patients, reach=rule["name"] == "balanced")
    got, left = (np.bincount(y[part], minlength=n_classes) for part in (side, ~side))
    for c in np.flatnonzero((got < least) | ((left == 0) & (have > 0))):
        raise DataError(
            f"class '{class_names[c]}' has {have[c]} rows{_patients_of(patients, y == c)}: "
            f"whole patients give {got[c]} for testing (needed: {least[c]}) and {left[c]} to train on; "
            f"lower data.test or use more patients"
        )
    test = np.flatnonzero(side)
    if patients is not None and rule["name"] == "balanced":
        test = np.concatenate([rng.permutation(test[y[test] == c])[: rule["per_class"]] for c in range(n_classes)])
    return np.sort(test), np.flatnonzero(~side)


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


def check_test_rule(rule: Settings) -> None:
    """Raise ConfigError unless ``rule`` is a known test split with arguments in range."""
    name = rule.get("name")
    if name not in TEST_RULES:
        raise ConfigError(f"data.test.name: no test split '{name}'.{nearest(str(name), TEST_RULES)}")
    for key in rule:
        if key not in ("name", *TEST_RULES[name]):
            raise ConfigError(f"data.test ({name}) has no argument '{key}'.{nearest(key, TEST_RULES[name])}")
    for key in TEST_RULES[name]:
        value = rule.get(key)
        if key in _LEAST and not (type(value) is int and value >= _LEAST[key]):  # not isinstance: True is not a count
            raise ConfigError(f"data.test.{key}={value!r}: give a whole number of at least {_LEAST[key]}")
        if key == "fraction" and not (isinstance(value, float) and 0 < value < 1):
            raise ConfigError(f"data.test.fraction={value!r}: give a number between 0 and 1")
    if name == "fold" and rule["fold"] >= rule["folds"]:
        raise ConfigError(
            f"data.test.fold={rule['fold']}: folds={rule['folds']} are counted from 0 to {rule['folds'] - 1}"
        )


def _official(official: NDArray[np.bool_] | None, patients: NDArray[np.int64] | None) -> tuple[Rows, Rows]:
    if official is None or official.all() or not official.any():
        raise DataError("the source has no official test set, or only that; use {name: stratified, fraction: 0.2}")
    if patients is not None:
        both = np.intersect1d(patients[official], patients[~official])
        if len(both):
            raise DataError(
                f"the official test set shares {len(both)} patients with the training rows, first {both[0]}; "
                f"use data.test={{name: stratified, fraction: .2}}, which cuts by patient"
            )
    return np.flatnonzero(official), np.flatnonzero(~official)


def _by_site(
    y: NDArray[np.int64],
    class_names: tuple[str, ...],
    fraction: float,
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None,
    sites: NDArray[np.int64] | None,
) -> tuple[Rows, Rows]:
    if sites is None:
        raise DataError("data.test=by_site needs a source with sites; use {name: stratified, fraction: 0.2}")
    if patients is not None:
        pairs = np.unique(np.stack([patients, sites], axis=1), axis=0)
        if len(pairs) > len(np.unique(patients)):
            raise DataError("a patient has rows at two sites, so data.test=by_site would split it up; use stratified")
    parts = [split_fraction(np.flatnonzero(sites == s), y, fraction, rng, patients) for s in np.unique(sites)]
    rest, test = (np.sort(np.concatenate(side)) for side in zip(*parts, strict=True))
    _refuse_without(y, class_names, test, f"a test set of {fraction} of each site")
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


def _patients_of(patients: NDArray[np.int64] | None, rows: NDArray[np.bool_]) -> str:
    return "" if patients is None else f" of {len(np.unique(patients[rows]))} patients"


def _choose(
    y: NDArray[np.int64],
    targets: NDArray[np.int64],
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None,
    reach: bool,
) -> NDArray[np.bool_]:
    """[n] bool, True for held-out rows: ``targets[c]`` rows of class c, always leaving a row of each class.

    Takes whole patients, greedily, starting with the smallest class (it has the least choice). With ``reach`` at least
    the target is taken; otherwise as close to it as whole patients allow, and at least one patient.
    """
    side = np.zeros(len(y), dtype=bool)
    left = np.bincount(y, minlength=len(targets))
    order = np.argsort(left, kind="stable")
    if patients is None:
        for c in order:
            members = rng.permutation(np.flatnonzero(y == c))
            side[members[: min(int(targets[c]), max(0, len(members) - 1))]] = True
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
            too_much = not reach and got[c] > 0 and held[c] > 2 * missing
            if side[members[0]] or too_much or ((held > 0) & (held == left)).any():
                continue
            side[members] = True
            got += held
            left -= held
    return side
