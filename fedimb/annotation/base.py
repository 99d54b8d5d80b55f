"""The annotation oracle: provides labels for active learning.

An oracle object lives for one message. Its questions are stored where a restart finds them: in the client's state
(simulated) or in a folder of the site (worklist).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError, DataError

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to one cycle's question. Rows in neither list got no answer.

    Attributes:
        rows: [n] int64 rows of the store, sorted.
        labels: [n] int64, their class ids.
        unjudged: [m] int64 rows, sorted, that the reader could not judge; they are not asked again.

    Raises:
        DataError: lists of different length, or a row that occurs twice.
    """

    rows: Rows
    labels: Rows
    unjudged: Rows

    def __post_init__(self) -> None:
        if self.rows.shape != self.labels.shape:
            raise DataError(f"answers: {len(self.rows)} rows beside {len(self.labels)} labels; give one each")
        both = np.concatenate([self.rows, self.unjudged])
        if len(np.unique(both)) != len(both):
            raise DataError("answers: a row is answered twice; give each row one answer")


class Oracle:
    """Base class of label providers. Subclasses implement `ask` and `collect`."""

    def ask(self, rows: Rows, cycle: int, predictions: Rows | None = None) -> None:
        """Request labels for these rows; repeating a request changes nothing.

        Args:
            rows: [n] int64 distinct training rows of this client, most wanted first.
            cycle: number of the cycle, from 1.
            predictions: [n] int64, the model's predictions. Not shown unless the oracle is set to: a prediction
                anchors the reader.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement ask()")

    def collect(self, cycle: int) -> Answers | None:
        """The answers to the question of ``cycle``; None if they are not there yet. Repeated calls return the same.

        Raises:
            DataError: nothing was asked in that cycle.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement collect()")

    def peek(self, rows: Rows) -> Rows:
        """True labels [n] int64 of rows without requesting them: for rules that show an upper bound.

        Raises:
            ConfigError: this oracle does not know them.
        """
        raise ConfigError(
            f"{type(self).__name__} does not know a label before a person gives it; a query rule that reads labels "
            "works only in a simulation: set oracle.name=simulated or another query"
        )
