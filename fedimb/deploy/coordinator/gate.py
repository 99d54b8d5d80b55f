"""The gate: answers nginx, before a message's body is read, whether a registered site signed its headers.

Flower's SuperNode sends its public key, the time, and its signature over that time with every call
(flwr.supernode.node_auth_http_interceptor). The SuperLink checks them only after it has read and parsed the whole body,
so without this gate a stranger fills its memory. nginx asks here with `auth_request`, over a socket in the deployment's
private folder: 204 lets the message through, 401 refuses it with the reason in the header ``gate-reason``.

The sites are those of ``sites/``, read again when that folder changes: one that is added or removed is known at once.
"""

import asyncio
import base64
import contextlib
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedimb.deploy.joining import read_join
from fedimb.errors import ConfigError

SOCKET = ("state", "gate.sock")
"""Where the gate listens, in the deployment's folder. nginx and the gate name it from there: a complete path may be
longer than the 107 bytes that the name of a socket can have.
"""
PUBLIC_KEY, TIMESTAMP, SIGNATURE = "flwr-public-key", "flwr-timestamp", "flwr-signature"
OLDEST_S, AHEAD_S = 305.0, 5.0
"""A signature's age, and how far a site's clock may be ahead: as the SuperLink has it (Flower 1.41)."""
UNKNOWN = "this key is not registered here"

_MOST_BYTES = 16384  # nginx has limited the headers before
_SETTLED_S = 2.0  # a folder that changed later than this before it was read may change again within the same tick


def header_key(public_line: str) -> str:
    """A site's public key as Flower's node sends it in a header: base64 of its PEM.

    Args:
        public_line: the key in OpenSSH format, as in a join file.
    """
    key = serialization.load_ssh_public_key(public_line.encode())
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(pem).decode("ascii")


class Gate:
    """Checks the signed headers of one deployment's sites.

    Args:
        sites: the folder with their join files, which have the keys.
    """

    def __init__(self, sites: Path) -> None:
        self._folder = sites
        self._keys: dict[str, tuple[str, ec.EllipticCurvePublicKey]] = {}
        self._read, self._changed = -1.0, -1

    def refusal(self, headers: Mapping[str, str], now: float) -> str | None:
        """Why a message with these headers is not let through, in ASCII without quotes; None if it is.

        Args:
            headers: by name in lower case.
            now: seconds since 1970.
        """
        stamp = headers.get(TIMESTAMP, "")
        if not (stamp and headers.get(SIGNATURE) and headers.get(PUBLIC_KEY)):
            return "the message is not signed by a node"
        known = self._sites().get(headers[PUBLIC_KEY])
        if known is None:
            return UNKNOWN
        try:
            known[1].verify(
                base64.b64decode(headers[SIGNATURE], validate=True), stamp.encode("ascii"), ec.ECDSA(hashes.SHA256())
            )
            age = now - _seconds(stamp)
        except (InvalidSignature, ValueError):
            return "the signature is not this key's"
        if age >= OLDEST_S:
            return f"this node's clock is {age:.0f} s behind the coordinator's, or the message is that old"
        if age <= -AHEAD_S:
            return f"this node's clock is {-age:.0f} s ahead of the coordinator's; at most {AHEAD_S:.0f} s are allowed"
        return None

    def _sites(self) -> dict[str, tuple[str, ec.EllipticCurvePublicKey]]:
        """(site, key) by the header that carries the key."""
        changed = self._folder.stat().st_mtime_ns
        if changed != self._changed or self._read - changed / 1e9 < _SETTLED_S:
            self._read, self._changed = time.time(), changed
            self._keys = _registered_keys(self._folder)
        return self._keys


def _registered_keys(folder: Path) -> dict[str, tuple[str, ec.EllipticCurvePublicKey]]:
    """Keys of all join files. One that cannot be read keeps out its own site only, with a line in the log."""
    found: dict[str, tuple[str, ec.EllipticCurvePublicKey]] = {}
    for path in sorted(folder.glob("*.join.json")):
        try:
            join = read_join(path)
        except ConfigError as error:
            print(f"{path.name} was left out: {error}", flush=True)
            continue
        key = serialization.load_ssh_public_key(join.public_key.encode())
        assert isinstance(key, ec.EllipticCurvePublicKey)  # read_join refuses others
        found[header_key(join.public_key)] = (join.site, key)
    return found


def _seconds(stamp: str) -> float:
    """A timestamp with its offset, as seconds since 1970. Raises ValueError if it is not one."""
    time_there = datetime.fromisoformat(stamp)
    if time_there.tzinfo is None:
        raise ValueError("no offset")
    return (time_there - datetime.fromtimestamp(0, UTC)).total_seconds()


async def serve(root: Path) -> None:
    """Answer nginx until the process is ended.

    Args:
        root: the deployment's folder, and the working folder: see `SOCKET`.
    """
    gate = Gate(root / "sites")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                writer.write(_reply(gate.refusal(_headers(await reader.readuntil(b"\r\n\r\n")), time.time())))
                await writer.drain()
        writer.close()

    place = Path(*SOCKET)
    server = await asyncio.start_unix_server(answer, place, limit=_MOST_BYTES)
    place.chmod(0o600)
    async with server:
        await server.serve_forever()


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {
        name.strip().lower(): value.strip() for name, found, value in (one.partition(":") for one in lines) if found
    }


def _reply(refusal: str | None) -> bytes:
    if refusal is None:
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    return f"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\ngate-reason: {refusal}\r\n\r\n".encode("ascii")


def main(root: str) -> None:
    """Entry point of the gate's process, started in the deployment's folder by `fedimb.deploy.coordinator.servers`."""
    os.umask(0o077)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Path(root)))


if __name__ == "__main__":
    main(sys.argv[1])
