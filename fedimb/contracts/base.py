"""Declarations of what leaves a site. A method's author only declares it; the egress filter checks."""

from dataclasses import dataclass, field
from typing import Literal

Sensitivity = Literal["model", "aggregate", "individual", "operational"]
Reveals = Literal["class_counts", "synthetic"]
About = Literal["site", "class", "masked"]


@dataclass(frozen=True)
class Record:
    """One record a client may send.

    Attributes:
        key: its name in the message; everything but the model's own ``arrays`` and ``metrics`` starts with ``x.``.
        kind: ``arrays`` | ``metrics`` | ``config``.
        content: what it holds, in words a data-protection officer understands.
        sensitivity: ``model`` (weights), ``aggregate`` (sums over patients), ``individual`` (concerns one patient or
            row), ``operational`` (steps, seconds, versions).
        dtypes: allowed array dtypes; empty allows any that Flower carries.
        max_bytes: largest payload in bytes; None: no separate limit (the model's weights).
        optional: whether a reply may lack it.
        reveals: a kind that a site may refuse by name: ``class_counts`` (the rows or patients of each class can be
            read from it), ``synthetic`` (samples made from patients' data).
        about: whose patients one figure describes: all of the ``site``; those of one ``class`` (arrays with the classes
            along their first axis; a row of zeros or NaN reveals nothing); ``masked``: nobody's, since only the sum
            over sites can be read.
        shape: number of values, e.g. ``7 x C + 1``: C classes, D domains (sites), d features of the model, e of the
            encoder. Empty: unknown.
    """

    key: str
    kind: Literal["arrays", "metrics", "config"]
    content: str
    sensitivity: Sensitivity
    dtypes: tuple[str, ...] = ()
    max_bytes: int | None = None
    optional: bool = False
    reveals: Reveals | None = None
    about: About = "site"
    shape: str = ""


@dataclass(frozen=True)
class Contract:
    """What the server and client sides of a method agree on.

    A reply that cannot be complete before a person has acted marks this in an array ``ready`` (0: not yet) or
    ``waiting`` (1: yes); a hospital node then reports whom the run is waiting for.

    Attributes:
        name: the method's registered name.
        train: records added to each train reply.
        queries: reply records by query name. Query names are Python identifiers, unique over all contracts.
        often: how often a query is sent, as text by query name; absent: as often as the method asks.
        most: how often at most a query is sent in one run of the method's program: a number, or the method's setting
            that has it; absent: once in each round. A site answers no more (`fedimb.deploy.study_plan.budget`).
        repeats: the method's setting that says how often the program inside it runs; empty: once.
        replaces: how often at most the method's program replaces the model, which counts as a round.
        aggregation_weight: what ``aggregation_weight: auto`` means for the method: view | real | original | uniform.
    """

    name: str
    train: tuple[Record, ...] = ()
    queries: dict[str, tuple[Record, ...]] = field(default_factory=dict)
    aggregation_weight: str = "view"
    often: dict[str, str] = field(default_factory=dict)
    most: dict[str, int | str] = field(default_factory=dict)
    repeats: str = ""
    replaces: int = 0

    def __call__(self) -> "Contract":
        """A contract is its own factory, so the registry builds it like any other part."""
        return self
