"""The simulated oracle: reveals true labels at once and without mistakes."""

import numpy as np
from flwr.app import RecordDict

from fedimb.annotation.base import Answers, Oracle, Rows
from fedimb.annotation.hidden import HiddenLabels
from fedimb.errors import DataError
from fedimb.records import array_record, arrays_of

STATE = "oracle"


class SimulatedOracle(Oracle):
    """Reveals hidden labels and counts them.

    Args:
        hidden: the labels.
        state: the client's state; its record ``oracle`` holds the last question and the counts ``revealed`` and
            ``peeked``, so that a resumed run continues with them.
    """

    def __init__(self, hidden: HiddenLabels, state: RecordDict) -> None:
        self._hidden, self._state = hidden, state

    def ask(self, rows: Rows, cycle: int, predictions: Rows | None = None) -> None:
        """Remember the rows."""
        self._keep(rows=np.array(rows, dtype=np.int64), cycle=np.array([cycle], dtype=np.int64))

    def collect(self, cycle: int) -> Answers | None:
        """The true label of every row in the last question."""
        asked = self._kept()
        if int(asked["cycle"][0]) != cycle:
            raise DataError(f"no rows were asked for in cycle {cycle} (last: {asked['cycle'][0]}); ask first")
        rows = np.sort(asked["rows"])
        before = self._hidden.accesses
        labels = self._hidden.reveal(rows)
        self._keep(revealed=asked["revealed"] + self._hidden.accesses - before)
        return Answers(rows, labels, rows[:0])

    def peek(self, rows: Rows) -> Rows:
        """True labels without asking, counted separately."""
        before = self._hidden.accesses
        labels = self._hidden.reveal(rows)
        self._keep(peeked=self._kept()["peeked"] + self._hidden.accesses - before)
        return labels

    @property
    def revealed(self) -> int:
        """Labels given to `collect` so far in this run, at this client."""
        return int(self._kept()["revealed"][0])

    @property
    def peeked(self) -> int:
        """Labels given to `peek` so far."""
        return int(self._kept()["peeked"][0])

    def _kept(self) -> dict[str, Rows]:
        if STATE in self._state:
            return arrays_of(self._state, STATE)
        zero = np.zeros(1, np.int64)
        return {"rows": zero[:0], "cycle": zero, "revealed": zero, "peeked": zero}

    def _keep(self, **changed: Rows) -> None:
        self._state[STATE] = array_record(self._kept() | changed)
