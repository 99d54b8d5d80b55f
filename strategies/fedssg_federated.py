"""FedSSG's generator that is averaged over the clients: what each is sent, what is averaged, and the clients' votes.

    1. teach   in each round a client trains the generator on those of its classes that have enough rows; it is sent the
               rows (embeddings) of classes and devices that it has taught itself, all others as they were initially
    2. vote    a client redraws the samples of the classes it has taught, 200 or more of each, from the generator and
               the run's seed, and says of each class whether they may leave; nobody has drawn them before
    3. draw    the server draws the classes that everybody who taught them has allowed

The server has all weights and could draw anything at any time; the order protects clients from each other, and what
is distributed. What the weights themselves give away is measured at each client before they leave
(`fedimb.generation.federated.weight_leakage`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from fedimb.contracts.fedssg import ABOUT, GENERATOR, LEAKAGE, TAUGHT, TEACH, VERDICTS, WANTED
from fedimb.generation.averaging import average
from fedimb.generation.base import Generator
from fedimb.generation.federated import MEASURED, RowsByGroup
from fedimb.plain import StateDict
from fedimb.records import Arrays, array_record, arrays_of
from fedimb.serverapp.auxiliary_model import AuxiliaryModel
from fedimb.serverapp.steps import Reply

Mask = np.ndarray


class FederatedGenerator(AuxiliaryModel):
    """A generator averaged over clients, each of which is sent only the rows it has taught.

    Args:
        untrained: the generator as built, with its scale set.
        clients: number of clients of the run.
        rounds, steps: rounds of the generator, and steps at each client per round.
        number: of the generator within the run, from 0; clients keep what they have taught by it.

    Attributes:
        taught: [clients, C + D] bool: which classes and devices each has taught.
        leaks: [rounds so far, C, 2]: highest AUC of the attack on a client's weights, and whether any client's gave
            the class away; NaN where nobody measured it.
    """

    def __init__(self, untrained: Generator, clients: int, rounds: int, steps: int, number: int) -> None:
        self.rows = RowsByGroup.of(untrained)
        self.n_classes, self.n_domains = untrained.n_classes, untrained.n_domains
        self.taught = np.zeros((clients, self.n_classes + self.n_domains), bool)
        self.leaks = np.zeros((0, self.n_classes, 2))

        def about(index: int) -> RecordDict:
            given = {"round": index, "rounds": rounds, "steps": steps, "generator": number}
            return RecordDict({ABOUT: ConfigRecord(given)})  # type: ignore[arg-type]

        super().__init__(TEACH, GENERATOR, self.rows.initial, self._mean, about)

    def state_dict(self) -> StateDict:
        return {"taught": self.taught, "leaks": self.leaks}

    def parameters_for(self, clients: Sequence[int]) -> Mapping[int, Arrays]:
        """The weights with the rows of what each client has taught."""
        made: dict[bytes, Arrays] = {}
        return {c: self._masked(self.taught[c], self.taught[c, self.n_classes :], made) for c in clients}

    def seen(self) -> Mask:
        """[C]: which classes anybody has taught, and so can be drawn."""
        return np.asarray(self.taught[:, : self.n_classes].any(axis=0))

    def cells(self) -> Mask:
        """[C, D]: which classes it has been taught on which devices; others come out as another class."""
        seen = self.parameters["cell_seen"][: self.n_classes, : self.n_domains] > 0
        return np.asarray(seen & self.seen()[:, None])

    def asked(self, clients: Sequence[int], sizes: np.ndarray) -> dict[int, RecordDict]:
        """What each client is asked to vote on: its own classes' rows, all devices' rows, samples to draw [C, D]."""
        holders = self.taught[:, : self.n_classes].sum(axis=0)
        made: dict[bytes, Arrays] = {}
        records = {}
        found = {}
        for client in clients:
            own = self.taught[client, : self.n_classes]
            weights = self._masked(self.taught[client], np.ones(self.n_domains, bool), made)
            if id(weights) not in records:
                records[id(weights)] = array_record(weights)
            wanted = {"sizes": np.where(own[:, None], sizes, 0), "holders": np.where(own, holders, 0)}
            found[client] = RecordDict({GENERATOR: records[id(weights)], WANTED: array_record(wanted)})
        return found

    def _masked(self, taught: Mask, domains: Mask, made: dict[bytes, Arrays]) -> Arrays:
        key = taught.tobytes() + domains.tobytes()
        if key not in made:
            made[key] = self.rows.only(self.parameters, taught[: self.n_classes], domains)
        return made[key]

    def _mean(self, replies: Sequence[Reply]) -> Arrays:
        """Average the generators of those who taught, so that a rare class keeps its row; without any, as before."""
        counts = {reply.client: arrays_of(reply.content, TAUGHT) for reply in replies}
        for client, rows in counts.items():
            self.taught[client] |= np.concatenate([rows["classes"], rows["domains"]]) > 0
        self._note_leaks(replies)
        teachers = [reply for reply in replies if counts[reply.client]["classes"].any()]
        if not teachers:
            return self.parameters
        merged = average(
            [arrays_of(reply.content, GENERATOR) for reply in teachers],
            np.stack([counts[reply.client]["classes"] for reply in teachers]),
            np.stack([counts[reply.client]["domains"] for reply in teachers]),
            self.rows.classes,
            self.rows.domains,
            before=self.parameters,
        )
        # A client is sent, and sends, its own cells alone: what others have taught must not be forgotten for it.
        merged["cell_seen"] = np.maximum(merged["cell_seen"], self.parameters["cell_seen"])
        return merged

    def _note_leaks(self, replies: Sequence[Reply]) -> None:
        columns = [MEASURED.index("auc"), MEASURED.index("given_away")]
        found = [arrays_of(reply.content, LEAKAGE)["measured"][:, columns] for reply in replies]
        this = np.fmax.reduce([np.full((self.n_classes, 2), np.nan), *found])
        self.leaks = np.concatenate([self.leaks, this[None].astype(np.float64)])


@dataclass(frozen=True, eq=False)
class Votes:
    """The clients' votes on a generator's classes.

    Attributes:
        verdicts: client -> [C] int32: 1 may leave, 0 may not, -1 not asked.
        taught: [clients, C] bool.
    """

    verdicts: Mapping[int, np.ndarray]
    taught: Mask

    @staticmethod
    def of(replies: Sequence[Reply], generator: FederatedGenerator) -> "Votes":
        """From the replies; a client that taught a class and does not answer has not allowed it."""
        found = {reply.client: arrays_of(reply.content, VERDICTS)["verdicts"] for reply in replies}
        return Votes(found, generator.taught[:, : generator.n_classes])

    def allowed(self) -> Mask:
        """[C]: classes that somebody taught and everybody who did has allowed."""
        yes = np.zeros(self.taught.shape, bool)
        for client, verdicts in self.verdicts.items():
            yes[client] = verdicts == 1
        return np.asarray(self.taught.any(axis=0) & (yes | ~self.taught).all(axis=0))

    def words(self, classes: np.ndarray, names: Sequence[str]) -> str:
        """Who refused what, for the classes given."""
        parts = []
        for label in classes:
            asked = np.flatnonzero(self.taught[:, label])
            no = [int(c) for c in asked if c in self.verdicts and self.verdicts[int(c)][label] != 1]
            silent = len([c for c in asked if c not in self.verdicts])
            text = f"'{names[label]}' by {len(no)} of {len(asked)} that taught it"
            shown = ", ".join(map(str, no[:8])) + (", ..." if len(no) > 8 else "")
            parts.append(text + (f" (clients {shown})" if no else "") + (f", {silent} silent" if silent else ""))
        return "; ".join(parts)
