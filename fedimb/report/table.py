"""The table at the end of a study and the panel at the end of a run, in plain text."""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import NotRequired, TextIO, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.evaluation.confusion import hits_and_support
from fedimb.evaluation.intervals import bootstrap_scores, wilson
from fedimb.evaluation.metrics import scores
from fedimb.evaluation.ratios import ratio
from fedimb.report.by_domain import domain_lines
from fedimb.report.groups import QUALITIES, Group, RunRow, group_rows
from fedimb.seeds import Stream, numpy_rng
from fedimb.text import WIDTH, aligned, pad, plain, score, shorten, width, writable

MOST_CLASSES = 40
RESAMPLES = 1000
_HEADLINE = (
    "minority_recall",
    "macro_recall",
    "min_class_recall",
    "g_mean",
    "macro_f1",
    "macro_precision",
    "macro_specificity",
    "mcc",
    "accuracy",
)


class RunResult(TypedDict):
    """One finished run, for `result_panel`.

    Attributes:
        label: row label.
        class_names: C names.
        train_counts: [C] training samples per class over all clients.
        matrix: confusion matrix of the final round, [C, C], or [C, 2, 2] if rows have several labels; of float, the
            mean over several models, no intervals are computed but those of single classes.
        minority: ids of the minority classes.
        last_k: mean scores over the last rounds.
        bytes: up + down.
        seconds: wall time.
        seed, status: of the run.
        suspect: why its result should not be trusted, or empty.
        intervals: name -> (low, high), instead of those computed from the matrix; none can be computed from a
            [C, 2, 2], which does not record the labels that occurred together.
    """

    label: str
    class_names: Sequence[str]
    train_counts: ArrayLike
    matrix: ArrayLike
    minority: Sequence[int]
    last_k: Mapping[str, float]
    bytes: int
    seconds: float
    seed: NotRequired[int]
    status: NotRequired[str]
    suspect: NotRequired[str]
    intervals: NotRequired[Mapping[str, Sequence[float]]]


def _amount(value: float) -> str:
    """Bytes and time with three figures; 0 and n/a stay unchanged."""
    if math.isnan(value):
        return "n/a"
    return f"{value:.2f}" if 0 < value < 9.995 else f"{value:.1f}" if 0 < value < 99.95 else f"{value:,.0f}"


def _best(groups: list[Group], metric: str) -> float:
    means = [group.interval(metric)[0] for group in groups if group.complete]
    return max((mean for mean in means if not math.isnan(mean)), default=math.nan)


def comparison_table(rows: Sequence[RunRow], stream: TextIO | None = None, bounds: Collection[str] = ()) -> str:
    """The table of a study: one line per label, mean +- half-width of the 95 % t interval over seeds.

    ``*`` marks the best mean of a column among labels with a result for every run: a mean over only the seeds that
    finished is not a fair comparison. Runs without a result are counted in ``seeds`` and listed below the table; a row
    with a suspect run is marked ``?``, and why is below the table.

    Args:
        rows: one `RunRow` per run; labels keep the order of first appearance.
        stream: where the text will be written; only its encoding matters. Default: standard output.
        bounds: labels that are no rivals of the others (`fedimb.study.results.StudyResults.bounds`): never the best.

    Returns:
        text without a final newline, each line under 100 columns; a longer label gets its own line.

    Raises:
        ValueError: see `group_rows`.
    """
    groups = group_rows(rows)
    if not groups:
        return "No runs to compare."
    sign = "±" if writable("±", stream) else "+-"
    rivals = [group for group in groups if group.label not in bounds]
    best = {metric: _best(rivals, metric) if len(rivals) > 1 else math.nan for metric in QUALITIES}
    blank = " " * len(f" {sign} 0.000") if any(len(group.finished) > 1 for group in groups) else ""
    cells = []
    for group in groups:
        seeds = str(group.runs) if group.complete else f"{len(group.finished)}/{group.runs}"
        line = [seeds]
        for metric in QUALITIES:
            mean, low, high = group.interval(metric)
            star = "*" if group in rivals and group.complete and mean == best[metric] else " "
            # Spaces where other rows have a half-width, so that means are aligned.
            spread = blank if math.isnan(high) else f" {sign} {(high - low) / 2:.3f}"
            line.append(f"{score(mean)}{spread}{star}")
        line += [_amount(group.mean("bytes") / 1e6), _amount(group.mean("seconds"))]
        cells.append(line)
    upper = ["", *[name.partition(" ")[0] for name in QUALITIES.values()], "MB", ""]
    lower = ["seeds", *[name.partition(" ")[2] for name in QUALITIES.values()], "sent", "seconds"]
    # Headings end where figures end, one column before the place of the star.
    heads = [[h + " " if 1 <= at <= len(QUALITIES) else h for at, h in enumerate(head)] for head in (upper, lower)]
    figures = aligned([*heads, *cells], left=0)
    figures_width = max(map(width, figures))
    names = [plain(group.label, stream) + (" ?" if group.suspect else "") for group in groups]
    room = WIDTH - 2 - figures_width
    label_width = max([len("strategy"), *[width(name) for name in names if width(name) <= room]])
    lines = [f"{pad('', label_width)}  {figures[0]}", f"{pad('strategy', label_width)}  {figures[1]}"]
    lines.append("-" * (label_width + 2 + figures_width))
    for name, text in zip(names, figures[2:], strict=True):
        if width(name) > room:
            lines.append(shorten(name, WIDTH))
            name = ""
        lines.append(f"{pad(name, label_width)}  {text}")
    return "\n".join([*lines, *_notes(groups, names, sign)])


def _notes(groups: list[Group], names: list[str], sign: str) -> list[str]:
    notes = []
    if any(len(group.finished) > 1 for group in groups):
        notes.append(f"mean {sign} half-width of the 95 % t interval over seeds; * best mean of its column")
    elif len(groups) > 1:
        notes.append("* best of its column; one seed shows no spread")
    notes += suspect_notes({group.label: group.suspect for group in groups if group.suspect})
    for group, name in zip(groups, names, strict=True):
        if not group.complete:
            over = f"means over the other {len(group.finished)}, no *" if group.finished else "no result"
            trouble = f": {group.trouble}; {over}"
            notes.append(shorten(name, max(12, WIDTH - width(trouble))) + trouble)
    return notes


def suspect_notes(by_label: Mapping[str, str]) -> list[str]:
    """Lines below a table for its rows marked ``?``."""
    if not by_label:
        return []
    text = [f"? suspect, {label}: {why}" for label, why in by_label.items()]
    return [line for each in text for line in textwrap.wrap(each, WIDTH - 1, subsequent_indent="  ")]


def result_panel(result: RunResult, stream: TextIO | None = None) -> str:
    """One run's summary scores, then recall per class from the most to the least frequent.

    Final-round scores have a 95 % stratified bootstrap interval, recalls a Wilson interval; both are over test samples,
    not seeds. Minority classes are marked ``<``. Beyond 40 classes the middle is summed up in one line.

    Args:
        result: see `RunResult`.
        stream: where the text will be written; only its encoding matters. Default: standard output.

    Returns:
        text without a final newline, each line under 100 columns.

    Raises:
        ValueError: names, counts and matrix disagree on the number of classes, or the matrix is invalid.
    """
    matrix = np.asarray(result["matrix"])
    train_counts = np.asarray(result["train_counts"])
    n_classes = len(result["class_names"])
    fits = matrix.shape in ((n_classes, n_classes), (n_classes, 2, 2))
    if not fits or train_counts.shape != (n_classes,):
        raise ValueError(
            f"{n_classes} class names, train counts {train_counts.shape} and matrix {matrix.shape} do not agree"
        )
    minority = [int(c) for c in result["minority"]]
    heading = plain(result["label"], stream)
    if "seed" in result:
        heading += f", seed {result['seed']}"
    if result.get("status", "finished") != "finished":
        heading += f" ({result.get('status')})"
    if result.get("suspect"):
        heading += " ?"
    cost = f"{_amount(result['bytes'] / 1e6)} MB sent, {_amount(result['seconds'])} s"
    lines = [shorten(heading, WIDTH - 2 - width(cost)) + "  " + cost, ""]
    if result.get("suspect"):
        lines += [*textwrap.wrap(f"suspect: {result['suspect']}", WIDTH - 1, subsequent_indent="  "), ""]
    lines += _headline(matrix, minority, result["last_k"], result.get("intervals"))
    lines += ["", *_classes(result, matrix, train_counts, minority, stream)]
    if by_domain := domain_lines(result["last_k"], stream):
        lines += ["", *by_domain]
    return "\n".join(lines)


def _headline(
    matrix: NDArray[np.int64],
    minority: list[int],
    last_k: Mapping[str, float],
    given: Mapping[str, Sequence[float]] | None,
) -> list[str]:
    final, several = scores(matrix, minority), matrix.ndim == 3
    bounds: Mapping[str, Sequence[float]] = given or {}
    if not several and not bounds and matrix.dtype.kind in "iu":
        bounds = bootstrap_scores(matrix, minority, RESAMPLES, numpy_rng(0, Stream.BOOTSTRAP))
    table = [["", "final round", "95 % interval", "last-k mean"]]
    for name in _HEADLINE:
        if name not in final:
            continue
        low, high = bounds.get(name, (math.nan, math.nan)) if name != "min_class_recall" else _lowest_class(matrix)
        interval = "" if math.isnan(low) else f"{low:.3f} to {high:.3f}"
        table.append([name.replace("_", " "), score(final[name]), interval, score(last_k.get(name, math.nan))])
    lines = aligned(table)
    if (defined := int(final["defined_classes"])) < len(matrix):
        lines.append(
            f"{len(matrix) - defined} of {len(matrix)} classes have no test samples: they are not part of any mean"
        )
    if (called := int(final.get("predicted_classes", len(matrix)))) < len(matrix):
        lines.append(
            f"{len(matrix) - called} of {len(matrix)} classes were never predicted: their precision is undefined"
        )
    elif missed := [c for c in minority if not several and matrix[:, c].sum() == 0]:
        lines.append(f"never predicted: minority class{'es' if len(missed) > 1 else ''} {', '.join(map(str, missed))}")
    if several and not bounds:
        lines.append("no intervals of means over classes: set evaluation.bootstrap above 0 to compute them")
    return lines


def _lowest_class(matrix: NDArray[np.int64]) -> tuple[float, float]:
    """Wilson interval of the class with the lowest recall: bootstrap percentiles of a minimum are too low."""
    hits, support = hits_and_support(matrix)
    recall = ratio(hits, support)
    if np.isnan(recall).all():
        return math.nan, math.nan
    worst = int(np.nanargmin(recall))
    low, high = wilson(hits[worst], support[worst])
    return float(low), float(high)


def _classes(
    result: RunResult,
    matrix: NDArray[np.int64],
    train_counts: NDArray[np.int64],
    minority: list[int],
    stream: TextIO | None,
) -> list[str]:
    full, empty = ("█", "·") if writable("█·", stream) else ("#", ".")
    hits, support = hits_and_support(matrix)
    low, high = wilson(hits, support)
    order = np.lexsort((np.arange(len(matrix)), -train_counts)).tolist()
    hidden: list[int] = []
    if len(order) > MOST_CLASSES:
        half = MOST_CLASSES // 2
        hidden, order = order[half:-half], order[:half] + order[-half:]
    table = [["class, head to tail", "", "train", "test", "recall", "", "95 % interval"]]
    for c in order:
        recall = hits[c] / support[c] if support[c] else math.nan
        filled = 0 if math.isnan(recall) else round(20 * recall)
        bar = "no test sample".ljust(20) if math.isnan(recall) else full * filled + empty * (20 - filled)
        interval = "" if math.isnan(recall) else f"{low[c]:.2f} to {high[c]:.2f}"
        name = shorten(plain(f"{c} {result['class_names'][c]}", stream), 28)
        mark = "<" if c in minority else ""
        train = f"{train_counts[c]:,}" if train_counts.any() else "n/a"  # counted at the sites of a deployment
        table.append([name, mark, train, f"{support[c]:,.0f}", score(recall), bar, interval])
    lines = aligned(table)
    if hidden:
        rest = scores(matrix, hidden)["minority_recall"]
        lines.insert(1 + MOST_CLASSES // 2, f"... {len(hidden)} classes between, mean recall {score(rest)}")
    return [*lines, "< minority class"] if minority else lines
