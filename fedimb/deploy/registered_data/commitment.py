"""A site's commitment to a registered data set: a salted Merkle root, and proofs that a record is included.

The tree is RFC 6962's (`fedimb.deploy.registered_data.merkle`); a leaf is the hash of a salt, the record and its label.
Salts are derived from a secret of the site with HMAC-SHA256 (RFC 2104): without them, a record with few possible values
(age 54, female, ...) could be found from its hash by trying all.

A commitment proves that the version a run names is one fixed list of records, unchanged since, and that a record is in
it. It does not prove that a record is absent, that records are true or complete, or that training used them.
"""

import base64
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedimb.deploy.files import refuse_readable
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data import merkle
from fedimb.deploy.registered_data.source_records import Reading
from fedimb.errors import DataError
from fedimb.plain import JsonObject

SCHEMA = "fedimb-inclusion-1"


def site_secret(home: NodeHome) -> bytes:
    """The site's secret: 32 bytes in data/secret (mode 0600), made on first use.

    It never leaves the site. Without it no version can be verified any more.

    Raises:
        ConfigError: the file is readable by others.
        DataError: the file is damaged.
    """
    path = home.folder("data") / "secret"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_hex(merkle.SIZE).encode())
    except FileExistsError:
        refuse_readable(path)
    text = path.read_text(encoding="ascii").strip()
    if len(text) != 2 * merkle.SIZE:
        raise DataError(f"{path} is damaged; restore it from a backup, or register the data again after deleting it")
    return bytes.fromhex(text)


def keyed_hash(secret: bytes, purpose: str, content: bytes) -> bytes:
    """HMAC-SHA256 of ``content`` for one purpose, 32 bytes. Without the secret it does not reveal the content."""
    return hmac.digest(secret, purpose.encode() + b"\0" + content, "sha256")


def mark_records(secret: bytes, reading: Reading) -> list[str]:
    """One keyed hash per record, 32 hex digits. Equal records have equal marks; outsiders cannot compute them."""
    return [
        keyed_hash(secret, "record", reading.record(i) + reading.label(i))[:16].hex()
        for i in range(len(reading.data.y))
    ]


def patient_mark(secret: bytes, patient: str) -> str:
    """Keyed hash of a patient's id, so that a list of withdrawn patients names nobody."""
    return keyed_hash(secret, "patient", patient.encode(errors="surrogatepass"))[:16].hex()


@dataclass(frozen=True)
class Commitment:
    """Salts and Merkle tree over the records of one version.

    Args:
        secret: the site's secret.
        nonce: the version's nonce. Other versions of the same data have other salts, so a record that was revealed
            once tells nothing about a later version.
    """

    secret: bytes
    nonce: bytes

    @staticmethod
    def over(secret: bytes, name: str, record_marks: Sequence[str]) -> "Commitment":
        """The commitment for data set ``name`` with these records. The same records give the same salts."""
        return Commitment(secret, keyed_hash(secret, "version", json.dumps([name, *record_marks]).encode()))

    def salt(self, index: int) -> bytes:
        """32 bytes for the leaf at ``index``."""
        return keyed_hash(self.secret, "salt", self.nonce + index.to_bytes(8, "big"))

    def leaves(self, reading: Reading) -> list[bytes]:
        """Leaf hashes, in order: SHA-256(0x00 || salt || record || label)."""
        return [
            merkle.leaf_hash(self.salt(i) + reading.record(i) + reading.label(i)) for i in range(len(reading.data.y))
        ]

    def prove(self, reading: Reading, index: int, facts: JsonObject, reveal: bool) -> JsonObject:
        """The inclusion proof of the record at ``index``, for JSON.

        Args:
            reading: the data.
            index: index of the record.
            facts: what to name in the proof (data set, version).
            reveal: include salt, record and label, so that anyone with the proof sees the record and can check it.
                Otherwise the proof contains only a hash that the site alone can reveal.
        """
        leaves = self.leaves(reading)
        proof = {
            "schema": SCHEMA,
            **facts,
            "index": index,
            "size": len(leaves),
            "leaf": leaves[index].hex(),
            "path": [beside.hex() for beside in merkle.inclusion_path(leaves, index)],
            "root": merkle.root(leaves).hex(),
        }
        if reveal:
            parts = {"salt": self.salt(index), "record": reading.record(index), "label": reading.label(index)}
            proof["opened"] = {name: base64.b64encode(value).decode() for name, value in parts.items()}
        return proof


def verify_proof(proof: JsonObject, root: str | None = None) -> JsonObject | None:
    """Check a proof made by `Commitment.prove`. Needs nothing from the site.

    Args:
        proof: as read from JSON.
        root: the Merkle root the site published, in hex. None: the proof's own root, which only shows that the proof is
            consistent.

    Returns:
        header and label of the record if the proof reveals it, else None.

    Raises:
        DataError: names what does not match.
    """
    try:
        if proof["schema"] != SCHEMA:
            raise DataError(f"the proof has format '{proof['schema']}', this fedimb reads {SCHEMA}")
        head, leaf = bytes.fromhex(proof["root"]), bytes.fromhex(proof["leaf"])
        path = [bytes.fromhex(beside) for beside in proof["path"]]
        opened = {name: base64.b64decode(text, validate=True) for name, text in proof.get("opened", {}).items()}
        if root is not None and bytes.fromhex(root) != head:
            raise DataError(
                f"the proof is for root {proof['root'][:16]}..., not {root[:16]}...: it is for another version"
            )
        if not merkle.included(leaf, int(proof["index"]), int(proof["size"]), path, head):
            raise DataError("the path does not lead from the record's hash to the root: the proof was changed")
        if not opened:
            return None
        record, label = opened["record"], opened["label"]
        if len(opened["salt"]) != merkle.SIZE or merkle.leaf_hash(opened["salt"] + record + label) != leaf:
            raise DataError("the revealed record is not the one that was hashed: the proof was changed")
        header = json.loads(record[8 : 8 + int.from_bytes(record[:8], "big")])
        return {**header, "label": json.loads(label)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"this is not an inclusion proof of fedimb ({type(error).__name__}: {error})") from error


def read_proof(path: Path) -> JsonObject:
    """Read a proof's file. Raises DataError if it is missing or not a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a proof: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} does not contain a proof")
    return found
