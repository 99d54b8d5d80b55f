"""The simulated clients that attack: who they are, what they are told, and what those who collude send together.

Which clients attack follows from the seed and the partition, so a resumed run has the same ones. Attackers that collude
pool their updates where the replies arrive, before anything is bounded or summed, on every engine alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message

from fedimb.attacks.base import Attack, AttackSettings, Known, attackers_of
from fedimb.config.parts import build_model, part_maker
from fedimb.config.validate import GIVEN
from fedimb.contracts import platform as names
from fedimb.data.federation import Federation
from fedimb.engine.lanes import LaneOutcome
from fedimb.errors import ConfigError
from fedimb.models.base import head_arrays
from fedimb.records import array_record, arrays_of
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, numpy_rng


@dataclass(frozen=True)
class Attackers:
    """The attackers of a run.

    Attributes:
        name: registered name of the attack.
        clients: their ids, sorted.
        attack: what they do.
        seed: of the run.
    """

    name: str
    clients: tuple[int, ...]
    attack: Attack
    seed: int

    @property
    def start(self) -> int:
        """The first round in which they attack."""
        return int(self.attack.settings.start)

    def order(self, client: int, server_round: int) -> dict[str, Any]:
        """What the step record of a message tells this client: to attack, or nothing.

        Args:
            server_round: the round; 0 before the first, where an attack that starts in round 1 also lies.
        """
        if client not in self.clients or max(server_round, 1) < self.start:
            return {}
        known = self.attack.known
        return {names.RARE: list(known.rare), names.COMMON: known.common}

    def collude(self, outcome: LaneOutcome, sent: Mapping[int, Message]) -> None:
        """Replace what the group of attackers sends, in place, if the attack is one of a group and has started."""
        if not self.attack.colludes:
            return
        steps = {c: cast(ConfigRecord, message.content[names.STEP]) for c, message in sent.items()}
        group = [reply for reply in outcome.replies if reply.usable and names.COMMON in steps[reply.client]]
        if not group:
            return
        received = arrays_of(sent[group[0].client].content, names.ARRAYS)
        honest = {reply.client: arrays_of(reply.content, names.ARRAYS) for reply in group}
        server_round = int(cast(int, steps[group[0].client]["round"]))
        rng = numpy_rng(self.seed, Stream.ATTACK, server_round)
        made = self.attack.collude(received, honest, len(sent), rng)
        for reply in group:
            own = cast(ArrayRecord, reply.content[names.ARRAYS])
            reply.content[names.ARRAYS] = array_record({key: made[reply.client][key] for key in own})

    def line(self) -> str:
        """Who attacks, in words."""
        shown = ", ".join(map(str, self.clients[:20])) + (", ..." if len(self.clients) > 20 else "")
        who = f"{len(self.clients)} client{'s' if len(self.clients) > 1 else ''} ({shown})"
        return f"simulated attack: {self.name} by {who} from round {self.start}; their scores are not used"

    def facts(self) -> dict[str, object]:
        """What journal and result.json keep."""
        return {"name": self.name, "clients": list(self.clients), "start": self.start}


def attackers_in(config: RunConfig, federation: Federation) -> Attackers | None:
    """The attackers of a run; None without an attack.

    Raises:
        ConfigError: nobody would be honest, a setting that does not fit the data or the model, or masked scores, from
            which the attackers' cannot be left out; or the attack would start after the last round.
    """
    name = config.attack["name"]
    if name == "none":
        return None
    if config.evaluation.secure:
        raise ConfigError(
            f"attack={name}: with evaluation.secure=true the attackers' scores cannot be left out of the masked sum; "
            "set evaluation.secure=false"
        )
    counts = federation.class_totals
    rare = tuple(sorted((int(c) for c in federation.minority), key=lambda c: (counts[c], c)))
    head = head_arrays(build_model(config, federation.n_classes, federation.input_shape))
    known = Known(federation.n_classes, rare, int(np.argmax(counts)), tuple(federation.input_shape), head)
    attack: Attack = part_maker("attack", config.attack, GIVEN["attack"])(known=known)
    settings: AttackSettings = attack.settings
    if settings.start > max(config.rounds, 1):
        raise ConfigError(
            f"attack.start={settings.start}: the run has {config.rounds} rounds, so nobody would attack; start "
            "earlier, or set attack=none"
        )
    holders = [int(client) for client in np.flatnonzero(federation.train_sizes)]
    return Attackers(name, attackers_of(config.seed, settings.fraction, holders), attack, config.seed)


__all__ = ["Attackers", "attackers_in"]
