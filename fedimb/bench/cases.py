"""The cases of the benchmark: the work, the engines that do it, and their limits."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from fedimb.bench.bars import Bar, added, agree, at_least, at_most, grown, ratio, single
from fedimb.bench.noop import NAME as NOOP

ENGINES = {
    "inline": "engine=inline",
    "ray": "engine=ray, W workers",
    "bare": "the same work by hand in torch, one process, one thread",
    "bare-w": "the same in W processes, the longest clients first",
    "stock": "engine=flower: Flower's own simulation, one CPU per client",
}
ALL = tuple(ENGINES)
ONE_BARE = ("inline", "ray", "bare", "stock")


@dataclass(frozen=True)
class Case:
    """One case: a kind of work to measure.

    Attributes:
        name, about: name and description.
        words: settings, as on the command line; the same for every engine.
        engines: engines that can do it.
        rounds: default number of rounds.
        bars: its limits.
        variants: further settings by name; each is measured separately, as ``<case>-<name>``.
        mode: mode of `fedimb.bench.one`.
        needs: a required file, looked up in the current folder, then in ``FEDIMB_DATA_DIR``; None: no file.
    """

    name: str
    about: str
    words: tuple[str, ...]
    engines: tuple[str, ...]
    rounds: int
    bars: tuple[Bar, ...]
    variants: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"": ()})
    mode: str = "run"
    needs: str | None = None

    def labels(self) -> dict[str, tuple[str, ...]]:
        """Settings by label, ``scale-100`` or, without variants, the name."""
        return {f"{self.name}-{v}" if v else self.name: self.words + more for v, more in self.variants.items()}

    def lacking(self) -> str | None:
        """Why it cannot be measured here, or None."""
        folders = [Path(), *(Path(f) for f in [os.environ.get("FEDIMB_DATA_DIR", "")] if f)]
        if self.needs is None or any((folder / self.needs).exists() for folder in folders):
            return None
        where = os.environ.get("FEDIMB_DATA_DIR") or "FEDIMB_DATA_DIR (not set)"
        return f"no {self.needs} in the current folder or in {where}"


_TABLE = ("data=synthetic_table", "model=mlp", "local.epochs=1", "local.batch_size=32", "local.lr=0.05")
_EVEN = ("partition=iid", "data.imbalance_factor=1")
_SKEWED = ("data.source.rows=590000", "partition.alpha=0.5")  # the long tail leaves 150,158 rows
_WIDE = ("data.source.rows=2500", "data.source.features=784", "data.source.classes=10", "model.hidden=[200,200]")
_MOST_LEAST = ("scale-100000", "scale-100", "inline")


def size_words(clients: int) -> tuple[str, ...]:
    """Settings for so many clients with 20 training rows each, 50 clients per round, and always 100 test rows."""
    rows = (f"data.source.rows={20 * clients + 100}", "data.test={name: balanced, per_class: 20}")
    return (*rows, f"clients.count={clients}", f"clients.participation={50 / clients:g}")


_CASES = (
    Case(
        "noop",
        "a method that trains nothing: 199,210 parameters to 100 clients and back",
        (*_TABLE, *_EVEN, *_WIDE, f"strategy={NOOP}", "clients.count=100"),
        ONE_BARE,
        10,
        (
            ratio("noop", "inline", "bare", "round_s", at_most(6), aim=4),
            ratio("noop", "stock", "ray", "round_s", at_least(8)),
            agree("noop", 0.01),
        ),
    ),
    Case(
        "table",
        "MLP 41-64-5 on 150,158 rows with a long tail, 100 clients, 50 per round",
        (*_TABLE, *_SKEWED, "model.hidden=[64]", "clients.count=100", "clients.participation=0.5"),
        ONE_BARE,
        10,
        (
            ratio("table", "stock", "inline", "round_s", at_least(8), aim=12),
            ratio("table", "stock", "ray", "round_s", at_least(8), aim=12),
            ratio("table", "stock", "inline", "whole_s", at_least(4)),
            ratio("table", "stock", "ray", "whole_s", at_least(2.5)),
            ratio("table", "inline", "bare", "round_s", at_most(0.4)),
            agree("table", 0.01),
        ),
    ),
    Case(
        "digits",
        "MLP 64-48-10 on scikit-learn's digits with a long tail, 100 clients, all of them per round",
        ("data=digits", "model=mlp", "clients.count=100"),
        ONE_BARE,
        10,
        (
            ratio("digits", "stock", "inline", "round_s", at_least(4)),
            ratio("digits", "stock", "ray", "round_s", at_least(4)),
            agree("digits", 0.01),
        ),
    ),
    Case(
        "cifar",
        "four convolutions on CIFAR-10 with a long tail, 100 clients, 10 per round",
        ("data=cifar10", "model.width=32", "clients.count=100", "clients.participation=0.1", "local.epochs=1"),
        ALL,
        6,
        (
            ratio("cifar", "inline", "bare", "round_s", at_most(1.1)),
            ratio("cifar", "ray", "bare-w", "round_s", at_most(1.1)),
            ratio("cifar", "stock", "ray", "round_s", at_least(1)),
            agree("cifar", 0.01),
        ),
        needs="cifar10.zip",
    ),
    Case(
        "scale",
        "100, 10,000 and 100,000 registered clients of 20 rows each, 50 per round",
        (*_TABLE, *_EVEN, "model.hidden=[64]"),
        ("inline",),
        20,
        (
            grown("scale", "scale-10000", "scale-100", "inline", at_most(1.2)),
            grown("scale", "scale-100000", "scale-100", "inline", at_most(1.2)),
            added("scale", "memory gained by the rounds", *_MOST_LEAST, "growth_mb", at_most(100)),
            added("scale", "memory after the last round", *_MOST_LEAST, "after_mb", at_most(100)),
            added("scale", "data mapped from disk beside it", *_MOST_LEAST, "mapped_mb", None),
        ),
        variants={str(clients): size_words(clients) for clients in (100, 10_000, 100_000)},
        mode="scale",
    ),
    Case(
        "sweep",
        "two short runs of one sweep: cross-entropy, then balanced softmax, on the same clients",
        ("data=digits", "model=mlp"),
        ("ray",),
        3,
        (
            single("sweep", "end of a run to the end of the next one's first round", "ray", "gap_s", at_most(1), "s"),
            single("sweep", "the second run has the first one's worker processes (1: yes)", "ray", "same_workers",
                   at_least(1), ""),
        ),
        mode="sweep",
    ),
)  # fmt: skip
CASES = {case.name: case for case in _CASES}
