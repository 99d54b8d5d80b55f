"""The reference rows that every comparison shows besides its own.

A number is meaningful only next to the free baselines: predicting the majority, each hospital training alone, all data
in one place, plain FedAvg, and FedAvg with its logits adjusted after training. Post-hoc rows are scored on one trained
model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_ONE_SITE = (
    "clients.count=1",
    "clients.participation=1",
    "clients.availability=1",
    "clients.dropout=0",
    "clients.slow=0",
    "partition=iid",
)


@dataclass(frozen=True)
class Reference:
    """One reference row.

    Attributes:
        label: row label.
        about: a short description.
        words: settings of its run in addition to the study's.
        computed: name of a computation in `fedimb.study.computed` that replaces a run, or None.
        pooled: its run has all data in one place; the study's partition is not applied.
        by_name: only in studies that name it; ``references: true`` leaves it out.
    """

    label: str
    about: str
    words: tuple[str, ...] = ()
    computed: str | None = None
    pooled: bool = False
    by_name: bool = False


_SUMS_ONLY = ("strategy=oneround", "model=logistic", "strategy.oneround.secure=false")
"""Open sums: masked ones have the same bits and only take longer."""


REFERENCES = {
    reference.label: reference
    for reference in (
        Reference("majority", "always predicts the class with the most training rows", computed="majority"),
        Reference("local_mean", "every client trains alone; mean over clients", computed="local"),
        Reference("local_best", "every client trains alone; the best of them on the test set", computed="local"),
        Reference("pooled", "all rows in one place, cross-entropy", _ONE_SITE, pooled=True),
        Reference(
            "pooled+balanced_softmax",
            "all rows in one place, balanced softmax",
            (*_ONE_SITE, "loss=balanced_softmax"),
            pooled=True,
        ),
        Reference("fedavg", "FedAvg, cross-entropy"),
        Reference("la_post", "FedAvg, logits shifted by the class prior after training", ("calibration=la_post",)),
        Reference("uniform", "FedAvg with equal weights", ("aggregation_weight=uniform",)),
        Reference(
            "uniform+la_post",
            "FedAvg with equal weights, logits shifted after training",
            ("aggregation_weight=uniform", "calibration=la_post"),
        ),
        Reference("tau", "FedAvg, classifier rows scaled to the same norm after training", ("calibration=tau",)),
        Reference(
            "ncm",
            "nearest class mean of the inputs, from sums sent once",
            (*_SUMS_ONLY, "strategy.oneround.head=ncm"),
            by_name=True,
        ),
        Reference("lda", "discriminant analysis of the inputs, from sums sent once", _SUMS_ONLY, by_name=True),
    )
}
"""Reference rows by label, in the order of tables."""


def without_partition(words: Sequence[str]) -> tuple[str, ...]:
    """The settings without those of the partition."""
    return tuple(word for word in words if not word.lstrip("+").startswith(("partition=", "partition.")))
