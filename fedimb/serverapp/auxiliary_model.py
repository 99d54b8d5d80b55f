"""A model beside the global one, of another kind, that a method's own client half trains: a generator, say.

``Rounds(n, model=name)`` of it are rounds as any: a cohort is drawn, simulated and real losses are borne, each ends
with a checkpoint. But its weights travel in a record and a query of the method's contract, so that a site's plan lists
them by themselves; the method says how they are averaged; and nothing is evaluated, for there is nothing to classify
with. Its rounds are counted apart: learning curves are drawn over those of the global model.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedimb.records import Arrays, arrays_of
from fedimb.serverapp.steps import Reply

log = logging.getLogger("fedimb")


class AuxiliaryModel:
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

    def state_dict(self) -> dict[str, Any]:
        """What lives on from round to round besides the weights: nothing, unless a subclass says so."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put every item of a `state_dict` back into the attribute of its name."""
        for name, value in state.items():
            setattr(self, name, value)

    def fits(self, reply: Reply, where: str) -> bool:
        """Whether a reply's weights have the model's names, shapes and dtypes and are finite; says so where not."""
        arrays = arrays_of(reply.content, self.key)
        wrong = ""
        if {n: (v.shape, v.dtype) for n, v in arrays.items()} != self._form:
            wrong = "are other ones than were sent"
        elif bad := [n for n, v in arrays.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]:
            wrong = f"are not finite in '{bad[0]}'"
        if wrong:
            log.warning("%s: client %d's weights %s: left out", where, reply.client, wrong)
        return not wrong
