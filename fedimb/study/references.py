"""The reference rows that every comparison shows besides its own.

A number is meaningful only next to the free baselines: predicting the majority, each hospital training alone, all data
in one place, plain FedAvg, and FedAvg with its logits adjusted after training. Post-hoc rows are scored on one trained
model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
        sums_only: it trains nothing, so that there is nothing to tune.
    """

    label: str
    about: str
    words: tuple[str, ...] = ()
    computed: str | None = None
    pooled: bool = False
    by_name: bool = False
    sums_only: bool = False


ENCODED = "encoded"
"""Name of the model whose inputs are an encoder's output."""
_ON_INPUTS = "model=logistic"
_SUMS_ONLY = ("strategy=oneround", _ON_INPUTS, "strategy.oneround.secure=false")
"""Open sums: masked ones have the same bits and only take longer."""

FREE = ("la_post", "uniform+la_post", "ncm", "lda")
"""Rows that cost nothing beside FedAvg, or no training at all: the bar is the best of them (`fedimb.study.bars`)."""
MIN_COUNTS: tuple[Literal[1, 5], ...] = (1, 5)
"""Rows of all clients that a class needs to be predicted by a free row: 1 uses every row, 5 reveals no single one."""


def at_min_count(label: str, count: int) -> str:
    """The label of a free row at a minimum count: ``lda``, ``lda@5``."""
    return label if count == 1 else f"{label}@{count}"


def is_free(label: str) -> bool:
    """Whether a row of this label is free, at any minimum count: it trains nothing beyond FedAvg, or nothing at all.

    >>> is_free("lda@5"), is_free("fedavg")
    (True, False)
    """
    return label in {at_min_count(free, count) for free in FREE for count in MIN_COUNTS}


def _free(label: str, about: str, words: tuple[str, ...], key: str) -> list[Reference]:
    """A free row at every minimum count."""
    sums_only = words[: len(_SUMS_ONLY)] == _SUMS_ONLY
    found = []
    for count in MIN_COUNTS:
        floor = () if count == 1 and not sums_only else (f"{key}={count}",)
        named = about if count == 1 else f"{about}; classes of fewer than {count} rows are never predicted"
        found.append(Reference(at_min_count(label, count), named, (*words, *floor), sums_only=sums_only))
    return found


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
        *_free(
            "la_post",
            "FedAvg, logits shifted by the class prior after training",
            ("calibration=la_post",),
            "calibration.la_post.min_count",
        ),
        Reference("uniform", "FedAvg with equal weights", ("aggregation_weight=uniform",)),
        *_free(
            "uniform+la_post",
            "FedAvg with equal weights, logits shifted after training",
            ("aggregation_weight=uniform", "calibration=la_post"),
            "calibration.la_post.min_count",
        ),
        Reference("tau", "FedAvg, classifier rows scaled to the same norm after training", ("calibration=tau",)),
        *_free(
            "ncm",
            "nearest class mean of the inputs, from sums sent once",
            (*_SUMS_ONLY, "strategy.oneround.head=ncm"),
            "strategy.oneround.min_count",
        ),
        *_free(
            "lda",
            "discriminant analysis of the inputs, from sums sent once",
            _SUMS_ONLY,
            "strategy.oneround.min_count",
        ),
    )
}
"""Reference rows by label, in the order of tables."""


def on_inputs_of(words: Sequence[str], model: str) -> tuple[str, ...]:
    """A reference row's settings, on the inputs that the other rows have: an encoder's output if ``model`` has one.

    >>> on_inputs_of(("strategy=oneround", "model=logistic"), "encoded")
    ('strategy=oneround', 'model.head=linear')
    """
    return tuple("model.head=linear" if model == ENCODED and word == _ON_INPUTS else word for word in words)


def sends_sums_only(words: Sequence[str]) -> bool:
    """Whether a row is a reference whose clients send no update: there is nothing to clip, nor to add noise to.

    >>> sends_sums_only(on_inputs_of(REFERENCES["lda"].words, "encoded")), sends_sums_only(["strategy=oneround"])
    (True, False)
    """
    return {word for word in _SUMS_ONLY if word != _ON_INPUTS} <= set(words)


def noise_of(words: Sequence[str]) -> str:
    """The word that sets noise on updates; ``""`` if none does, or the last says 0.

    >>> noise_of(["privacy.clip=1", "privacy.noise=.5"]), noise_of(["privacy.noise=1", "privacy.noise=0"])
    ('privacy.noise=.5', '')
    """
    said = [word for word in words if word.lstrip("+").startswith("privacy.noise=")]
    return said[-1] if said and said[-1].partition("=")[2].strip() not in ("0", "0.0", "0.") else ""


def without_privacy(words: Sequence[str]) -> tuple[str, ...]:
    """The settings without those of the privacy of updates."""
    return tuple(word for word in words if not word.lstrip("+").startswith(("privacy=", "privacy.")))


def without_partition(words: Sequence[str]) -> tuple[str, ...]:
    """The settings without those of the partition."""
    return tuple(word for word in words if not word.lstrip("+").startswith(("partition=", "partition.")))
