"""Signatures between a coordinator and its sites: orders by the coordinator, replies and run keys by the site.

ECDSA on P-384 with SHA-384, with the keys that a study plan lists. A signature is over a purpose and the facts that
make a message what it is: recipient or sender, plan, run, round, type, the order's id and a digest of the content. So
a message that was altered, sent to another site, taken for another site's, or kept from an earlier order is not what
was signed. Flower itself signs only the time.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from fedimb.contracts import platform as names
from fedimb.errors import ConfigError

_ALGORITHM = ec.ECDSA(hashes.SHA384())
_NUMBER = 48
"""Bytes of each of a signature's two numbers on P-384."""
_SIGNED = "signed "


@dataclass(frozen=True)
class Order:
    """What the coordinator's signature of a message is over, and the site's signature of the reply with it.

    Attributes:
        site: the recipient; it signs the reply.
        plan: SHA-256 of the study plan.
        run: fedimb's name of the run.
        kind: Flower's message type.
        round: the round and the step of the run loop, ``""`` before it.
        id: 32 hex digits, new for each message, also for one that is sent again.
    """

    site: str
    plan: str
    run: str
    kind: str
    round: str
    id: str

    @staticmethod
    def of(message: Message, site: str, plan: str, run: str, id_: str) -> "Order":
        """The order that a message is."""
        step: dict[str, object] = dict(message.content.config_records.get(names.STEP) or {})
        about = ".".join(str(step[key]) for key in ("round", "step") if key in step)
        return Order(site, plan, run, message.metadata.message_type, about, id_)

    def statement(self, purpose: str, digest: str) -> bytes:
        """The bytes that are signed.

        Args:
            purpose: ``order`` or ``reply``.
            digest: of the content, or of the error.
        """
        return statement(purpose, **vars(self), digest=digest)


def statement(purpose: str, **facts: str) -> bytes:
    """The bytes that a signature is over: nothing signed for one purpose passes for another."""
    return f"fedimb {purpose} 1\n".encode() + json.dumps(facts, sort_keys=True).encode()


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Load a private key in OpenSSH format. Raises ConfigError if the file is missing or not such a key."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} cannot be read as a key ({error}): restore it from a backup") from None
    if not (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)):
        raise ConfigError(f"{path} is not a key on P-384: restore it from a backup")
    return key


def sign(key: ec.EllipticCurvePrivateKey, text: bytes) -> str:
    """The signature of a statement in base64: r and s, each as long as the curve's numbers (IEEE P1363).

    The usual encoding (DER) is some bytes shorter now and then, and the bytes of a round would differ from run to run.
    """
    r, s = decode_dss_signature(key.sign(text, _ALGORITHM))
    return base64.b64encode(r.to_bytes(_NUMBER) + s.to_bytes(_NUMBER)).decode("ascii")


def verify(public: str, text: bytes, signature: object) -> bool:
    """Whether a signature is of this statement, by the key of this OpenSSH line."""
    try:
        key = cast(ec.EllipticCurvePublicKey, serialization.load_ssh_public_key(public.encode()))
        numbers = base64.b64decode(str(signature).encode(), validate=True)
        if len(numbers) != 2 * _NUMBER:
            return False
        r, s = int.from_bytes(numbers[:_NUMBER]), int.from_bytes(numbers[_NUMBER:])
        key.verify(encode_dss_signature(r, s), text, _ALGORITHM)
    except (InvalidSignature, binascii.Error, ValueError, UnsupportedAlgorithm):
        return False
    return True


def content_digest(content: RecordDict) -> str:
    """SHA-256 (hex) of all records of a message: keys, kinds, types, shapes and values.

    Example:
        >>> from flwr.app import MetricRecord, RecordDict
        >>> one, other = RecordDict({"m": MetricRecord({"rows": 3})}), RecordDict({"m": MetricRecord({"rows": 3.0})})
        >>> content_digest(one) == content_digest(other)
        False
    """
    digest = hashlib.sha256()
    for key in sorted(content):
        record = content[key]
        if isinstance(record, ArrayRecord):
            for name in sorted(record):
                array = record[name]
                about = [key, "arrays", name, array.dtype, list(array.shape), array.stype, len(array.data)]
                digest.update(_line(about))
                digest.update(array.data)  # as sent: nothing is parsed before it is known whose it is
            digest.update(_line([key, "arrays", len(record)]))
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            digest.update(_line([key, kind, sorted(record.items())]))
    return digest.hexdigest()


def error_digest(code: int, reason: str) -> str:
    """SHA-256 (hex) of an error: its code and text."""
    return hashlib.sha256(_line(["error", code, reason])).hexdigest()


def with_signature(reason: str, signature: str) -> str:
    """The text of an error with its signature."""
    return f"{reason}\n{_SIGNED}{signature}"


def split_signature(reason: str) -> tuple[str, str]:
    """(text, signature) of an error's text; the signature is empty if there is none."""
    text, found, signature = reason.rpartition(f"\n{_SIGNED}")
    return (text, signature) if found else (reason, "")


def _line(values: list[object]) -> bytes:
    return json.dumps(values, default=lambda value: ["bytes", bytes(value).hex()]).encode() + b"\n"
