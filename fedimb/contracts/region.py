"""What a region sends: a client of the root that answers with the sum of its sites' replies (`fedimb.engine.region`).

It takes the place of the platform's contract where ``clients.regions`` is set. No figure of a single site is declared
here, so none can leave a region: the egress filter and the server's admission both read this table.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from flwr.app import RecordDict

from fedimb.contracts import platform as names
from fedimb.contracts.base import Contract, Record, Values

REGION = "x.region"
"""To a region: the limits on the weights of all sites of the cohort, from which the sums' scale follows. From a region:
``members``, how many sites are in the sum, and in a training reply ``units``, the sum of their weights."""
PARTIAL = "x.partial"
"""The exact sum of the sites' weighted parameters, by the parameter's name, int64 in the parameter's shape."""
PARTIAL_BUFFERS = "x.partial_buffers"
"""The same of the model's buffers."""

SUMMED = ("steps", "examples", "seconds")
"""Metrics of a training reply that a region adds up."""
MEANS = ("train_loss", "start_loss")
"""Metrics of a training reply of which a region sends the mean over its sites, by their weights."""
ADDED = (names.CLASS_COUNTS, names.SCORED)
"""Queries whose records add up over sites, element by element."""

_MEMBERS = Values(low="least_sites", high="sites", whole=True)


def members_in(content: RecordDict) -> int:
    """How many sites a region's answer is over; 0 if it does not say, as an answer that holds nothing."""
    record: Mapping[str, object] = content.config_records.get(REGION) or {}
    return int(cast(int, record.get("members", 0)))


def _only(record: Record, kept: tuple[str, ...]) -> Record:
    assert record.values is not None
    return replace(record, values={name: one for name, one in record.values.items() if name in kept})


def _platform(query: str, key: str) -> Record:
    records = names.PLATFORM.train if not query else names.PLATFORM.queries[query]
    return next(record for record in records if record.key == key)


def _about(content: str, **values: Values) -> Record:
    return Record(REGION, "config", content, "operational", max_bytes=64, values={"members": _MEMBERS, **values})


_JOIN = names.PLATFORM.queries[names.JOIN_SITE]
_SITE = next(record for record in _JOIN if record.key == names.SITE)
assert _SITE.values is not None

REGIONS = Contract(
    name="region",
    train=(
        Record(
            PARTIAL,
            "arrays",
            "exact sum over the region's sites of their weights after local training, each times the site's weight",
            "model",
            dtypes=("int64",),
            values={"*": Values()},
        ),
        replace(
            _only(_platform("", names.METRICS), (names.WEIGHT, *SUMMED, *MEANS)),
            content="sum over the region's sites of rows used, steps and seconds; mean training loss",
        ),
        Record(
            PARTIAL_BUFFERS,
            "arrays",
            "exact sum over the region's sites of the model's buffers (BatchNorm statistics)",
            "model",
            dtypes=("int64",),
            optional=True,
            values={"*": Values()},
        ),
        replace(
            _platform("", names.CONFUSION),
            content="sum over the region's sites of integer confusion matrices of the received model on the "
            "validation view",
        ),
        _about(
            "how many sites are in the sum, and the sum of their weights in units of the scale",
            units=Values(low=0, high=2**62, whole=True),
        ),
    ),
    queries={
        names.JOIN_SITE: (
            replace(
                _SITE,
                content="the region's name, rows of all its sites to train and to validate on, a power of two that no "
                "site's rows exceed, hash of the data's versions, scale of their numbers, hash of the code",
                values={
                    **{name: _SITE.values[name] for name in ("site", "rows", "validation", "version", "scale", "code")},
                    "rate": _SITE.values["rate"],
                    "largest": Values(low=1, high=2.0**31),
                },
            ),
            next(record for record in _JOIN if record.key == names.INPUTS),
            replace(
                next(record for record in _JOIN if record.key == names.SUMS),
                content="of a table, per column (of signals, per channel), over all sites of the region: values "
                "present, their sum and sum of squares, so that all sites scale alike",
            ),
        ),
        **{
            query: (
                replace(
                    _platform(query, key), content=f"sum over the region's sites of: {_platform(query, key).content}"
                ),
                _about("how many sites are in the sum"),
            )
            for query, key in ((names.CLASS_COUNTS, names.COUNTS), (names.SCORED, names.SCORES))
        },
    },
    often=names.PLATFORM.often,
    most=names.PLATFORM.most,
)
