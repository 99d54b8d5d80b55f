"""What a run with noise has told so far: epsilon at delta, round by round, and against whom. Ours.

The unit is a client, with all its rows: the models made with it are about as likely as with its updates put at zero in
every round (cohorts and weights as they are). Two answers, both exact for the Gaussian mechanism
(`fedimb.privacy.gaussian.epsilon_of`), for the client that took part most:

- ``epsilon``: against who sees every round's model and who took part. Noise on the sum: noise x clip, less by the root
  of the share of the cohort that answered, since the others' shares are missing. No amplification by sampling is
  claimed: the run's seed tells who took part, and whoever has the configuration has it.
- ``epsilon_server``: against the coordinator, who sees each update with that client's share of the noise alone.

- ``epsilon_sampled`` (participation below 1 only): against who sees the models and not who took part, as the field
  states it (`fedimb.privacy.accountant`): as if each client took part with that probability independently of the
  others, while the cohort's size is fixed here. Compare with it, promise the first.

What a run sends besides weights (counts, confusion matrices, a method's records) has its own protection or none, and
is in none of these.
"""

import math
from collections.abc import Sequence

import numpy as np

from fedimb.privacy.accountant import epsilon_of_rdp, rdp_of
from fedimb.privacy.gaussian import epsilon_of
from fedimb.schema import PrivacyConfig

Spent = dict[str, list[float]]
"""The ledger's state, as a checkpoint keeps it."""


class Ledger:
    """Adds up the rounds of a run.

    Args:
        privacy: with noise > 0.
        clients: of the run.
        participation: fraction of the clients asked in a round.
    """

    def __init__(self, privacy: PrivacyConfig, clients: int, participation: float) -> None:
        self._privacy, self._clients, self._q = privacy, clients, participation

    def add(self, spent: Spent, asked: Sequence[int], answered: int) -> None:
        """Enter a round, in place: the clients asked, and of how many the model was made."""
        noise = self._privacy.noise
        if answered:
            used = noise * math.sqrt(answered / len(asked))
            self._charge(spent, "models", asked, 1 / used**2)
            before = spent.get("rdp", [0.0] * len(rdp_of(self._q, used)))
            spent["rdp"] = (np.asarray(before) + rdp_of(self._q, used)).tolist()
        self._charge(spent, "updates", asked, len(asked) / noise**2)

    def _charge(self, spent: Spent, account: str, asked: Sequence[int], amount: float) -> None:
        balance = spent.setdefault(account, [0.0] * self._clients)
        for client in asked:
            balance[client] += amount

    def stated(self, spent: Spent) -> dict[str, float]:
        """``epsilon``, ``epsilon_server`` and, where clients are sampled, ``epsilon_sampled``; 0 before any round."""
        found = {"epsilon": self._gaussian(spent, "models"), "epsilon_server": self._gaussian(spent, "updates")}
        if self._q < 1:
            rdp = spent.get("rdp")
            found["epsilon_sampled"] = epsilon_of_rdp(rdp, self._privacy.delta) if rdp else 0.0
        return found

    def account(self, spent: Spent) -> dict[str, float]:
        """`stated`, with the settings it is of."""
        return {key: float(value) for key, value in self._privacy.model_dump().items()} | self.stated(spent)

    def _gaussian(self, spent: Spent, account: str) -> float:
        """Gaussian mechanisms one after another are one, of precision the sum of theirs."""
        precision = max(spent.get(account, [0.0]))
        return epsilon_of(1 / math.sqrt(precision), self._privacy.delta) if precision > 0 else 0.0


def entered(
    ledger: Ledger | None, spent: Spent, asked: Sequence[int], answers: Sequence[dict[str, float]]
) -> dict[str, float]:
    """Enter a round and say how things stand, as metrics; without noise the median norm of updates that are clipped.

    Args:
        answers: metrics of the replies the model was made of.
    """
    if ledger is not None:
        ledger.add(spent, asked, len(answers))
        return {f"privacy/{key}": value for key, value in ledger.stated(spent).items()}
    norms = [metrics["update_norm"] for metrics in answers if "update_norm" in metrics]
    return {"privacy/update_norm": float(np.median(norms))} if norms else {}
