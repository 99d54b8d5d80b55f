"""Checks of an engine's settings and its cluster, made before work begins. Does not import ray."""

import contextlib
import os
import socket
from collections.abc import Sequence

from fedimb.config.engine_settings import split_address
from fedimb.errors import ConfigError

_PATIENCE_S = 5.0


def check_address(address: str) -> None:
    """Raise ConfigError unless a Ray head may be listening at host:port: Ray itself would keep trying for minutes.

    A head speaks gRPC over HTTP/2, whose server begins with a SETTINGS frame (RFC 9113, sections 3.4 and 6.5);
    Ray's dashboard and most other servers do not. With TLS (``RAY_USE_TLS=1``) only the port is tried.
    """
    try:
        with socket.create_connection(split_address(address), timeout=_PATIENCE_S) as connection:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
            first_frame = connection.recv(9, socket.MSG_WAITALL)
    except (TimeoutError, ConnectionResetError) as error:
        raise _no_head(address) from error
    except OSError as error:
        raise ConfigError(f"engine.address={address}: no Ray cluster answers there ({error})") from error
    if len(first_frame) < 9 or first_frame[3] != 4:
        raise _no_head(address)


def _no_head(address: str) -> ConfigError:
    return ConfigError(
        f"engine.address={address}: no Ray head answers there; give the head's own port (6379 as a rule), not that of "
        "its dashboard (8265)"
    )


def same_cluster(address: str, running: str) -> bool:
    """Whether two host:port addresses name the same cluster; this machine's name stands for all of its addresses."""
    (host, port), (other, other_port) = split_address(address), split_address(running)
    return port == other_port and bool(_addresses(host) & _addresses(other))


def _addresses(host: str) -> set[str]:
    try:
        found = set(socket.gethostbyname_ex(host)[2])
    except OSError:
        return {host}
    own = {"127.0.0.1"}
    with contextlib.suppress(OSError):  # a machine that cannot resolve its own name still has its loopback address
        own |= set(socket.gethostbyname_ex(socket.gethostname())[2])
    return found | own if found & own else found


def check_gpus(gpus_per_worker: float) -> None:
    """Raise ConfigError if workers need a GPU and this machine has none: Ray would wait for one forever.

    For a private head only; on a cluster the GPUs of the other machines count (`worker_count`).
    """
    if not gpus_per_worker:
        return
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            f"engine.gpus_per_worker={gpus_per_worker:g}: torch finds no GPU on this machine; set it to 0, or give "
            "engine.address of a cluster that has GPUs"
        )


def worker_slots(nodes: Sequence[dict[str, float]], gpus_per_worker: float) -> int:
    """How many workers of one CPU and ``gpus_per_worker`` fit; counted per machine, as a GPU cannot span two.

    Args:
        nodes: resources of each machine, ``{"CPU": 8.0, "GPU": 1.0, ...}``.
    """
    total = 0
    for node in nodes:
        fit = int(node.get("CPU", 0))
        if gpus_per_worker:
            gpus = int(node.get("GPU", 0))
            whole = gpus_per_worker >= 1
            fit = min(fit, gpus // int(gpus_per_worker) if whole else gpus * int(1 / gpus_per_worker + 1e-9))
        total += fit
    return total


def worker_count(wanted: int | None, nodes: Sequence[dict[str, float]], gpus_per_worker: float) -> int:
    """Workers to start: ``wanted``, or as many as there is room for.

    Raises:
        ConfigError: more are wanted than fit, so some would never start; the message names the resources found.
    """
    room = worker_slots(nodes, gpus_per_worker)
    if room >= (wanted or 1):
        return wanted or room
    cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    found = f"{len(nodes)} machine{'s' * (len(nodes) != 1)} with {cpus:g} CPUs and {gpus:g} GPUs"
    share = f" at engine.gpus_per_worker={gpus_per_worker:g}" if gpus_per_worker else ""
    raise ConfigError(
        f"engine.workers={'null' if wanted is None else wanted}: Ray has {found}, room for {room}{share}; "
        "ask for fewer, or leave engine.workers=null" + (", or lower engine.gpus_per_worker" if share else "")
    )


def why_died(error: BaseException) -> str:
    """One line on why a worker process ended, with a remedy; most often its machine ran out of memory."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if getattr(error, "actor_init_failed", False):  # its constructor raised: the last line says what
        return f"the same fedimb must be installed on every machine of the cluster ({lines[-1]})"
    return (
        "its machine may have run out of memory: use fewer engine.workers, a smaller local.batch_size or a smaller "
        f"model (Ray says: {type(error).__name__}: {lines[0]})"
    )
