"""Describes a prepared federation or a source in plain text: shows before a run which classes cannot be learned."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import PATIENTS, SourceData
from fedimb.data.federation import Federation
from fedimb.data.label_spaces import LabelSpaces
from fedimb.data.labels import UNKNOWN_CELL, class_counts
from fedimb.data.windows import SignalFacts
from fedimb.plain import JsonObject
from fedimb.report.matrix import matrix_lines
from fedimb.text import WIDTH, aligned, plain, shorten

Counts = NDArray[np.int64]
MOST_CLASSES = 40
_NAMED = 4
_SKIPPED = 10


def describe(federation: Federation, stream: TextIO | None = None) -> str:
    """Summary line, table per class (largest to smallest), table clients x classes, warnings (`warnings`).

    Args:
        federation: its store must be on this machine or possible to rebuild.
        stream: where the text will be written; only its encoding matters. Default: standard output.

    Returns:
        text without a final newline, each line under 100 columns except warnings.

    Raises:
        DataError: the store is damaged or has changed since.
    """
    names = [plain(name, stream) for name in federation.class_names]
    aside = np.concatenate([np.empty(0, np.int64), *federation.validation])
    held_out, test = federation.known_counts(federation.validation), federation.store.class_counts(federation.test)
    total, train = federation.class_totals, sum(map(len, federation.train))
    order = head_to_tail(total)
    lines = [
        f"{federation.n_clients:,} clients, {federation.n_classes:,} classes, {train + len(aside):,} rows "
        f"(train {train:,}, validation {len(aside):,}), test {len(federation.test):,}",
        f"imbalance factor {federation.imbalance_factor:.1f}, partition {federation.sha[:12]}",
        *(_several(total, train + len(aside)) if federation.task == "multilabel" else []),
        "",
        *_class_table(federation, names, order, held_out, test),
        "",
        *matrix_lines(
            federation.counts,
            names,
            order,
            federation.minority,
            "client",
            client_names(federation, stream),
            _unit(federation.task),
        ),
        "",
        *_legend(),
        *_annotators(federation, names, stream),
    ]
    found = warnings(federation.counts, test, names)
    return "\n".join([*lines, *([""] if found else []), *(f"warning: {line}" for line in found)])


def _annotators(federation: Federation, names: Sequence[str], stream: TextIO | None) -> list[str]:
    """What each client annotates, where not every client annotates every class, and how many cells are known."""
    spaces = federation.labels
    if spaces is None:
        return []
    lines = _known_cells(spaces, names)
    if spaces.annotated.all():
        return lines
    lines += ["", "annotated classes (rows of others count for none above)"]
    for k, name in enumerate(client_names(federation, stream)):
        own = [names[int(c)] for c in np.flatnonzero(spaces.annotated[k])]
        out = f"; {spaces.left_out[k]:,} of {spaces.rows[k]:,} rows left out" if spaces.left_out[k] else ""
        text = f"client {name}: {', '.join(own) or 'none'}{out}"
        lines += textwrap.wrap(text, WIDTH - 1, initial_indent="  ", subsequent_indent="    ")
    return lines


def _known_cells(spaces: LabelSpaces, names: Sequence[str]) -> list[str]:
    """Of how many rows of the clients it is known whether they have each class, where single cells are unknown."""
    if spaces.cells is None:
        return []
    kept, out = int((spaces.rows - spaces.left_out).sum()), int(spaces.left_out.sum())
    known = ", ".join(f"{name} {int(n):,}" for name, n in zip(names, spaces.cells.sum(axis=0), strict=True))
    text = f"unknown labels count for nothing; of {kept:,} rows it is known whether they have: {known}"
    text += f"; {out:,} rows of which nothing is known are left out" if out else ""
    return ["", *textwrap.wrap(text, WIDTH - 1, subsequent_indent="  ")]


def about_data(about: Mapping[str, str], stream: TextIO | None = None) -> str:
    """Where a data set is from, its licence, citation, split and known flaws (`fedimb.data.config.ABOUT`), in lines.

    Returns:
        text without a final newline, each line under 100 columns; empty if nothing is known.
    """
    lines = []
    for key, text in about.items():
        lines += textwrap.wrap(
            plain(text, stream), WIDTH - 1, initial_indent=f"{key + ':':<10}", subsequent_indent=" " * 10
        )
    return "\n".join(lines)


def warnings(counts: Counts, test: Counts, class_names: Sequence[str]) -> list[str]:
    """One line per reason why a class cannot be learned or measured, and for clients without rows.

    Args:
        counts: [K, C] rows of each client, validation included.
        test: [C] test rows.
        class_names: C names.
    """
    total, holders = counts.sum(axis=0), (counts > 0).sum(axis=0)

    def classes(which: NDArray[np.bool_]) -> str:
        return _some([class_names[int(c)] for c in np.flatnonzero(which)], "class", "classes")

    found = []
    if (total == 0).any():
        found.append(f"no training rows of {classes(total == 0)}: no model can learn them")
    if (total == 1).any():
        found.append(f"a single training row of {classes(total == 1)}: nothing to validate or vary")
    alone = (holders == 1) & (total > 1) & (len(counts) > 1)
    if alone.any():
        found.append(f"only one client holds {classes(alone)}: learned only in rounds with that client")
    if (test == 0).any():
        found.append(f"no test rows of {classes(test == 0)}: their recall is undefined and not part of any mean")
    empty = np.flatnonzero(counts.sum(axis=1) == 0)
    if len(empty):
        found.append(
            f"no rows at {_some([str(k) for k in empty], 'client', 'clients')} of {len(counts):,}: never selected"
        )
    return found


def describe_source(data: SourceData, stream: TextIO | None = None) -> str:
    """Describe a source: rows, shape, columns, classes with counts (by site if it names sites), rows left out.

    Returns:
        text without a final newline; one line per row left out, at most ten.
    """
    names = [plain(name, stream) for name in data.class_names]
    count = class_counts(data.y, data.targets, len(names), slice(None))
    order = head_to_tail(count)
    shape = " x ".join(str(size) for size in data.x.shape[1:])
    lines = [f"{len(data.y):,} rows of {shape} {data.x.dtype}" + (f", times {data.scale:.6g}" * (data.scale != 1))]
    if data.targets is not None:
        lines += _several(count, len(data.y))
        if unknown := (data.targets == UNKNOWN_CELL).sum(axis=0).tolist():
            said = ", ".join(f"{name} {n:,}" for name, n in zip(names, unknown, strict=True) if n)
            lines += [f"unknown cells: {said}"] if said else []
    if data.scaled is not None:
        missing = 0 if data.signal is not None else int(np.isnan(data.x[:, data.scaled]).sum())
        columns = _number(int(data.scaled.sum()), "column" if data.signal is None else "channel")
        lines.append(f"{columns} scaled with statistics summed over the clients; {_number(missing, 'value')} missing")
    if data.signal is not None:
        lines.append(_signal(data.signal, stream))
    if data.patients is not None:
        groups = len(np.unique(data.patients))
        named = _number(groups, "patient") if data.units == PATIENTS else f"{groups:,} {data.units}"
        lines.append(f"{named}, kept whole")
    lines.append(
        "no official test set"
        if data.official_test is None
        else f"official test set: {data.official_test.sum():,} rows"
    )
    sites = np.zeros(len(data.y), np.int64) if data.sites is None else data.sites
    labels = ["all"] if data.sites is None else [plain(name, stream) for name in data.site_names]
    lines += ["", *_plain_classes(names, order, count, len(data.y))]
    if data.sites is not None:
        of_site = [np.flatnonzero(sites == site) for site in range(len(labels))]
        table = np.stack([class_counts(data.y, data.targets, len(names), rows) for rows in of_site])
        lines += ["", *matrix_lines(table, names, order, (), "site", labels, _unit(data.task))]
    if data.skipped:
        lines += [
            "",
            f"{_number(len(data.skipped), 'row')} left out:",
            *(f"  {line}" for line in data.skipped[:_SKIPPED]),
        ]
        lines += [f"  ... {len(data.skipped) - _SKIPPED:,} more"] * (len(data.skipped) > _SKIPPED)
    absent = [names[c] for c in np.flatnonzero(count == 0)]
    if absent:
        lines += ["", f"warning: no rows of {_some(absent, 'class', 'classes')}"]
    return "\n".join(lines)


def head_to_tail(total: Counts) -> list[int]:
    """Class ids from most to fewest rows, ties by id."""
    return [int(c) for c in np.argsort(-total, kind="stable")]


def client_names(federation: Federation, stream: TextIO | None = None) -> list[str]:
    """Client ids, with the site's name if every client holds the rows of one site and no two share a site."""
    plain_ids = [str(k) for k in range(federation.n_clients)]
    sites, names = federation.store.sites, federation.store.site_names
    if sites is None:
        return plain_ids
    found = [np.unique(sites[rows]) for rows in federation.train]
    one = [int(ids[0]) for ids in found if len(ids)]
    if any(len(ids) > 1 for ids in found) or len(set(one)) < len(one):
        return plain_ids
    return [f"{k} {shorten(plain(names[ids[0]], stream), 16)}" if len(ids) else f"{k}" for k, ids in enumerate(found)]


def _unit(task: str) -> str:
    return "labels" if task == "multilabel" else "rows"


def _several(total: Counts, rows: int) -> list[str]:
    """The line that explains why the classes sum to more than the rows."""
    return [
        f"several labels per row, {total.sum() / max(1, rows):.2f} on average: a row counts for each of its classes"
    ]


def _class_table(
    federation: Federation, names: list[str], order: list[int], held_out: Counts, test: Counts
) -> list[str]:
    total, exposure = federation.class_totals, federation.exposure()
    rows = {}
    for c in order:
        seen = total[c] > 0
        rows[c] = [
            _class_label(c, names),
            "<" if c in federation.minority else "",
            f"{total[c] - held_out[c]:,}",
            f"{held_out[c]:,}",
            f"{test[c]:,}",
            f"{exposure['holders'][c]:,}",
            f"{exposure['n_eff'][c]:.1f}" if seen else "-",
            f"{exposure['top1_mass'][c]:.0%}" if seen else "-",
        ]
    head = ["class, head to tail", "", "train", "validation", "test", "holders", "N_eff", "top-1"]
    return _folded(head, rows, order)


def _plain_classes(names: list[str], order: list[int], count: Counts, n: int) -> list[str]:
    share = count / n
    rows = {c: [_class_label(c, names), f"{count[c]:,}", f"{share[c]:.1%}"] for c in order}
    return _folded(["class, head to tail", "rows", "share"], rows, order)


def _folded(head: list[str], rows: dict[int, list[str]], order: list[int]) -> list[str]:
    """Aligned lines; of more than ``MOST_CLASSES`` classes the middle is left out and counted."""
    if len(order) <= MOST_CLASSES:
        return aligned([head, *(rows[c] for c in order)])
    half = MOST_CLASSES // 2
    lines = aligned([head, *(rows[c] for c in [*order[:half], *order[-half:]])])
    return [*lines[: half + 1], f"... {len(order) - MOST_CLASSES:,} classes between", *lines[half + 1 :]]


def _class_label(c: int, names: list[str]) -> str:
    return names[c] if names[c] == str(c) else shorten(f"{c} {names[c]}", 34)


def _legend() -> list[str]:
    return [
        "< minority class; holders: clients with the class; N_eff: effective number of clients with the class;",
        "top-1: share of the largest holder",
    ]


def _number(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _signal(signal: SignalFacts, stream: TextIO | None) -> str:
    """Rate and channels in one line."""
    rate = "sampling rate not known" if signal.rate_hz is None else f"{signal.rate_hz:g} Hz"
    if signal.rate_hz is not None and signal.length:
        rate += f", windows of {signal.length / signal.rate_hz:g} s"
    names = _some([plain(name, stream) for name in signal.channels], "channel", "channels") if signal.channels else ""
    return f"signals: {rate}{'; ' if names else ''}{names}"


def _some(names: list[str], one: str, many: str) -> str:
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
    return shorten(f"{one if len(names) == 1 else many} {shown}", WIDTH)


def source_counts(data: SourceData) -> JsonObject:
    """What a source holds, as plain values: rows, their shape, classes with counts, patients, sites, test rows."""
    return {
        "rows": len(data.y),
        "shape": list(data.x.shape[1:]),
        "class_names": list(data.class_names),
        "counts": class_counts(data.y, data.targets, len(data.class_names), slice(None)).tolist(),
        "patients": len(set(data.patients.tolist())) if data.patients is not None and data.units == PATIENTS else None,
        "sites": None if data.sites is None else len(data.site_names),
        "official_test": None if data.official_test is None else int(data.official_test.sum()),
        "skipped": list(data.skipped),
    }
