"""Declarations of what leaves a site. A method's author only declares it; the egress filter checks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Sensitivity = Literal["model", "aggregate", "individual", "operational"]
Reveals = Literal["class_counts", "synthetic"]
About = Literal["site", "class", "masked"]


@dataclass(frozen=True)
class Values:
    """What one array, metric or setting of a record may hold.

    A reply that breaks it is not used (`fedimb.engine.admission`).

    Limits are numbers or names, which stand for what the server knows of the client: ``rows`` it trains on,
    ``validation`` rows, ``labels`` (``rows``, or C times as many if rows have several labels), ``steps`` of its local
    training, ``weight`` (the largest that `aggregation_weight` allows), ``C-1``, ``D-1``; ``-rows`` is the negative;
    ``confidence`` and ``squares``: the sums over ``validation`` rows in `fedimb.evaluation.subgroups.UNIT`; ``sites``
    and ``least_sites``: of a region, how many it has and how many must be in its sum.

    Attributes:
        shape: of an array, as ``C x d`` or ``C x C or C x 2 x 2``: C classes, D domains, d features of the model, t =
            d (d + 1) / 2, A attributes of ``data.subgroups`` of at most G groups, B bins, ``input`` the shape of one
            row; any other letter is a length that must be the same wherever it stands in the record. None: any.
        low, high: smallest and largest value.
        total: the most that the values of an array add up to (of an array with three axes: each of its tables).
        whole: whether values are whole numbers.
        missing: whether NaN or infinity stands for a value that is not there; otherwise they are refused.
        sent: ``value``: names, shapes and types are those of the record of this key in the message; ``change``: names
            and shapes. Values that are not finite are then left to the lanes, as training may diverge.
        optional: whether it may be absent.
        noise: the method's setting that is the standard deviation of noise on each value, or ``1/setting`` for its
            scale; limits are wider by 40 of these.
        text: a pattern that a text must match as a whole; None: a number.
    """

    shape: str | None = None
    low: float | str | None = None
    high: float | str | None = None
    total: float | str | None = None
    whole: bool = False
    missing: bool = False
    sent: Literal["", "value", "change"] = ""
    optional: bool = False
    noise: str = ""
    text: str | None = None


LIMITS = frozenset(
    {"rows", "-rows", "validation", "labels", "steps", "weight", "C-1", "D-1", "confidence", "squares"}
    | {"sites", "least_sites"}
)
"""Names that a limit may have."""


def counts(shape: str, most: str | None = "rows", noise: str = "") -> Values:
    """Numbers of rows: whole, at least 0, and together at most ``most``."""
    return Values(shape, low=0, high=most, total=most, whole=True, noise=noise)


def flag() -> Values:
    """One number that is 0 or 1."""
    return Values("1", low=0, high=1, whole=True)


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
        shape: number of values, e.g. ``7 x C + 1``: C classes, D domains (sites), d features of the model, t =
            d (d + 1) / 2 of a symmetric matrix over them, e features of the encoder. Empty: unknown.
        values: what each array, metric or setting may hold, by name; ``*running_var`` stands for all names with this
            end, ``*`` for all others. None: not declared; then every number must be finite (or NaN, where a record is
            about a class), and nothing else is checked.
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
    values: Mapping[str, Values] | None = None


def declaration_fault(record: Record) -> str:
    """What is wrong with a record's ``values``, in words; empty if nothing is, or if it declares none."""
    for name, one in (record.values or {}).items():
        where = f"{record.key}, '{name}'"
        for limit in (one.low, one.high, one.total):
            if isinstance(limit, str) and limit not in LIMITS:
                return f"{where}: '{limit}' is not a limit; there are {', '.join(sorted(LIMITS))}, and numbers"
        if one.text is not None and record.kind != "config":
            return f"{where}: only a record of kind config holds texts"
        if (one.shape is not None or one.sent) and record.kind != "arrays":
            return f"{where}: only a record of kind arrays has a shape"
        if one.shape is not None and not all(one.shape.replace(" or ", " x ").split(" x ")):
            return f"{where}: write the shape as in 'C x d'"
    return ""


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
        only: queries, and records of queries, that some settings never send: by name, whether the method's settings do.
            Functions of a module, since a contract travels to other processes. Absent: with any settings.
        aggregation_weight: what ``aggregation_weight: auto`` means for the method: view | real | original | uniform.
        adds_rows: whether a client may train on rows besides its own, or for more steps than its rows take. Its steps,
            and with ``aggregation_weight=view`` its weight, are then not limited by its rows.
    """

    name: str
    train: tuple[Record, ...] = ()
    queries: dict[str, tuple[Record, ...]] = field(default_factory=dict)
    aggregation_weight: str = "view"
    often: dict[str, str] = field(default_factory=dict)
    adds_rows: bool = False
    most: dict[str, int | str] = field(default_factory=dict)
    repeats: str = ""
    replaces: int = 0
    only: dict[str, Callable[[Mapping[str, Any]], bool]] = field(default_factory=dict)

    def sends(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether a method with these settings sends the query or record of that name."""
        return name not in self.only or self.only[name](settings)

    def of(self, settings: Mapping[str, Any]) -> "Contract":
        """The contract without the queries and records that a method with these settings never sends."""
        if not self.only:
            return self
        sent = {name: records for name, records in self.queries.items() if self.sends(name, settings)}
        kept = {name: tuple(r for r in records if self.sends(r.key, settings)) for name, records in sent.items()}
        return replace(self, queries=kept)

    def __call__(self) -> "Contract":
        """A contract is its own factory, so the registry builds it like any other part."""
        return self
