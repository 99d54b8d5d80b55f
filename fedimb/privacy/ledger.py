"""The privacy spent by a run with noise so far: epsilon at delta, round by round, and against whom.

The unit of privacy is a client with all its rows: the released models are about as likely with its updates as with its
updates set to zero in every round (cohorts and weights unchanged). Two figures, both exact for the Gaussian mechanism
(`fedimb.privacy.gaussian.epsilon_of`), for the client that took part most often:

- ``epsilon``: against an adversary who sees every round's model and who took part. The noise on the sum is noise x clip
  times the root of the share of the cohort that replied, since the others' shares are missing. No amplification by
  sampling is claimed: the seed determines who took part, and everyone with the configuration knows it.
- ``epsilon_server``: against the coordinator, who sees each update with only that client's share of the noise.

A third, for comparison with the literature (participation below 1 only):

- ``epsilon_sampled``: against an adversary who sees the models but not who took part (`fedimb.privacy.accountant`): as
  if each client took part independently with that probability, although the cohort's size is fixed here. Use it to
  compare with papers; promise ``epsilon``.

Whatever else a run sends (counts, confusion matrices, a method's records) has its own protection or none, and is not
included.
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
    """Adds up the privacy cost of a run's rounds.

    Args:
        privacy: settings with noise > 0.
        clients: number of clients of the run.
        participation: fraction of the clients asked in a round.
    """

    def __init__(self, privacy: PrivacyConfig, clients: int, participation: float) -> None:
        self._privacy, self._clients, self._q = privacy, clients, participation

    def add(self, spent: Spent, asked: Sequence[int], replied: int) -> None:
        """Add a round, in place: the clients asked, and how many replies the model was made from."""
        noise = self._privacy.noise
        if replied:
            used = noise * math.sqrt(replied / len(asked))
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
        """`stated`, plus the privacy settings."""
        return {key: float(value) for key, value in self._privacy.model_dump().items()} | self.stated(spent)

    def _gaussian(self, spent: Spent, account: str) -> float:
        """Consecutive Gaussian mechanisms equal one whose precision is the sum of theirs."""
        precision = max(spent.get(account, [0.0]))
        return epsilon_of(1 / math.sqrt(precision), self._privacy.delta) if precision > 0 else 0.0


def add_round(
    ledger: Ledger | None, spent: Spent, asked: Sequence[int], replies: Sequence[dict[str, float]]
) -> dict[str, float]:
    """Add a round and return the privacy metrics; without noise, the median norm of the clipped updates.

    Args:
        replies: metrics of the replies the model was made from.
    """
    if ledger is not None:
        ledger.add(spent, asked, len(replies))
        return {f"privacy/{key}": value for key, value in ledger.stated(spent).items()}
    norms = [metrics["update_norm"] for metrics in replies if "update_norm" in metrics]
    return {"privacy/update_norm": float(np.median(norms))} if norms else {}
