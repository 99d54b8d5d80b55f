"""A coordinator's folder and nodes of it, on free ports of loopback."""

import socket
from pathlib import Path

from fedimb.deploy.coordinator.creation import create_deployment
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.joining import JoinFile
from fedimb.deploy.pki import fingerprint
from fedimb.deploy.site.identity import init_node


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, all different."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def make_deployment(root: Path, host: str = "localhost") -> Deployment:
    """A deployment in ``root``, reached at ``host``."""
    port, superlink_port = free_ports(2)
    return create_deployment(root, "heart", host, port, superlink_port)


def make_node(deployment: Deployment, root: Path, contact: str = "Dr. Jürgen Müller") -> JoinFile:
    """A node's folder for the deployment; its site is called as the folder."""
    ca, address = deployment.file("ca.crt"), (deployment.config.host, deployment.config.port)
    return init_node(root, root.name, address, ca, fingerprint(ca.read_bytes()), contact)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
