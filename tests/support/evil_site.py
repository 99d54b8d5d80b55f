"""A site whose replies are changed on their way, in one process: what a patched node would send."""

from collections.abc import Callable, Iterable

from evil import order_id, sign_again
from flwr.app import Message
from loopback import Loopback

from fedimb.deploy.home import NodeHome

Change = Callable[[Message, Message], Message | None]
"""(message, honest reply) -> what arrives instead; None: the reply, which may have been changed in place."""


class EvilSite(Loopback):
    """Honest nodes, and one that is not.

    Args:
        homes: of all nodes.
        site: name of the evil one.
        change: what it sends instead.
    """

    def __init__(self, homes: Iterable[NodeHome], site: str, change: Change, run_id: int = 1) -> None:
        super().__init__(homes, run_id)
        self._site, self._change = site, change

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        """The replies, the evil site's changed."""
        listed = list(ids)
        asked = {id_: self._open[id_] for id_ in listed}
        numbers = {id_: order_id(message) for id_, message in asked.items()}
        replies = []
        for reply in super().pull_messages(listed):
            message = asked[reply.metadata.reply_to_message_id]
            if self.homes[message.metadata.dst_node_id].site == self._site:
                changed = self._change(message, reply) or reply
                number = numbers[reply.metadata.reply_to_message_id]
                home = self.homes[message.metadata.dst_node_id]
                reply = sign_again(home, self.run_id, message, number, changed)
            replies.append(reply)
        return replies


def round_of(message: Message) -> int:
    """The round of a train message; 0 for any other."""
    if message.metadata.message_type != "train":
        return 0
    return int(message.content.config_records["x.fedimb"]["round"])  # type: ignore[arg-type]
