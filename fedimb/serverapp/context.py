"""What a method's program sees of its run, and where the run stands."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fedimb.privacy.ledger import Ledger, Spent
from fedimb.records import Arrays
from fedimb.serverapp.aggregator import Aggregator
from fedimb.serverapp.auxiliary_model import AuxiliaryModel
from fedimb.serverapp.server import Server


@dataclass
class RunContext:
    """What a method's program sees of its run.

    Attributes:
        rounds: configured training rounds.
        n_clients, n_classes, class_names: the federation.
        seed: run seed (draw with `fedimb.seeds`, stream METHOD).
        counts: class counts [C] float64 the prior is made of; a method that changes the view sets it anew.
        estimate: global weights by name -> ``counts`` estimated from them; None where counts do not follow the weights.
        clients_need_counts: whether ``counts`` travels with every train message (the loss or a method reads it there).
        models: factories of models by name, each given the number of resets; a method adds the ones it trains: an
            `Aggregator` for another model of the run's kind, a `AuxiliaryModel` for one of any other.
        minority, train_counts: minority class ids and the rows [C] there are of each class: for what is logged alone,
            never for what is done. None and empty where nobody knows (a plain ServerApp, hospitals).
        method_sets_prior: whether a method that changes what is trained on sets ``counts`` to what it counts.
        prior_from_counts: client counts [K, C] -> ``counts`` [C] as the prior is configured, for a method that counts
        anew.
        server: what the server can do itself (its own rows, training); None in a plain ServerApp.
        working: shows the progress of long work at the server: (what, steps) -> called with the steps just done.
        prior_view: ``train``: the prior counts what is trained on; ``real``: measured rows alone.
        initial: weights the global model starts from instead of drawn ones; a method sets it before any round.
        artifact: keeps a file of the method's (name, content) with the run; written again on resume, with the same
            content. ``panels/<name>.json`` {"title", "caption"} goes into the report with the picture beside it
            (``<name>.svg``, ``<name>.png``), or with one drawn from its figures (`fedimb.serverapp.panels`).
        ledger: adds up what noised updates tell; None where no noise is added.
    """

    rounds: int
    n_clients: int
    n_classes: int
    class_names: tuple[str, ...]
    seed: int
    counts: np.ndarray | None = None
    estimate: Callable[[Arrays], np.ndarray] | None = None
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


@dataclass
class Progress:
    """Where a run is. All of it is in the checkpoint."""

    done_steps: int = 0
    round_in_step: int = 0
    server_round: int = 0
    resets: int = 0
    waiting: bool = False
    elapsed_s: float = 0.0
    virtual_s: float = 0.0
    privacy: Spent = field(default_factory=dict)
