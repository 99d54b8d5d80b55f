"""A model beside the global one, of another kind, that a method's own client half trains: a generator, say.

``Rounds(n, model=name)`` of it are rounds as any: a cohort is drawn, simulated and real losses are borne, each ends
with a checkpoint. But its weights travel in a record and a query of the method's contract, so that a site's plan lists
them by themselves; the method says how they are averaged; and nothing is evaluated, for there is nothing to classify
with. Its rounds are counted apart: learning curves are drawn over those of the global model.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Message, RecordDict

from fedimb.errors import RunDiverged
from fedimb.records import Arrays, array_record, arrays_of
from fedimb.run.steps import Reply, Rounds

if TYPE_CHECKING:
    from fedimb.run.loop import Loop

log = logging.getLogger("fedimb")


class Further:
    """One such model; a method adds it to ``run.models`` and reads ``parameters`` when its rounds are done.

    Args:
        query: of the method's contract: receive the weights, train them, send them back.
        key: the record the weights travel in, both ways.
        parameters: by name; what comes back must have these names, shapes and dtypes, or is left out.
        mean: one or more such replies, sorted by client id -> the next weights.
        about: round (from 0) -> further records of the message.
    """

    def __init__(
        self,
        query: str,
        key: str,
        parameters: Arrays,
        mean: Callable[[Sequence[Reply]], Arrays],
        about: Callable[[int], RecordDict] = lambda number: RecordDict(),
    ) -> None:
        self.query, self.key, self.mean, self.about = query, key, mean, about
        self.parameters = dict(parameters)
        self._form = {name: (value.shape, value.dtype) for name, value in parameters.items()}
        self.buffers: Arrays = {}

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Nothing but the weights lives on from round to round."""
        return {}, {}

    def load_state(self, arrays: Arrays, info: dict[str, Any]) -> None:
        """Inverse of `state`."""

    def rounds(self, loop: "Loop", step: Rounds) -> None:
        """The rounds of a step, from where the loop's progress stands in it.

        Raises:
            RunFailed: too few replies (``clients.min_reply_fraction``).
            RunDiverged: no reply fits and is finite.
        """
        first = loop.progress.round_in_step
        shown = loop.view.working(f"rounds of the {step.model}", step.n)
        shown(first)
        for number in range(first, step.n):
            self._round(loop, step.model, number)
            shown(1)
            loop.round_done(number + 1)
            loop.keeper.checkpoint(loop)

    def _round(self, loop: "Loop", name: str, number: int) -> None:
        exchange, progress = loop.exchange, loop.progress
        cohort = exchange.roster.cohort(number, model=list(loop.view.models).index(name))
        progress.virtual_s += cohort.virtual_s
        if not cohort.asked:
            log.warning("%s, round %d: no client is available; it stays as it is", name, number + 1)
            return
        exchange.versions.message += 1
        content = RecordDict({**self.about(number), self.key: array_record(self.parameters)})
        orders = [(c, Message(content, exchange.roster.node(c), f"query.{self.query}")) for c in cohort.asked]
        orders = exchange.complete(orders, progress.server_round, {}, None)
        where = f"{name}, round {number + 1}"
        outcome = exchange.send(self.query, orders, cohort.lost, False, where)
        heard = [Reply(a.client, a.content) for a in outcome.answers if a.usable]
        usable = [reply for reply in heard if self._fits(reply, where)]
        exchange.errors += len(heard) - len(usable)
        if heard and not usable:
            raise RunDiverged(f"{where}: no client sent weights that fit and are finite; lower its learning rate")
        if usable:
            self.parameters = self.mean(usable)

    def _fits(self, reply: Reply, where: str) -> bool:
        arrays = arrays_of(reply.content, self.key)
        wrong = ""
        if {n: (v.shape, v.dtype) for n, v in arrays.items()} != self._form:
            wrong = "are other ones than were sent"
        elif bad := [n for n, v in arrays.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]:
            wrong = f"are not finite in '{bad[0]}'"
        if wrong:
            log.warning("%s: client %d's weights %s: left out", where, reply.client, wrong)
        return not wrong
