"""How many rows of each class to keep, which class is rare, and which classes count as the minority."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.identifiers import Names
from fedimb.errors import ConfigError, DataError, nearest

Counts = NDArray[np.int64]


def _exponential(n_max: int, imbalance_factor: float, rank: int, n_classes: int) -> int:
    """int(n_max * IF^(-rank / (C - 1))) (Cui et al. 2019, CIFAR-LT)."""
    return _whole(n_max * imbalance_factor ** (-rank / max(1, n_classes - 1)))


def _step(n_max: int, imbalance_factor: float, rank: int, n_classes: int) -> int:
    """n_max for the first half of the ranks (rounded up), n_max / IF for the rest (Buda et al. 2018)."""
    return n_max if rank < (n_classes + 1) // 2 else _whole(n_max / imbalance_factor)


def _whole(value: float) -> int:
    return int(value + 1e-9)  # 49 * (1 / 49) is 0.9999999999999999: a plain int would lose the class


SHAPES: dict[str, Callable[[int, float, int, int], int]] = {"exponential": _exponential, "step": _step}


def class_ranks(n_classes: int, order: str, rng: np.random.Generator) -> Counts:
    """[C] int64 rank of each class, 0 the most frequent: ``seeded`` a permutation, ``fixed`` the class id."""
    if order not in ("seeded", "fixed"):
        raise ConfigError(f"data.class_order: no order '{order}'.{nearest(order, ('seeded', 'fixed'))}")
    return rng.permutation(n_classes) if order == "seeded" else np.arange(n_classes)


def target_counts(
    available: Counts,
    shape: str,
    imbalance_factor: float,
    n_max: int | None,
    ranks: Counts,
    class_names: tuple[str, ...],
) -> Counts:
    """Rows of each class to keep, [C] int64.

    Args:
        available: [C] available rows.
        shape: ``exponential``, ``step`` or ``natural`` (keep all; the next three are ignored).
        imbalance_factor: IF >= 1; 1 is balanced.
        n_max: rows at rank 0; None: the largest value for which every class has enough rows at its rank.
        ranks: [C], see `class_ranks`.
        class_names: for messages.

    Raises:
        ConfigError: unknown shape, IF < 1, n_max < 1.
        DataError: a class has too few rows for its rank (the message gives the n_max that works), or would have none.

    Example:
        >>> import numpy as np
        >>> have = np.array([100, 100, 100])
        >>> target_counts(have, "exponential", 25, None, np.array([0, 1, 2]), ("a", "b", "c")).tolist()
        [100, 20, 4]
    """
    if shape == "natural":
        return np.asarray(available, dtype=np.int64)
    if shape not in SHAPES:
        raise ConfigError(f"data.long_tail: no shape '{shape}'.{nearest(shape, [*SHAPES, 'natural'])}")
    if not (np.isfinite(imbalance_factor) and imbalance_factor >= 1):
        raise ConfigError(f"data.imbalance_factor={imbalance_factor}: give a number of at least 1")
    if n_max is not None and n_max < 1:
        raise ConfigError(f"data.n_max={n_max}: give at least 1, or null for the largest possible")

    def counts(largest: int) -> Counts:
        count = SHAPES[shape]
        return np.array([count(largest, imbalance_factor, int(r), len(ranks)) for r in ranks], dtype=np.int64)

    feasible = _largest(lambda m: bool((counts(m) <= available).all()), int(available.max()))
    wanted = counts(feasible if n_max is None else n_max)
    for c in np.flatnonzero(wanted > available):
        raise DataError(
            f"class '{class_names[c]}' has {available[c]} rows where its rank needs {wanted[c]}; "
            f"the largest data.n_max that works is {feasible}"
        )
    for c in np.flatnonzero(wanted == 0):
        raise DataError(
            f"class '{class_names[c]}' would be left without rows "
            f"by n_max {feasible if n_max is None else n_max} and imbalance_factor {imbalance_factor:g} "
            f"({available[c]} available); "
            f"lower data.imbalance_factor or use more rows"
        )
    return wanted


def _largest(works: Callable[[int], bool], high: int) -> int:
    """The largest m in 0..high that works, where every smaller one does too."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if works(middle) else (low, middle - 1)
    return low


def keep_rows(
    rows: NDArray[np.int64], y: NDArray[np.int64], counts: Counts, rng: np.random.Generator
) -> NDArray[np.int64]:
    """``counts[c]`` rows of each class, drawn from ``rows`` of the store labelled ``y``, sorted int64."""
    labels = y[rows]
    kept = [rng.permutation(rows[labels == c])[:n] for c, n in enumerate(counts)]
    return np.sort(np.concatenate(kept)).astype(np.int64)


def redraw(
    held: NDArray[np.int64], rest: NDArray[np.int64], y: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each of the ``held`` rows another row of its class, drawn without repetition from ``rest``; int64, same
    length.

    Reproduces a defect of FairFAL's released code, which draws its long tail twice, once to train and once to query: a
    row is scored by one image and labelled by another (defect B1). Only for measuring its effect.
    """
    shown, ours, theirs = np.empty_like(held), y[held], y[rest]
    for c in np.unique(ours):
        here = np.flatnonzero(ours == c)
        shown[here] = rng.permutation(rest[theirs == c])[: len(here)]
    return shown


def minority_classes(counts: NDArray[Any], rule: object, class_names: Sequence[str] | None = None) -> tuple[int, ...]:
    """The classes that `minority_recall` covers, as sorted class ids; fixed before any method runs.

    Only classes with training rows are considered, whatever the rule: no method could learn another.

    Args:
        counts: [C] original training rows; where cells are unknown, as if all were known.
        rule: ``rarest_30pct``: of the C classes with rows, the max(1, floor(.3 C + .5)) with fewest, ties by class id.
            ``cumulative_75_95``: in order of decreasing frequency, the classes that start after 95 % of the rows (mass
                *before* adding the class).
            A list: exactly those, each as its class id or, as text, by its name.
        class_names: by class id; None: names are not known.

    Raises:
        ConfigError: unknown rule, or entries that are not distinct classes.
        DataError: ``cumulative_75_95`` finds no class, no class has rows, or a listed class has none.
    """
    counts = np.asarray(counts)
    there = np.flatnonzero(counts > 0)
    if len(there) == 0:
        raise DataError("no class has training rows, so there is no minority; check data.test and the source")
    if rule == "rarest_30pct":
        size = max(1, (3 * len(there) + 5) // 10)  # whole numbers: .3 * C + .5 is inexact at C = 15
        return tuple(sorted(there[np.argsort(counts[there], kind="stable")[:size]].tolist()))
    if rule == "cumulative_75_95":
        order = there[np.argsort(-counts[there], kind="stable")]
        before = np.cumsum(counts[order]) - counts[order]
        tail = order[before * 100 >= 95 * np.sum(counts)]
        if len(tail) == 0:
            raise DataError(
                "data.minority=cumulative_75_95 finds no class past 95 % of rows; use rarest_30pct or a list"
            )
        return tuple(sorted(tail.tolist()))
    if isinstance(rule, str):
        known = ("rarest_30pct", "cumulative_75_95")
        raise ConfigError(f"data.minority: no rule '{rule}'.{nearest(rule, known)}")
    if not isinstance(rule, (list, tuple)) or not rule:
        raise ConfigError(f"data.minority={rule!r}: give a rule's name or a list of classes")
    listed = _listed(list(rule), len(counts), class_names)
    for c in listed:
        if counts[c] == 0:
            name = f"class {c}" if class_names is None else f"class '{class_names[c]}'"
            raise DataError(
                f"data.minority lists {name}, which has no training rows; leave it out of the list, or give it rows "
                "(see the source and data.test)"
            )
    return tuple(sorted(listed))


def _listed(rule: list[object], n_classes: int, class_names: Sequence[str] | None) -> list[int]:
    """Class ids of a list of ids and names; ConfigError unless they are distinct classes."""
    names = Names(class_names or ())
    found: list[int] = []
    for entry in rule:
        at = names.index(entry) if isinstance(entry, str) else None
        if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < n_classes:
            at, meant = entry, names.index(entry)
            if meant is not None and meant != at:
                raise ConfigError(
                    f"data.minority={rule}: {entry} is the id of class '{(class_names or ())[at]}' and the name of "
                    f"another; write names as text, as in data.minority=['{entry}']"
                )
        if at is None:
            valid = f" or names as text ({', '.join(list(class_names)[:8])})" if class_names else ""
            raise ConfigError(f"data.minority={rule}: give distinct class ids from 0 to {n_classes - 1}{valid}")
        found.append(at)
    if len(set(found)) != len(found):
        raise ConfigError(f"data.minority={rule}: give distinct class ids from 0 to {n_classes - 1}")
    return found
