"""What shows only once the rows are cut into test set, clients and validation rows."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedimb.data.findings.finding import Finding, shorten_list

if TYPE_CHECKING:
    from fedimb.data.federation import Federation

Rows = NDArray[np.int64]
_FEWEST = 5  # rows from which a part is judged
_UNUSED = -1


def split_findings(federation: "Federation", groups: Rows | None) -> Iterator[Finding]:
    """Patients and identical rows on two sides, parts of one class, a minority without rows, too many clients.

    Args:
        groups: [n] number of each row's group of identical rows; None: there are none.
    """
    store = federation.store
    y = np.asarray(store.y)
    yield from patients_on_two_sides(_sides(federation, len(store)), store.patients)
    yield from _minority(federation)
    if groups is not None:
        yield from _twins(federation, np.asarray(groups))
    yield from _one_class(federation, y)
    empty = int((federation.counts.sum(axis=1) == 0).sum())
    if empty > federation.n_clients / 2:
        rows = len(federation.train.rows) + len(federation.validation.rows)
        yield Finding(
            "clients_beyond_rows",
            f"clients.count={federation.n_clients}",
            f"for {rows:,} training rows: {empty:,} hold none and never train; set a smaller clients.count",
        )


def official_test_unused(federation: "Federation", rule: str) -> Iterator[Finding]:
    """Test rows of the source that another test set's rule leaves to the clients.

    Args:
        rule: name of `data.test`; nothing is said of ``fold``, which tests each row once, and of ``file``.
    """
    official = federation.store.official_test
    if official is None or rule in ("official", "fold", "file"):
        return
    trained = int(np.asarray(official)[federation.train.rows].sum())
    if trained:
        yield Finding(
            "official_test_unused",
            f"data.test={rule}",
            f"{trained:,} of the source's {int(np.asarray(official).sum()):,} test rows are trained on; for its own "
            "test set give data.test.name=official",
        )


def patients_on_two_sides(side: NDArray[np.int64], patients: Rows | None) -> Iterator[Finding]:
    """Patients whose rows are on more than one side.

    Args:
        side: [n] number of the side each row is on; -1: on none.
        patients: [n] or None.
    """
    if patients is None:
        return
    used = side != _UNUSED
    pairs = np.unique(np.stack([np.asarray(patients)[used], side[used]], axis=1), axis=0)
    split = np.unique(pairs[1:, 0][pairs[1:, 0] == pairs[:-1, 0]])
    if len(split):
        yield Finding(
            "patient_on_two_sides",
            f"patient {split[0]}" if len(split) == 1 else f"{len(split):,} patients",
            "rows on two sides of a split (test set, the server's rows, clients, validation): what is measured on them "
            "was trained on; use a split or partition that takes patients, such as data.test={name: stratified, "
            "fraction: 0.2}",
        )


def _sides(federation: "Federation", n: int) -> NDArray[np.int64]:
    side = np.full(n, _UNUSED, np.int64)
    side[federation.test], side[federation.public] = 0, 1
    for at, lists in ((2, federation.train), (3, federation.validation)):
        side[lists.rows] = at + 2 * np.repeat(np.arange(len(lists)), lists.sizes)
    return side


def _minority(federation: "Federation") -> Iterator[Finding]:
    counts = federation.class_totals
    without = [federation.class_names[c] for c in federation.minority if counts[c] == 0]
    if without:
        yield Finding(
            "minority_without_rows",
            f"class{'es' * (len(without) > 1)} {shorten_list(without)}",
            "in the minority (data.minority), but without training rows, so no model can learn it: leave it out "
            "of data.minority, or of the source's classes",
        )


def _twins(federation: "Federation", groups: Rows) -> Iterator[Finding]:
    train = groups[np.concatenate([federation.train.rows, federation.public])]
    for rows, name in ((federation.test, "test"), (federation.validation.rows, "validation")):
        twins = int(np.isin(groups[rows], train).sum())
        if twins:
            yield Finding(
                "rows_on_two_sides",
                f"{name} rows",
                f"{twins:,} of {len(rows):,} are identical to a training row, so a model may know them by heart; "
                "data.split.group=duplicates keeps identical rows on one side",
            )


def _one_class(federation: "Federation", y: Rows) -> Iterator[Finding]:
    store, test = federation.store, federation.test
    if federation.n_classes < 2:
        return
    names, single = federation.class_names, []
    if len(test) >= _FEWEST and len(np.unique(y[test])) == 1:
        yield _part("test set", len(test), names[int(y[test[0]])])
    elif store.sites is not None and len(test):
        sites = np.asarray(store.sites)[test]
        single = list(_single([test[sites == s] for s in range(len(store.site_names))], store.site_names, y, names))
        yield from _parts("test rows of site", single)
    if not len(test) and len(federation.validation.rows):  # then the validation rows are what is scored
        clients = [str(k) for k in range(federation.n_clients)]
        yield from _parts("validation rows of client", list(_single(federation.validation, clients, y, names)))


def _single(parts: Sequence[Rows], of: Sequence[str], y: Rows, names: Sequence[str]) -> Iterator[str]:
    for rows, name in zip(parts, of, strict=True):
        if len(rows) >= _FEWEST and (y[rows] == y[rows[0]]).all():
            yield f"{name} ({len(rows):,} of {names[int(y[rows[0]])]})"


def _parts(what: str, single: list[str]) -> Iterator[Finding]:
    if single:
        yield Finding("one_class_test", f"{what} {shorten_list(single)}", "one class only: no recall of another there")


def _part(what: str, rows: int, name: str) -> Finding:
    return Finding("one_class_test", what, f"its {rows:,} rows are all of class {name}: no other recall is defined")
