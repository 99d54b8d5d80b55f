"""A region: a client of the root that answers with the sum of its sites' replies, and their coordinator.

It hands a message on to its sites, adds up what they answer and replies with integers (`fedimb.sums`): the sum over all
regions is the one that a flat federation of the same sites has, to the bit, and nothing of a single site leaves. With
fewer usable replies than ``clients.min_members`` it answers with an error.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedimb.contracts import platform as names
from fedimb.contracts.region import ADDED, MEANS, PARTIAL, PARTIAL_BUFFERS, REGION, SUMMED
from fedimb.engine.admission import Admission
from fedimb.engine.grid import SimulationGrid, exchange
from fedimb.engine.lanes import ClientReply, Lane, LaneOutcome, Reduce, Reduction, gather
from fedimb.errors import FedimbError, RunWaiting
from fedimb.records import array_record, arrays_of
from fedimb.schema import ClientsConfig
from fedimb.sums import Scale, WeightLimits

log = logging.getLogger("fedimb")

TOO_FEW = 1314
"""Error code of a region of which fewer sites replied than a sum must be over."""
NOT_CARRIED = 1315
"""Error code of a message that a region does not hand on, or whose replies it cannot add up."""


def limits_record(limits: WeightLimits) -> ConfigRecord:
    """The limits on weights as a record of a message to regions."""
    return ConfigRecord({"each": limits.each, "total": limits.total, "count": limits.count})


def limits_in(content: RecordDict) -> WeightLimits:
    """Inverse of `limits_record`. Raises FedimbError if a message does not hold them."""
    found: Mapping[str, object] = content.config_records.get(REGION) or {}
    try:
        each, total, count = (int(cast(int, found[key])) for key in ("each", "total", "count"))
    except (KeyError, TypeError, ValueError):
        raise _CannotAdd("the message has no limits on weights, which a region's sum is scaled by") from None
    return WeightLimits(each, total, count)


class _CannotAdd(FedimbError):
    """Replies that do not add up, in words that may leave the region."""


class _TooFew(FedimbError):
    """Fewer sites replied than a region's sum must be over."""


class Region:
    """Answers messages of the root with sums over its sites.

    Args:
        name: of the region, for errors.
        grid: over its sites.
        sites: their ids in the grid, in the order of their client ids.
        config: of the run's clients, with ``min_members``.
        admission: checks the sites' replies before they are added.
    """

    def __init__(
        self,
        name: str,
        grid: SimulationGrid,
        sites: Sequence[int],
        config: ClientsConfig,
        admission: Admission | None = None,
    ) -> None:
        self.name, self._grid, self._sites = name, grid, list(sites)
        self._config = config
        self._admission = None if admission is None else replace(admission, stateless=True)

    def answer(self, message: Message, members: Iterable[int] | None = None) -> tuple[Message, list[int]]:
        """The reply to a message of the root, and the sites that it is over.

        Args:
            members: of this message's first answer, if it was answered before: the sum is over them, or there is none.

        Raises:
            RunWaiting: a site is waiting for a person; the text names it.
        """
        kind = message.metadata.message_type
        asked = self._sites if members is None else sorted(members)
        least = max(self._config.min_members, 0 if members is None else len(asked))
        try:
            if kind == "train":
                outcome = self._ask(message, asked, self._reduction(message))
                usable = self._usable(outcome, least)
                content = self._trained(outcome, usable, self._config.min_members)
            elif kind.removeprefix("query.") in ADDED:
                usable = self._alike(self._usable(self._ask(message, asked, False), least), least)
                content = self._added(usable, self._config.min_members)
            else:
                return self._error(message, NOT_CARRIED, f"a region does not hand on '{kind}' to its sites"), []
        except _TooFew as error:
            return self._error(message, TOO_FEW, str(error)), []
        except _CannotAdd as error:
            return self._error(message, NOT_CARRIED, str(error)), []
        except RunWaiting:
            raise
        except FedimbError as error:  # its text may name a site
            log.error("%s: %s", self.name, error)
            return self._error(message, NOT_CARRIED, "its sites could not be asked; the reason is in its log"), []
        return Message(content, reply_to=message), [reply.client for reply in usable]

    def _error(self, message: Message, code: int, text: str) -> Message:
        return Message(Error(code=code, reason=f"{self.name}: {text}"), reply_to=message)

    def _reduction(self, message: Message) -> Reduce:
        limits, ratio = limits_in(message.content), self._config.max_value_ratio
        self._check_limits(limits)
        arrays = arrays_of(message.content, names.ARRAYS)
        buffers = arrays_of(message.content, names.BUFFERS) if names.BUFFERS in message.content else {}
        return Reduce(Scale.of(arrays, limits, ratio), Scale.of(buffers, limits, ratio))

    def _check_limits(self, limits: WeightLimits) -> None:
        """Refuse limits with which a site's weight would fall out of the sum: who sends them chose who is in it.

        Sums of the same round with and without one site differ by that site's weights.

        Raises:
            _CannotAdd: they are below those of the region's own sites, or no scale follows from them.
        """
        own = self._own_limits()
        low = limits.each < own.each or limits.total < own.total or limits.count < own.count
        if low or limits.total < limits.each or limits.unit_bits < 0:
            raise _CannotAdd(
                "the message's limits on weights are not those of a sum over all of its sites; no site was asked"
            )

    def _own_limits(self) -> WeightLimits:
        """Those of the region's own sites that hold rows; the root's are over more sites, and at least as large."""
        if self._admission is None:
            return WeightLimits(0, 0, len(self._sites))
        rows = [self._admission.rows.get(site, (0, 0))[0] for site in self._sites]
        uniform = self._admission.sizes.weighting == "uniform"
        return WeightLimits.of(1.0 if uniform else float(held) for held in rows if held)

    def _ask(self, message: Message, asked: Sequence[int], reduce: Reduction) -> LaneOutcome:
        content = RecordDict({key: record for key, record in message.content.items() if key != REGION})
        kind = message.metadata.message_type
        instructions = [(site, Message(RecordDict(dict(content)), site + 1, kind)) for site in asked]
        outcome = exchange(self._grid, instructions, reduce, None, self._admission)
        for reply in outcome.replies:
            if not reply.usable and not (reply.error or "").startswith("empty"):
                log.warning("%s: no usable reply of a site: %s", self.name, reply.error)
        return outcome

    def _usable(self, outcome: LaneOutcome, least: int) -> list[ClientReply]:
        usable = [reply for reply in outcome.replies if reply.usable]
        if len(usable) < least:
            raise _TooFew(
                f"{len(usable)} of its {len(self._sites)} sites gave a usable reply, and its sum must be over {least} "
                "(clients.min_members, or as many as when it was asked first); which sites, and why, is in its log"
            )
        if any(names.STATE in reply.content for reply in usable):
            raise _CannotAdd("its sites keep a state between rounds, whose version a region does not follow")
        return usable

    def _alike(self, usable: Sequence[ClientReply], least: int) -> list[ClientReply]:
        """The replies with the records that most sites sent: one site with others must not take the rest out."""
        found = [_form(reply.content) for reply in usable]
        ranked = Counter(found).most_common(2)
        if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
            raise _CannotAdd("its sites answered with records of different names or shapes, which do not add up")
        alike = []
        for reply, form in zip(usable, found, strict=True):
            if form == ranked[0][0]:
                alike.append(reply)
            else:
                log.warning("%s: site %d sent other records than most sites, and is left out", self.name, reply.client)
        if len(alike) < least:
            raise _TooFew(f"{len(alike)} of its sites sent records that add up, and its sum must be over {least}")
        return alike

    @staticmethod
    def _trained(outcome: LaneOutcome, usable: Sequence[ClientReply], least: int) -> RecordDict:
        """The sums; a mean or a matrix that fewer than ``least`` sites have a part in stays here."""
        total = outcome.total
        metrics = {names.WEIGHT: total.weight}
        keys = {key for reply in usable for key in reply.metrics}
        for key in (key for key in SUMMED if key in keys):
            metrics[key] = math.fsum(reply.metrics.get(key, 0.0) for reply in usable)
        for key in (key for key in MEANS if key in keys):
            metrics[key] = _mean(usable, key, least)
        content = RecordDict(
            {
                PARTIAL: array_record(total.model.totals(), copy=False),
                names.METRICS: MetricRecord(cast(dict[str, int | float | list[int] | list[float]], metrics)),
                REGION: ConfigRecord({"members": len(usable), "units": total.model.units}),
            }
        )
        if total.buffers.shapes:
            content[PARTIAL_BUFFERS] = array_record(total.buffers.totals(), copy=False)
        scored = sum(reply.support is not None and bool(reply.support.any()) for reply in outcome.replies)
        if total.confusion is not None and scored >= least:
            content[names.CONFUSION] = array_record({"matrix": total.confusion})
        return content

    @staticmethod
    def _added(usable: Sequence[ClientReply], least: int) -> RecordDict:
        """The sites' records, added element by element; all have one form."""
        content = RecordDict()
        for key in sorted(usable[0].content):
            if not isinstance(usable[0].content[key], ArrayRecord):
                raise _CannotAdd(f"its sites' records '{key}' are not arrays and do not add up")
            parts = [arrays_of(reply.content, key) for reply in usable]
            if (counting := sum(any(value.any() for value in part.values()) for part in parts)) < least:
                raise _TooFew(f"{counting} of its sites have anything in '{key}', and its sum must be over {least}")
            summed = {
                name: np.sum([part[name] for part in parts], axis=0, dtype=parts[0][name].dtype) for name in parts[0]
            }
            content[key] = array_record(summed)
        content[REGION] = ConfigRecord({"members": len(usable)})
        return content


def _form(content: RecordDict) -> tuple[object, ...]:
    """Kind, names, shapes and dtypes of a reply's records: those of equal form add up."""
    arrays = {key: arrays_of(content, key) for key, record in content.items() if isinstance(record, ArrayRecord)}
    return tuple(
        (key, type(record), tuple((n, v.shape, v.dtype.str) for n, v in sorted(arrays.get(key, {}).items())))
        for key, record in sorted(content.items())
    )


def _mean(usable: Sequence[ClientReply], key: str, least: int) -> float:
    """Mean by weight over sites that have the metric, NaN of too few: one that ran no step has no training loss."""
    defined = [(r.metrics[names.WEIGHT], r.metrics[key]) for r in usable if math.isfinite(r.metrics.get(key, math.nan))]
    weight = math.fsum(w for w, _ in defined) if len(defined) >= least else 0.0
    return math.fsum(w * value for w, value in defined) / weight if weight else math.nan


class RegionGrid(SimulationGrid):
    """The root's clients, each a `Region` in this process: a simulated tree.

    Args:
        regions: by client id.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        super().__init__(len(regions))
        self._regions = regions

    def run_lanes(self, lanes: Sequence[Lane], reduce: Reduction, costs: Sequence[float]) -> list[LaneOutcome]:
        """One region after another; each exchanges messages with all of its sites."""
        sent = {client: message for lane in lanes for client, message in lane}
        replies = ((client, self._regions[client].answer(message)[0]) for client, message in sent.items())
        return [gather(replies, reduce, sent, self.admission)]
