"""A model in addition to the global one that a method's client side trains, e.g. a generator.

Its ``Rounds(n, model=name)`` are like any rounds: a cohort is drawn, replies may be lost, each round ends with a
checkpoint. But its weights travel in a record and a query of the method's contract, so that a study plan lists them
separately; the method defines how they are averaged; and nothing is evaluated, since it does not classify. Its rounds
are counted separately: learning curves are drawn over those of the global model.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict

from fedimb.contracts import platform as names
from fedimb.errors import RunDiverged
from fedimb.plain import StateDict
from fedimb.records import Arrays, array_record, arrays_of
from fedimb.serverapp.client_sampler import Cohort
from fedimb.serverapp.exchange import Exchange
from fedimb.serverapp.steps import Reply

log = logging.getLogger("fedimb")


class AuxiliaryModel:
    """An auxiliary model; a method adds it to ``run.models`` and reads ``parameters`` when its rounds are done.

    Args:
        query: query of the method's contract: receive the weights, train them, send them back.
        key: the record that holds the weights, in both directions.
        parameters: weights by name; replies with other names, shapes or dtypes are left out.
        mean: function from one or more replies, sorted by client id, to the next weights.
        about: function from the round (from 0) to additional records of the message.
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

    def records(self) -> Callable[[int], dict[str, ArrayRecord]]:
        """As `fedimb.serverapp.aggregator.Aggregator.records`."""
        same = {names.ARRAYS: array_record(self.parameters)}
        return lambda client: same

    @property
    def state_owner(self) -> object:
        """The object whose state dict a checkpoint saves with the weights."""
        return self

    def state_dict(self) -> StateDict:
        """State to keep from round to round in addition to the weights; empty unless a subclass overrides it."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Put every item of a `state_dict` back into the attribute of its name."""
        for name, value in state.items():
            setattr(self, name, value)

    def parameters_for(self, clients: Sequence[int]) -> Mapping[int, Arrays]:
        """The weights that each client of a cohort is sent; the same object for those that are sent the same."""
        return dict.fromkeys(clients, self.parameters)

    def train(self, exchange: Exchange, cohort: Cohort, number: int, server_round: int, where: str) -> None:
        """One round: a cohort trains the model, and its weights become the mean of those that come back and fit.

        Args:
            number: of the round, from 0.
            server_round: rounds of the global model so far, which the messages name.
            where: begins warnings and errors.

        Raises:
            RunFailed: too few replies (``clients.min_reply_fraction``).
            RunDiverged: no reply is finite and matches the model.
        """
        exchange.versions.message += 1
        weights, about = self.parameters_for(cohort.asked), self.about(number)
        contents = {
            id(own): RecordDict({**about, self.key: array_record(own)}) for own in weights.values()
        }  # clients that are sent the same share one object
        instructions = [
            (c, Message(contents[id(weights[c])], exchange.client_sampler.node(c), f"query.{self.query}"))
            for c in cohort.asked
        ]
        instructions = exchange.complete(instructions, server_round, {}, None)
        outcome = exchange.send(self.query, instructions, cohort.lost, False, where)
        replies = [Reply(a.client, a.content) for a in outcome.replies if a.usable]
        usable = [reply for reply in replies if self.fits(reply, where)]
        exchange.errors += len(replies) - len(usable)
        if replies and not usable:
            raise RunDiverged(f"{where}: no client sent finite weights that match the model; lower its learning rate")
        if usable:
            self.parameters = self.mean(usable)

    def fits(self, reply: Reply, where: str) -> bool:
        """Whether a reply's weights are finite and have the model's names, shapes and dtypes; logs a warning if not."""
        arrays = arrays_of(reply.content, self.key)
        wrong = ""
        if {n: (v.shape, v.dtype) for n, v in arrays.items()} != self._form:
            wrong = "do not match those sent"
        elif bad := [n for n, v in arrays.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]:
            wrong = f"are not finite in '{bad[0]}'"
        if wrong:
            log.warning("%s: client %d's weights %s: left out", where, reply.client, wrong)
        return not wrong
