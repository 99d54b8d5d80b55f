"""What a method's program sees of its run, and the progress of the run."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedimb.privacy.ledger import Ledger, Spent
from fedimb.records import Arrays
from fedimb.serverapp.aggregator import Aggregator
from fedimb.serverapp.auxiliary_model import AuxiliaryModel
from fedimb.serverapp.server import Server


def _nothing_to_find() -> Generator[Any, Any, None]:
    """The sub-program of a run without a rule for tau."""
    yield from ()


@dataclass
class RunContext:
    """What a method's program sees of its run.

    Attributes:
        rounds: configured training rounds.
        n_clients, n_classes, class_names: of the federation.
        seed: run seed (draw with `fedimb.seeds`, stream METHOD).
        counts: class counts [C] float64 of the prior; a method that changes the training rows updates it.
        estimate: function from the global weights by name to estimated ``counts``; None if counts do not depend on
            them.
        counts_of_arrivals: whether the loop sets ``counts`` to those of the clients whose updates arrived.
        clients_need_counts: whether every train message carries ``counts`` (because the loss or a method uses them
            there).
        models: factories of models by name, called with the number of resets; a method adds the ones it trains: an
            `Aggregator` for a model with the run's architecture, an `AuxiliaryModel` for any other.
        minority, train_counts: minority class ids, and rows [C] of each class: for logging only, never for decisions.
            None and empty if unknown (a plain ServerApp, hospitals).
        method_sets_prior: whether a method that changes the training rows should set ``counts``.
        prior_from_counts: function from client counts [K, C] to ``counts`` [C] as configured for the prior.
        server: the server's own rows and training; None in a plain ServerApp.
        working: shows progress of long work at the server: working(what, steps) returns a function to call with the
            number of steps just done.
        prior_view: ``train``: the prior counts all training rows; ``real``: only real rows.
        initial: initial weights of the global model instead of random ones; a method sets it before any round.
        artifact: stores a file (name, content) in the run folder; written again on resume, with the same content.
            ``panels/<name>.json`` {"title", "caption"} goes into the report with the picture of the same name
            (``<name>.svg``, ``<name>.png``), or with one drawn from its figures (`fedimb.serverapp.panels`).
        ledger: adds up the privacy spent by noised updates; None if no noise is added.
        aside: ids of the clients that are set aside from now on (`fedimb.serverapp.left_out`).
        without: notes that a client's figures are not in a masked sum: without(query, client, reason).
        summed: clients in the last masked sum that was opened: later ones leave others out. None: none was opened. The
            program sets it, in replayed steps as well.
        attackers: ids of the simulated clients that attack; what they say of their scores is not used.
        learning_rates: metrics of a round, 1-based: the learning rates that are scheduled.
        find_taus: sub-program that finds the strength of post-hoc corrections on held-out rows, if any asks for it. A
            method that labels in cycles runs it once all rows are labelled, before it trains on them; otherwise it is
            run before the method's program.
        search_taus: the work behind it, which trains without folds.
        part: how many parts of the training have ended; see `next_part`.
        final: name of the model that scores and is stored; a method whose server makes another one than the clients
            trained sets it in its program, in replayed steps as well, before a `Replace` puts its weights there.
    """

    rounds: int
    n_clients: int
    n_classes: int
    class_names: tuple[str, ...]
    seed: int
    counts: np.ndarray | None = None
    estimate: Callable[[Arrays], np.ndarray] | None = None
    counts_of_arrivals: bool = False
    clients_need_counts: bool = False
    models: dict[str, Callable[[int], Aggregator | AuxiliaryModel]] = field(default_factory=dict)
    minority: tuple[int, ...] = ()
    train_counts: np.ndarray | None = None
    method_sets_prior: bool = False
    prior_from_counts: Callable[[np.ndarray], np.ndarray] = lambda counts: counts.sum(axis=0)
    server: Server | None = None
    working: Callable[[str, int], Callable[[int], None]] = lambda what, total: lambda done: None
    prior_view: str = "train"
    initial: dict[str, np.ndarray] = field(default_factory=dict)
    artifact: Callable[[str, bytes], None] = lambda name, content: None
    ledger: Ledger | None = None
    aside: Callable[[], set[int]] = set
    without: Callable[[str, int, str], None] = lambda query, client, reason: None
    summed: frozenset[int] | None = None
    attackers: tuple[int, ...] = ()
    learning_rates: Callable[[int], dict[str, float]] = lambda server_round: {}
    find_taus: Callable[[], Generator[Any, Any, None]] = _nothing_to_find
    search_taus: Callable[[], RecordDict] = RecordDict
    part: int = 0
    final: str = "global"

    @property
    def counts_sent(self) -> np.ndarray | None:
        """The counts [C] that messages carry, if a part of the run uses them at the clients."""
        return self.counts if self.clients_need_counts else None

    def next_part(self) -> None:
        """Say that other weights are trained from now on, or on other rows or labels; in replayed steps as well.

        Scores of earlier rounds are of another training: no mean holds them and later ones
        (`fedimb.contracts.platform.PART`). The loop says it of `Reset` and `Replace`.
        """
        self.part += 1

    def trained_on(self, counts: np.ndarray) -> None:
        """Set the class counts [C] of corrections to those of the rows that the final model was trained on.

        Nothing changes if no part of the run asks for counts, or if they are estimated from the weights.
        """
        if self.estimate is None and (self.counts is not None or self.method_sets_prior):
            self.counts = counts.astype(np.float64)


@dataclass
class Progress:
    """Progress of a run. All of it is in the checkpoint.

    Attributes:
        virtual_s: seconds that the server would have waited for simulated slow clients.
        server_steps: optimiser steps at the server (`fedimb.contracts.platform.SERVER_STEPS`).
        virtual_ns: time on the clock of the run's pace, in nanoseconds.
        recent: why each of the last replies of a training without rounds is not usable, or an empty text.
    """

    done_steps: int = 0
    round_in_step: int = 0
    server_round: int = 0
    resets: int = 0
    waiting: bool = False
    elapsed_s: float = 0.0
    virtual_s: float = 0.0
    virtual_ns: int = 0
    server_steps: int = 0
    recent: list[str] = field(default_factory=list)
    privacy: Spent = field(default_factory=dict)

    def load(self, values: Mapping[str, Any]) -> None:
        """Take the values of a checkpoint (`dataclasses.asdict`); whoever holds this object sees them."""
        vars(self).update(vars(Progress(**values)))
