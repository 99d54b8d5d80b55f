"""The sums of a round whose clients train different networks: one for each group of weights that is averaged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Array, ArrayRecord, Message, RecordDict

from fedimb.config.site_models import Layout
from fedimb.contracts import platform as names
from fedimb.engine.lanes import ClientReply, LaneOutcome, LaneSum, Reduction, sum_replies


@dataclass
class SumsByKind:
    """How the replies of a round are summed, and their sums once they are.

    Replies are kept until all are here, because no sum is of all of them: the server holds a round's weights, as it
    does with an aggregator that needs them singly.

    Attributes:
        layout: the groups of weights.
        kinds: kind of each client, by client id.
        reductions: of each group.
        outcomes: of each group that has replies, after `sum`.
    """

    layout: Layout
    kinds: Sequence[str]
    reductions: Mapping[str, Reduction]
    outcomes: dict[str, LaneOutcome] = field(default_factory=dict)

    def sum(self, kept: LaneOutcome, sent: Mapping[int, Message]) -> LaneOutcome:
        """Sum replies that were kept, and take their weights out; one that no sum can take is not usable.

        A reply is in all sums of its kind or in none.

        Args:
            kept: of an exchange that kept every reply.
            sent: the message each client replied to.
        """
        while True:
            self.outcomes, refused = {}, False
            for group, kinds in self.layout.groups().items():
                own = [self._part(r, group) for r in kept.replies if r.usable and self.kinds[r.client] in kinds]
                if not own:
                    continue
                self.outcomes[group] = sum_replies(LaneOutcome(own, LaneSum(False)), self.reductions[group], sent)
                refused |= _mark([reply for reply in own if not reply.usable], kept.replies)
            if not refused:
                break
        for reply in kept.replies:
            dropped = (names.ARRAYS, names.BUFFERS, names.METRICS)
            reply.content = RecordDict({k: v for k, v in reply.content.items() if k not in dropped})
        total = LaneSum(False)
        total.confusion = kept.total.confusion
        return LaneOutcome(kept.replies, total)

    def _part(self, reply: ClientReply, group: str) -> ClientReply:
        """A usable reply with the weights and buffers of one group only."""
        content = RecordDict(dict(reply.content))
        for key in (names.ARRAYS, names.BUFFERS):
            if key in content:
                arrays: dict[str, Array] = dict(content.array_records[key])
                content[key] = ArrayRecord(self.layout.part(group, arrays))
        return ClientReply(reply.client, content=content, metrics=dict(reply.metrics), up_bytes=reply.up_bytes)


def _mark(refused: Sequence[ClientReply], replies: Sequence[ClientReply]) -> bool:
    """Mark the replies that these were parts of as not usable; returns whether there are any."""
    by_client = {reply.client: reply for reply in replies}
    for part in refused:
        whole = by_client[part.client]
        whole.usable, whole.error, whole.diverged = False, part.error, part.diverged
    return bool(refused)
