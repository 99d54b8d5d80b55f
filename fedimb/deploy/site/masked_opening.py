"""Opening a masked sum at a site: it signs one set of sites, and reveals shares once enough sites have signed that set.

The protocol is in `fedimb.privacy.recoverable_sum`. That a site agrees to one set per request, and to none that is too
small, is checked in its ledger before anything here is called (`fedimb.deploy.site.account.Account`).
"""

from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedimb.contracts import platform as names
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import NOT_APPROVED, Shareable
from fedimb.deploy.signing import load_key, sign, statement, verify
from fedimb.deploy.site.account import SumRequest
from fedimb.deploy.site.pairwise_masks import NodeSecrets
from fedimb.deploy.study_plan.outbound_records import OPENING
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.privacy.recoverable_sum import SIZE, least_sites, opened_seeds, seeds_of
from fedimb.records import array_record


class SumOpening:
    """One message that opens a masked sum, at a site.

    Args:
        home: the node's folder.
        plan: the approved plan; its sites' keys sign the sets.
        run: the run's name.
        client: this site's client id.
        message: the message, as received.
    """

    def __init__(self, home: NodeHome, plan: StudyPlan, run: str, client: int, message: Message) -> None:
        self._home, self._plan, self._run, self._client, self._message = home, plan, run, client, message
        self._asked = SumRequest.of(message)

    def reply(self) -> RecordDict:
        """The signature of the set of sites, or the shares that open their sum."""
        return self._agree() if self._message.metadata.message_type == OPENING[0] else self._open()

    def _agree(self) -> RecordDict:
        def listed(clients: tuple[int, ...]) -> list[str]:
            return [self._plan.sites[client].name for client in clients]

        missing = tuple(client for client in self._asked.clients if client not in self._asked.alive)
        facts: dict[str, Any] = {"run": self._run, "request": self._asked.digest}
        facts |= {"over": listed(self._asked.alive), "without": listed(missing)}
        AuditLog(self._home.file("audit.jsonl")).append("masked sum", facts)
        signature = sign(load_key(self._home.file("key")), self._statement())
        return RecordDict({names.AGREED: ConfigRecord({"signature": signature})})

    def _statement(self) -> bytes:
        asked = self._asked
        lists = {"clients": ",".join(map(str, asked.clients)), "alive": ",".join(map(str, asked.alive))}
        return statement("masked sum", plan=self._plan.sha, run=self._run, request=asked.digest, **lists)

    def _open(self) -> RecordDict:
        """Shares of the seeds of each site in the sum, for its own mask and those with missing sites.

        Raises:
            Shareable: fewer sites than needed have signed this set.
        """
        asked, sent = self._asked, dict(self._message.content.config_records.get(names.AGREED) or {})
        signed = [c for c in asked.alive if verify(self._plan.sites[c].key, self._statement(), sent.get(str(c)))]
        if len(signed) < (least := least_sites(len(asked.clients))):
            raise Shareable(
                NOT_APPROVED,
                f"{self._home.site} opens a sum once {least} sites have signed the same list of sites in it; it was "
                f"sent {len(signed)} of their signatures",
            )
        request = bytes.fromhex(asked.digest)
        secrets = NodeSecrets.of_request(self._home, self._plan, self._run, self._client, request)
        sealed: Any = self._message.content.array_records.get(names.SHARES) or ArrayRecord()
        opened = {}
        for sender in asked.alive:
            if (plain := self._plain(secrets, sender, sealed)) is None:
                continue  # of the others' shares enough may be left
            order = seeds_of(sender, asked.clients)
            rows = np.frombuffer(plain, np.uint8).reshape(len(order), SIZE)
            places = [order.index(one) for one in opened_seeds(sender, asked.clients, asked.alive)]
            opened[f"from/{sender}"] = rows[places]
        return RecordDict({names.OPENED: array_record(opened)})

    def _plain(self, secrets: NodeSecrets, sender: int, sealed: ArrayRecord) -> bytes | None:
        """The shares [32 K] of a site's seeds for this one; None if they are not what that site sent."""
        clients = list(self._asked.clients)
        if sender == self._client:
            return secrets.split_seeds(clients)[sender]
        if (found := sealed.get(f"from/{sender}")) is None:
            return None
        key = secrets.share_key(sender, sender, self._client)
        try:
            plain = ChaCha20Poly1305(key).decrypt(bytes(12), found.numpy().tobytes(), None)
        except InvalidTag:
            return None
        return plain if len(plain) == SIZE * len(clients) else None


__all__ = ["SumOpening"]
