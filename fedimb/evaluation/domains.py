"""Recall by domain: over the test rows of each site or device in the data.

A class mean over all test rows can rise while the recall on one device falls; for that reason domain generalisation
reports the worst domain's recall (worst-group score).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.evaluation.confusion import confusion_of
from fedimb.evaluation.metrics import numbered, scores

if TYPE_CHECKING:
    from torch import Tensor

_MOST_NAMED = 32
RECALLS = ("macro_recall", "minority_recall")


def domain_recalls(
    matrices: Mapping[int, ArrayLike], names: Sequence[str], minority: Sequence[int]
) -> dict[str, float]:
    """Macro and minority recall of each domain, and the lowest of each.

    Args:
        matrices: domain id -> confusion matrix [C, C] (or [C, 2, 2]) of its test rows.
        names: names of the domains, by id.
        minority: class ids.

    Returns:
        ``test/domain/<id>_<name>/macro_recall``, ``.../minority_recall``, ``test/worst_domain_macro_recall``,
        ``test/worst_domain_minority_recall``. NaN if a domain has no row of these classes; the lowest is taken over the
        others. With more than 32 domains only the lowest; empty with fewer than two domains.
    """
    if len(matrices) < 2:
        return {}
    keys, found = numbered("domain", names), dict[str, float]()
    by_domain = {keys[domain]: scores(matrix, minority) for domain, matrix in sorted(matrices.items())}
    for name in RECALLS:
        values = {key: recalls[name] for key, recalls in by_domain.items()}
        if len(matrices) <= _MOST_NAMED:
            found |= {f"test/{key}/{name}": value for key, value in values.items()}
        found[f"test/worst_domain_{name}"] = min((v for v in values.values() if not np.isnan(v)), default=math.nan)
    return found


class Domains:
    """The domains of a test set.

    Args:
        ids: domain of each test row [n] integers, or None if the data have none.
        names: names of the domains, by id.
    """

    def __init__(self, ids: NDArray[np.integer] | None, names: Sequence[str]) -> None:
        self._names = names
        self._rows = {} if ids is None else {int(d): np.flatnonzero(np.asarray(ids) == d) for d in np.unique(ids)}

    def recalls(
        self,
        y: "Tensor",
        logits: "Tensor",
        minority: Sequence[int],
        hidden: NDArray[np.bool_] | None = None,
    ) -> dict[str, float]:
        """`domain_recalls` of a model's logits.

        Args:
            y: int64 [n], or float [n, C] of 0 and 1 if rows have several labels.
            logits: float [n, C], calibrated.
            minority: class ids.
            hidden: [C] classes whose rows do not count (`fedimb.evaluation.subgroups`); None: all count.
        """
        matrices = {domain: confusion_of(y[rows], logits[rows]) for domain, rows in self._rows.items()}
        if hidden is not None and hidden.any():
            matrices = {domain: matrix * ~hidden[:, None] for domain, matrix in matrices.items()}
        return domain_recalls(matrices, self._names, minority)
