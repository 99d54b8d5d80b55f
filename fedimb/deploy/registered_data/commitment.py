"""A site's commitment to a registered data set: a salted Merkle root, and the proof that a record is under it.

The tree is RFC 6962's (`fedimb.deploy.registered_data.merkle`); a leaf is the hash of a salt, the record and its label.
Salts are drawn from a secret of the site with HMAC-SHA256 (RFC 2104): a record of few possible values (age 54, female,
...) could otherwise be found from its hash by trying all.

What it proves: that the version a run names is one fixed list of records, unchanged since, and that a record is among
them. What it does not: that a record is absent, that records are true or complete, or that training used them.
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
    """32 bytes in data/secret, 0600, made on first use. It never leaves; losing it makes every version unverifiable.

    Raises:
        ConfigError: others than the owner can read it.
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


def keyed(secret: bytes, purpose: str, content: bytes) -> bytes:
    """HMAC-SHA256 of ``content`` for one purpose, 32 bytes: tells nobody without the secret what was hashed."""
    return hmac.digest(secret, purpose.encode() + b"\0" + content, "sha256")


def marks(secret: bytes, reading: Reading) -> list[str]:
    """One per record, 32 hex digits: equal for equal records, and for nobody outside the site to compare."""
    return [
        keyed(secret, "record", reading.record(i) + reading.label(i))[:16].hex() for i in range(len(reading.data.y))
    ]


def patient_mark(secret: bytes, patient: str) -> str:
    """A patient's id, so that a list of those left out names nobody."""
    return keyed(secret, "patient", patient.encode(errors="surrogatepass"))[:16].hex()


@dataclass(frozen=True)
class Commitment:
    """Salts and tree over one version's records.

    Args:
        secret: the site's.
        nonce: of this version (`nonce_of`): another version of the same data has other salts, so a record that was
            opened once tells nothing about a later version.
    """

    secret: bytes
    nonce: bytes

    @staticmethod
    def over(secret: bytes, name: str, record_marks: Sequence[str]) -> "Commitment":
        """The commitment of data set ``name`` with these records: the same records give the same salts."""
        return Commitment(secret, keyed(secret, "version", json.dumps([name, *record_marks]).encode()))

    def salt(self, index: int) -> bytes:
        """32 bytes for the leaf at ``index``."""
        return keyed(self.secret, "salt", self.nonce + index.to_bytes(8, "big"))

    def leaves(self, reading: Reading) -> list[bytes]:
        """Leaf hashes, in order: SHA-256(0x00 || salt || record || label)."""
        return [
            merkle.leaf_hash(self.salt(i) + reading.record(i) + reading.label(i)) for i in range(len(reading.data.y))
        ]

    def prove(self, reading: Reading, index: int, facts: JsonObject, opened: bool) -> JsonObject:
        """The inclusion proof of the record at ``index``, for JSON.

        Args:
            facts: what to name in it (data set, version).
            opened: with salt, record and label, so that whoever holds the proof sees the record and can check that it
                is that one. Without, the proof names a hash that the site alone can open.
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
        if opened:
            parts = {"salt": self.salt(index), "record": reading.record(index), "label": reading.label(index)}
            proof["opened"] = {name: base64.b64encode(value).decode() for name, value in parts.items()}
        return proof


def verify_proof(proof: JsonObject, root: str | None = None) -> JsonObject | None:
    """Check a proof of `Commitment.prove`; needs nothing of the site.

    Args:
        proof: as read from JSON.
        root: the Merkle root the site gave before, in hex; None: the proof's own, which shows only that it fits itself.

    Returns:
        header and label of the record where the proof opens it, else None.

    Raises:
        DataError: what does not fit.
    """
    try:
        if proof["schema"] != SCHEMA:
            raise DataError(f"the proof is '{proof['schema']}', this fedimb reads {SCHEMA}")
        head, leaf = bytes.fromhex(proof["root"]), bytes.fromhex(proof["leaf"])
        path = [bytes.fromhex(beside) for beside in proof["path"]]
        opened = {name: base64.b64decode(text, validate=True) for name, text in proof.get("opened", {}).items()}
        if root is not None and bytes.fromhex(root) != head:
            raise DataError(f"the proof is of root {proof['root'][:16]}..., not of {root[:16]}...: of another version")
        if not merkle.included(leaf, int(proof["index"]), int(proof["size"]), path, head):
            raise DataError("the path does not lead from the record's hash to the root: the proof was changed")
        if not opened:
            return None
        record, label = opened["record"], opened["label"]
        if len(opened["salt"]) != merkle.SIZE or merkle.leaf_hash(opened["salt"] + record + label) != leaf:
            raise DataError("the opened record is not the one that was hashed: the proof was changed")
        header = json.loads(record[8 : 8 + int.from_bytes(record[:8], "big")])
        return {**header, "label": json.loads(label)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"this is no inclusion proof of fedimb ({type(error).__name__}: {error})") from error


def read_proof(path: Path) -> JsonObject:
    """A proof's file. DataError when it is missing or no JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a proof: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no proof")
    return found
