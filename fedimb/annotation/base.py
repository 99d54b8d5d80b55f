"""The annotation oracle: what active learning asks for labels.

One object lives for one message. What was asked is kept where a restart finds it: in the client's state (simulated) or
in a folder of the site (worklist).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError, DataError

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answers:
    """What came back of one cycle's question. Rows asked for that stand in neither list got no answer.

    Attributes:
        rows: [n] int64 rows of the store, sorted.
        labels: [n] int64, their class ids.
        unjudged: [m] int64 rows, sorted, of which the reader said that they cannot be judged: not to be asked again.

    Raises:
        DataError: lists that do not fit each other, a row twice.
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
    """Base class of what gives labels. Subclasses implement `ask` and `collect`."""

    def ask(self, rows: Rows, cycle: int, predictions: Rows | None = None) -> None:
        """Want labels for these rows; asking the same again changes nothing.

        Args:
            rows: [n] int64 distinct training rows of this client, those wanted most first.
            cycle: from 1.
            predictions: [n] int64, what the model takes them for. Shown to nobody unless the oracle is told to: a
                prediction anchors the reader.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement ask()")

    def collect(self, cycle: int) -> Answers | None:
        """The answers to what was asked in ``cycle``; None: not there yet. Asked again, it answers the same again.

        Raises:
            DataError: nothing was asked in that cycle.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement collect()")

    def peek(self, rows: Rows) -> Rows:
        """True labels [n] int64 of rows without asking for them: for rules that show how far any rule could get.

        Raises:
            ConfigError: this oracle does not know them.
        """
        raise ConfigError(
            f"{type(self).__name__} knows no true label before a person gave it; a query rule that looks at labels "
            "runs in simulation alone: set oracle.name=simulated or another query"
        )
