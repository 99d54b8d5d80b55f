"""One sentence at the end of a run that says what it means; of a study: `fedimb.report.meaning`."""

from collections.abc import Sequence

from fedimb.evaluation.confusion import hits_and_support
from fedimb.rundir.result import RowResult, RunResult
from fedimb.text import plain


def run_sentence(result: RunResult) -> str:
    """Which part of the minority cases a run found in its final round, and that one seed shows no significance.

    ``In the final round, fedavg found 39 of 76 test rows of minority classes (51 %); one seed says nothing about ...``
    """
    what = "test rows of minority classes" if result.minority else "test rows"
    if result.task == "multilabel":
        what = "minority labels in the test set" if result.minority else "labels in the test set"
    found = [_found(row, result.minority or tuple(range(len(result.class_names)))) for row in result.rows]
    if not any(support for _, support in found):
        start = f"The test set has no {what.removesuffix(' in the test set')}, so the run says nothing about them"
    else:
        parts = [
            f"{plain(row.label, None)} {_verb(row)} {hits:,.0f} of {support:,.0f} {what} ({100 * hits / support:.0f} %)"
            for row, (hits, support) in zip(result.rows, found, strict=True)
        ]
        rest = [part.replace(f" {what}", "") for part in parts[1:]]
        start = f"In the final round, {listed([parts[0], *rest])}"
    return f"{start}; one seed says nothing about significance: compare on several (fedimb sweep ... seed=0,1,2,3,4,5)."


def _verb(row: RowResult) -> str:
    return "found" if row.copies == 1 else f"(mean over {row.copies} sites' models) found"


def _found(row: RowResult, classes: Sequence[int]) -> tuple[float, float]:
    """(found, all) test rows of these classes; of sites' own models the mean of what they found."""
    hits, support = hits_and_support(row.tested_matrix)
    return float(sum(hits[c] for c in classes)), float(sum(support[c] for c in classes))


def listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
