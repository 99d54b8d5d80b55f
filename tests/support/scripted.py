"""Sites that answer train messages in an order that a script says, in one process."""

from collections.abc import Iterable, Sequence

from flwr.app import Message
from loopback import Loopback


class Scripted(Loopback):
    """As `Loopback`; one train message is answered at a time, by the next site of the script.

    Args:
        script: sites, in the order in which their replies come; where it ends, whoever was asked first is next.
    """

    def __init__(self, homes: Iterable, script: Sequence[str], run_id: int = 1, **options) -> None:
        super().__init__(homes, run_id, **options)
        self.script = list(script)
        self.arrived: list[str] = []

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        """Answers of the next site, and of everybody to other messages."""
        ids = list(ids)
        trains = [one for one in ids if self._open[one].metadata.message_type == "train"]
        if not trains:
            return super().pull_messages(ids)
        by_site = {self.homes[self._open[one].metadata.dst_node_id].site: one for one in trains}
        site = self.script[0] if self.script else next(iter(by_site))
        if site not in by_site:
            return []
        found = super().pull_messages([by_site[site]])
        if found:
            self.arrived.append(site)
            del self.script[:1]
        return found
