"""The contracts of sources and partitioners."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb import registry
from fedimb.data.arrays import SourceData
from fedimb.data.split import split_test
from fedimb.data.store import Store
from fedimb.data.windows import Windows
from fedimb.testing.expectations import Contract, check_yaml, same

_COLUMNS = (
    "sites",
    "patients",
    "official_test",
    "targets",
    "scaled",
    "times",
    "row_ids",
    "recordings",
    "origins",
)


def check_source(source: str | Mapping[str, Any], **settings: object) -> None:
    """Check that a source reads the same, well-described rows every time, and that its store gives them back.

    Args:
        source: a name as registered under kind ``source``, or a configuration ``{"name": ..., ...}``.
        settings: settings of the source, e.g. the file it reads. Its YAML is not used, as it may not name a real file.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    config = {"name": source} if isinstance(source, str) else dict(source)
    name, args = str(config.pop("name", "")), config | settings
    contract = Contract("source", name)

    def build() -> Any:
        return registry.build("source", name, {"on_bad": "refuse"}, **args)

    with contract.rule("two objects with the same settings have the same fingerprint"):
        one, two = build(), build()
        contract.expect(isinstance(one.fingerprint(), str) and one.fingerprint(), "text", one.fingerprint())
        contract.equal(two.fingerprint(), one.fingerprint(), "the same fingerprint")
    with contract.rule("it reads the same rows every time, and draws from no global generator"):
        with contract.own_randomness():
            data, again = one.load(), two.load()
        contract.expect(isinstance(data, SourceData), "a fedimb.data.arrays.SourceData", type(data))
        for field in ("x", "y", *_COLUMNS):
            one_time, other = (_plain(getattr(read, field)) for read in (data, again))
            contract.equal(other, one_time, field)
        contract.equal(one.fingerprint(), two.fingerprint(), "the same fingerprint after reading")
    _check_rows(contract, data)
    _check_split(contract, data)
    with tempfile.TemporaryDirectory(prefix="fedimb-check-") as folder:
        _check_store(contract, data, one.fingerprint(), Path(folder) / "store")


def _check_store(contract: Contract, data: SourceData, fingerprint: str, folder: Path) -> None:
    with contract.rule("its store, mapped from disk, gives back what was read"):
        store = Store.build(data, folder, fingerprint)
        for field in ("x", "y", *_COLUMNS):
            found, expected = getattr(store, field), getattr(data, field)
            contract.expect(_equal(found, expected), f"{field} as read", found)
        held = store.x.recording if isinstance(store.x, Windows) else store.x
        contract.expect(isinstance(held, np.memmap), "x mapped from its file", type(held))
        for field in ("class_names", "site_names", "scale", "task", "signal", "units"):
            contract.equal(getattr(store, field), getattr(data, field), field)
        contract.equal(store.fingerprint, fingerprint, "fingerprint")


def _plain(value: Any) -> Any:
    """Windows of recordings as the array they stand for."""
    return np.asarray(value) if isinstance(value, Windows) else value


def _equal(found: object, expected: object) -> bool:
    return found is None if expected is None else same(np.asarray(found), np.asarray(expected))


def _check_rows(contract: Contract, data: SourceData) -> None:
    n, classes = len(data.x), len(data.class_names)
    with contract.rule("rows, labels and names fit each other"):
        contract.expect(n > 0 and data.x.ndim >= 2, "x [n, *shape] with n > 0", data.x.shape)
        contract.expect(data.x.dtype in (np.uint8, np.float32), "x uint8 or float32", data.x.dtype)
        contract.expect(data.y.dtype == np.int64 and data.y.shape == (n,), f"y int64 [{n}]", data.y)
        inside = 0 <= int(data.y.min()) <= int(data.y.max()) < classes
        contract.expect(inside, f"labels from 0 to {classes - 1}", f"{data.y.min()} to {data.y.max()}")
        named = all(isinstance(name, str) and name for name in data.class_names)
        distinct = len(set(data.class_names)) == classes
        contract.expect(named and distinct, "distinct class names, none empty", data.class_names)
        for field in ("sites", "patients", "official_test"):
            column = getattr(data, field)
            contract.expect(column is None or column.shape == (n,), f"{field} of {n} rows, or None", column)
        if data.sites is not None:
            inside = 0 <= int(data.sites.min()) <= int(data.sites.max()) < len(data.site_names)
            contract.expect(inside, f"sites from 0 to {len(data.site_names) - 1}", data.sites)
        if data.targets is not None:
            contract.equal(data.targets.shape, (n, classes), "targets of shape")
    with contract.rule("x is finite, except for missing values in columns that it declares as scaled"):
        if data.x.dtype == np.float32:
            values: Any = np.asarray(data.x)
            x = values if data.scaled is None else values[:, ~data.scaled.reshape(len(data.scaled))]
            contract.expect(np.isfinite(x).all(), "no NaN and no infinity", np.argwhere(~np.isfinite(x))[:3])
            contract.expect(not np.isinf(values).any(), "no infinity", np.argwhere(np.isinf(values))[:3])


def _check_split(contract: Contract, data: SourceData) -> None:
    rules: list[dict[str, Any]] = []
    if data.official_test is not None and data.official_test.any() and not data.official_test.all():
        rules.append({"name": "official"})
    counts = np.bincount(data.y)
    if counts[counts > 0].min() >= 5 and data.patients is None:
        rules.append({"name": "stratified", "fraction": 0.2})
    for rule in rules:
        with contract.rule(f"a test set can be split off: {rule['name']}"):
            columns = data.patients, data.official_test, data.sites
            (test, rest), again = (
                split_test(data.y, data.class_names, rule, np.random.default_rng(0), *columns) for _ in "ab"
            )
            contract.equal(list(again), [test, rest], "the same rows for the same seed")
            contract.expect(len(test) and len(rest), "rows on both sides", (len(test), len(rest)))
            contract.equal(np.sort(np.concatenate([test, rest])), np.arange(len(data.y)), "every row on one side")


PARTITIONS: dict[str, tuple[list[int], int]] = {
    "one row, one client": ([3], 1),
    "one row, 50 clients": ([3], 50),
    "one class": ([0] * 40, 7),
    "a class of one row": ([0] * 60 + [1] * 9 + [2], 4),
    "five classes": ([c % 5 for c in range(80)], 12),
}
"""Labels, and the number of clients they are divided among."""


def check_partitioner(name: str, **settings: object) -> None:
    """Check that a partitioner assigns every row once, keeps patients together, and depends on the seed alone.

    Args:
        name: as registered under kind ``partition``.
        settings: settings of the partitioner, instead of its defaults.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("partition", name)
    check_yaml(contract, "partition", name)
    taken = registry.parameters("partition", name)
    for case, (labels, n) in PARTITIONS.items():
        for seed in (0, 1, 2):
            y = np.array(labels, np.int64)
            dealt = Contract("partition", name, f"{case}, seed {seed}")
            check_deal(dealt, name, settings, y, n, seed)
            if "patients" in taken:
                cohort = max(1, len(y) // 3)
                patients = np.random.default_rng(seed).integers(0, cohort, len(y)) * 7 - 50  # any ids
                check_patients(dealt, name, settings, y, n, seed, patients)
    if "sites" not in taken:  # otherwise it draws nothing: clients are the sites
        with contract.rule("another seed gives another partition"):
            y = np.arange(200) % 5
            one, two = (deal(name, settings, y, 5, seed) for seed in (0, 2))
            other = any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))
            contract.expect(other, "other rows at some client", "the same")


def deal(
    name: str,
    settings: Mapping[str, object],
    y: NDArray[np.int64],
    n: int,
    seed: int,
    patients: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """The partitioner's lists of rows, given ``n`` sites and, optionally, patients that each belong to one site.

    If it takes ``alpha`` and none is set, odd seeds give a strong skew.
    """
    asked = registry.parameters("partition", name)
    args = {"alpha": 1e-3} if "alpha" in asked and seed % 2 else {}
    sites = (np.arange(len(y)) if patients is None else patients) % n
    columns = {"sites": sites, "site_names": tuple(f"site {k}" for k in range(n)), "patients": patients}
    made = registry.build("partition", name, columns, **(args | dict(settings)))
    lists: list[NDArray[np.int64]] = made(y, n, np.random.default_rng(seed))
    return lists


def check_deal(
    contract: Contract, name: str, settings: Mapping[str, object], y: NDArray[np.int64], n: int, seed: int
) -> None:
    """Every row once, sorted, and the same for the same seed, whatever the labels."""
    with contract.rule("every row once, in sorted int64 lists that a seed repeats"), contract.own_randomness():
        lists, again = (deal(name, settings, y, n, seed) for _ in "ab")
        contract.equal(len(lists), n, "clients")
        for rows in lists:
            contract.expect(rows.dtype == np.int64 and (np.diff(rows) > 0).all(), "ascending int64 rows", rows)
        contract.equal(np.sort(np.concatenate(lists)), np.arange(len(y)), "every row once")
        contract.equal(list(again), list(lists), "the same lists")


def check_patients(
    contract: Contract,
    name: str,
    settings: Mapping[str, object],
    y: NDArray[np.int64],
    n: int,
    seed: int,
    patients: NDArray[np.int64],
) -> None:
    """Rows of one patient go to one client."""
    with contract.rule("rows of a patient stay together"):
        lists = deal(name, settings, y, n, seed, patients)
        contract.equal(np.sort(np.concatenate(lists)), np.arange(len(y)), "every row once")
        held = [set(patients[rows].tolist()) for rows in lists]
        contract.equal(sum(map(len, held)), len(np.unique(patients)), "patients, each at one client")
