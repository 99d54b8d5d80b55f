"""Masks and noise at a hospital, made from keys and random numbers that the coordinator does not have.

Each site makes an X25519 key per run (Bonawitz et al., CCS 2017, section 4: pairwise agreement), signs the public key
with its own key in the plan, and sends both when it joins; the coordinator forwards all of them with each request for a
masked sum. A site takes no run key that the plan's site did not sign. The seed of the mask of two sites comes
from their shared secret, by HKDF-SHA-256 (RFC 5869) over the secret and the request; the mask is ChaCha20's key stream.
A different request has a different mask; the same request sent again (to a node that was away) has the same mask, so
the replies are identical. A site's noise is drawn the same way, from 32 bytes of its own.

From four sites on a sum can be opened without a site that is missing (`fedimb.privacy.recoverable_sum`): each site adds
a mask of its own, and sends shares of the seeds of this one request, encrypted for the other sites
(`fedimb.deploy.site.masked_opening`). The run keys are never revealed.

```
state/runs/<run>/pair.key      private key, 0600; deleted when the run's records are withdrawn
state/runs/<run>/pair.signed   its public key and the site's signature of it
state/runs/<run>/noise.key     32 random bytes, 0600
state/runs/<run>/own.key       32 random bytes, 0600, for the mask of its own and for shares
state/runs/<run>/peers.json    public keys and sites of the run's first masked sum
```

A site takes part in sums over only one set of sites per run (sums over different sets could be subtracted from each
other), never fewer than three, and only with the keys it got first. `fedimb node audit` shows the digest of the keys,
which is the same at all sites. What this rests on: that the fingerprints in the plan are those of the sites, which
people compare out of band before they approve it.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from flwr.app import ArrayRecord, Message, RecordDict

from fedimb.by_reference import view
from fedimb.contracts import platform as names
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.files import write_private
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import NOT_APPROVED, Shareable
from fedimb.deploy.signing import load_key, sign, statement, verify
from fedimb.deploy.study_plan.plan import FEWEST_MASKED, StudyPlan
from fedimb.privacy.recoverable_sum import can_recover, commitment, expand, least_sites, seeds_of
from fedimb.privacy.secret_sharing import RANDOM, element, split
from fedimb.privacy.secrets import MessageInfo
from fedimb.records import array_record
from fedimb.seeds import Stream

_RUN_KEY = r"([0-9a-f]{64}):([A-Za-z0-9+/=]+)"


def public_key(home: NodeHome, run: str) -> str:
    """This site's public key (hex) for masks in a run. Made on first use."""
    private = X25519PrivateKey.from_private_bytes(_secret(home, run, "pair.key"))
    return private.public_key().public_bytes_raw().hex()


def signed_run_key(home: NodeHome, plan: str, run: str) -> str:
    """`public_key` and the site's signature of it, for one plan and run: ``<hex>:<base64>``.

    Made on first use: a run that is resumed sends the same requests again, keys and signatures included.
    """
    path = home.folder("state", "runs", run) / "pair.signed"
    if not path.exists():
        key = public_key(home, run)
        signature = sign(load_key(home.file("key")), _statement(plan, run, home.site, key))
        write_private(path, f"{key}:{signature}".encode())
    return path.read_text(encoding="ascii")


def _statement(plan: str, run: str, site: str, key: str) -> bytes:
    return statement("run key", plan=plan, run=run, site=site, key=key)


def _secret(home: NodeHome, run: str, name: str) -> bytes:
    path = home.folder("state", "runs", run) / name
    if not path.exists():
        write_private(path, os.urandom(32))
    return path.read_bytes()


def request_digest(message: Message) -> bytes:
    """SHA-256 of a request: its type, step and all records except the bookkeeping of one client's state.

    Of run keys only the keys count: of one signature others can be computed that are also valid, and a request that
    differs in nothing else must not draw other noise.
    """
    digest = hashlib.sha256(message.metadata.message_type.encode())
    step: dict[str, Any] = dict(message.content.config_records.get(names.STEP) or {})
    digest.update(json.dumps([step.get("round"), step.get("step")]).encode())
    for key in sorted(message.content):
        record = message.content[key]
        if isinstance(record, ArrayRecord):
            for name in sorted(record):
                value = view(record[name])
                about = json.dumps([key, name, value.dtype.str, value.shape])
                digest.update(hashlib.sha256(about.encode() + np.ascontiguousarray(value).tobytes()).digest())
        elif key == names.PAIRS:
            keys = sorted((client, str(text).partition(":")[0]) for client, text in record.items())
            digest.update(hashlib.sha256(json.dumps([key, keys]).encode()).digest())
        elif key != names.STEP:
            digest.update(hashlib.sha256(json.dumps([key, *sorted(record.items())], default=repr).encode()).digest())
    return digest.digest()


class NodeSecrets:
    """Masks and noise for one message at a site; implements `fedimb.privacy.secrets.Secrets`.

    Args:
        home: the node's folder.
        plan: the approved plan; its sites' keys sign the run keys.
        run: the run's name.
        client: this site's client id.
        message: the message, as received.
    """

    def __init__(self, home: NodeHome, plan: StudyPlan, run: str, client: int, message: Message) -> None:
        self._home, self._plan, self._run, self._client = home, plan, run, client
        self._request = request_digest(message)
        self._sent: dict[str, Any] = dict(message.content.config_records.get(names.PAIRS) or {})
        self._keys: dict[int, str] = {}
        self._agreed: list[int] | None = None

    @staticmethod
    def of_request(home: NodeHome, plan: StudyPlan, run: str, client: int, request: bytes) -> "NodeSecrets":
        """The secrets of a request that this site has answered, by its digest, with the keys it got then.

        Raises:
            Shareable: the site has masked nothing in this run, or its key is gone.
        """
        found = NodeSecrets(home, plan, run, client, Message(RecordDict(), 0, "query"))
        found._request = request
        try:
            agreement = json.loads(home.file("state", "runs", run, "peers.json").read_text())
        except OSError:
            raise Shareable(NOT_APPROVED, f"{home.site} has masked nothing in this run") from None
        found._keys = dict(zip(agreement["clients"], agreement["keys"], strict=True))
        found._agreed = agreement["clients"]
        if found._keys.get(client) != public_key(home, run):
            raise Shareable(NOT_APPROVED, f"{home.site} no longer has its key of this run; start a new run")
        return found

    def mask(self, asked: MessageInfo, clients: list[int], low: int, high: int, count: int) -> np.ndarray:
        """See `fedimb.privacy.secrets.Secrets.mask`.

        Raises:
            Shareable: keys are missing or differ from before, or the sum is over different sites than before.
        """
        self._agree(clients)
        return expand(self._pair_seed(high if low == self._client else low), count)

    def own_mask(self, asked: MessageInfo, clients: list[int], count: int) -> np.ndarray:
        """See `fedimb.privacy.secrets.Secrets.own_mask`: none below four sites, where no sum opens without a site."""
        if not can_recover(len(clients)):
            return np.zeros(count, np.uint64)
        return expand(self._own_seed(), count)

    def shares(self, asked: MessageInfo, clients: list[int]) -> RecordDict:
        """See `fedimb.privacy.secrets.Secrets.shares`: ``x.shares`` from four sites on, else nothing.

        ``request`` [32] is the request's digest, ``commitments`` [K, 32] are those of the seeds in the order of
        `seeds_of`, and ``to/<client>`` [32 K + 16] are the shares of these seeds, encrypted for that client.
        """
        if not can_recover(len(clients)):
            return RecordDict()
        self._agree(clients)
        seeds = self.seeds(clients)
        sent = {"request": self._request, "commitments": b"".join(map(commitment, seeds))}
        for holder, plain in self.split_seeds(clients).items():
            if holder != self._client:
                sealed = ChaCha20Poly1305(self.share_key(holder, self._client, holder))
                sent[f"to/{holder}"] = sealed.encrypt(bytes(12), plain, None)  # the key is of this request alone
        arrays = {name: np.frombuffer(value, np.uint8) for name, value in sent.items()}
        arrays["commitments"] = arrays["commitments"].reshape(len(clients), 32)
        return RecordDict({names.SHARES: array_record(arrays)})

    def seeds(self, clients: list[int]) -> list[bytes]:
        """This site's seeds [32] of the request, in the order of `seeds_of`."""
        return [
            self._own_seed() if other == self._client else self._pair_seed(other)
            for other in seeds_of(self._client, clients)
        ]

    def split_seeds(self, clients: list[int]) -> dict[int, bytes]:
        """The shares [32 K] of `seeds` for each client, this site too."""
        least, found = least_sites(len(clients)), dict.fromkeys(clients, b"")
        size = (least - 1) * RANDOM
        drawn = self._stream(self._own_key(), f"fedimb shares 1|{self._run}|".encode(), size * len(clients))
        for place, seed in enumerate(self.seeds(clients)):
            shares = split(seed, least, clients, drawn[place * size : (place + 1) * size])
            found = {client: found[client] + shares[client] for client in clients}
        return found

    def share_key(self, other: int, sender: int, holder: int) -> bytes:
        """The key [32] that encrypts a sender's shares for their holder; ``other`` is the one that this site is not."""
        return self._derived(self._shared(other), f"fedimb share 1|{self._run}|{sender}|{holder}|".encode(), 32)

    def _own_key(self) -> bytes:
        return _secret(self._home, self._run, "own.key")

    def _own_seed(self) -> bytes:
        return element(self._derived(self._own_key(), f"fedimb own mask 1|{self._run}|".encode(), RANDOM))

    def _pair_seed(self, other: int) -> bytes:
        low, high = min(self._client, other), max(self._client, other)
        purpose = f"fedimb mask 2|{self._run}|{low}|{high}|".encode()
        return element(self._derived(self._shared(other), purpose, RANDOM))

    def _shared(self, other: int) -> bytes:
        """The secret [32] that this site and another share in the run."""
        private = X25519PrivateKey.from_private_bytes(_secret(self._home, self._run, "pair.key"))
        return private.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(self._keys[other])))

    def normal(self, asked: MessageInfo, stream: Stream, count: int) -> np.ndarray:
        """See `fedimb.privacy.secrets.Secrets.normal`; Box and Muller's transformation of 53 random bits each."""
        half = -(-count // 2)
        uniform = self._uniform("noise", stream, 2 * half)
        radius, angle = np.sqrt(-2 * np.log1p(-uniform[:half])), 2 * np.pi * uniform[half:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def normals(self, asked: MessageInfo, stream: Stream, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """See `fedimb.privacy.secrets.Secrets.normals`."""
        sizes = [math.prod(shape) for shape in shapes]
        drawn = np.split(self.normal(asked, stream, sum(sizes)), np.cumsum(sizes)[:-1])
        return [one.reshape(shape) for one, shape in zip(drawn, shapes, strict=True)]

    def laplace(self, asked: MessageInfo, stream: Stream, count: int) -> np.ndarray:
        """See `fedimb.privacy.secrets.Secrets.laplace`; the inverse of the distribution function at 53 random bits."""
        away = self._uniform("laplace", stream, count) - 0.5 + 2.0**-54  # never 0.5 away, whose logarithm is infinite
        return -np.sign(away) * np.log1p(-2 * np.abs(away))

    def _uniform(self, what: str, stream: Stream, count: int) -> np.ndarray:
        """Numbers [count] float64 in [0, 1), of 53 bits, from this site's secret for noise."""
        purpose = f"fedimb {what} 1|{self._run}|{stream.name}|".encode()
        drawn = self._stream(_secret(self._home, self._run, "noise.key"), purpose, 8 * count)
        return (np.frombuffer(drawn, np.dtype("<u8")) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def _stream(self, secret: bytes, purpose: bytes, size: int) -> bytes:
        """Key stream for one use. The key depends on the request, so the nonce can be constant."""
        key = self._derived(secret, purpose, 32)
        return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(size))

    def _derived(self, secret: bytes, purpose: bytes, size: int) -> bytes:
        return HKDF(hashes.SHA256(), size, salt=None, info=purpose + self._request).derive(secret)

    def _agree(self, clients: list[int]) -> None:
        """Accept the first set of sites and keys in a run; refuse any other."""
        if self._agreed == clients:
            return
        site, sites = self._home.site, len(self._plan.sites)
        known = {str(client) for client in range(sites)}
        if len(set(clients)) < FEWEST_MASKED or not {str(client) for client in clients} <= self._sent.keys() & known:
            raise Shareable(
                NOT_APPROVED,
                f"{site} takes part in sums over at least {FEWEST_MASKED} sites of the plan, each with its key; it was "
                f"asked to sum over {len(set(clients))} of {sites} with {len(self._sent)} keys",
            )
        self._keys = {client: self._run_key(client) for client in clients}
        if self._keys.get(self._client) != public_key(self._home, self._run):
            raise Shareable(NOT_APPROVED, f"{site}'s own key was replaced by another; start a new run")
        keys = [self._keys[client] for client in clients]
        if len(set(keys)) < len(keys):
            raise Shareable(NOT_APPROVED, f"{site} was sent one key for two sites, so one of them is invented")
        agreement = {"clients": clients, "keys": keys}
        path = self._home.folder("state", "runs", self._run) / "peers.json"
        if not path.exists():
            facts = {"run": self._run, "sites": len(clients), "sha256": keys_digest(keys)}
            AuditLog(self._home.file("audit.jsonl")).append("keys of other sites", facts)
            write_private(path, json.dumps(agreement).encode())
        elif json.loads(path.read_text()) != agreement:
            raise Shareable(
                NOT_APPROVED,
                f"{site} has already summed over other sites, or with other keys, in this run, and a second sum "
                "could be "
                "subtracted from the first; start a new run",
            )
        self._agreed = clients

    def _run_key(self, client: int) -> str:
        """The run key of a site, if the site of the plan signed it for this run."""
        planned, found = self._plan.sites[client], re.fullmatch(_RUN_KEY, str(self._sent[str(client)]))
        if found is None or not verify(
            planned.key, _statement(self._plan.sha, self._run, planned.name, found[1]), found[2]
        ):
            raise Shareable(
                NOT_APPROVED,
                f"{self._home.site} was sent a run key of {planned.name} that {planned.name} did not sign: somebody "
                "replaced it, and could read what is masked with it; call the other sites before going on",
            )
        return found[1]


def keys_digest(keys: list[str]) -> str:
    """SHA-256 (hex) of the sites' public keys in client-id order, for sites to compare by telephone."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()
