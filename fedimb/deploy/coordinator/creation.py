"""Create a deployment's folder; make and renew its certificates, and warn before they expire."""

import contextlib
import ipaddress
from pathlib import Path

import yaml

from fedimb.deploy.coordinator import units
from fedimb.deploy.coordinator.deployment import DeployConfig, Deployment
from fedimb.deploy.files import new_folder, parse_settings, refuse_readable, write_private
from fedimb.deploy.pki import expiry_warning, fingerprint, make_ca, server_certificate
from fedimb.errors import ConfigError


def create_deployment(root: Path, name: str, host: str, port: int, superlink_port: int) -> Deployment:
    """Create a deployment's folder: authority, server certificate, deploy.yaml, systemd unit, README.

    Args:
        root: the folder; must not exist.
        name: the deployment's name; a-z, 0-9 and '-'.
        host: name or IP address that sites use to reach this machine.
        port: port on which nginx listens.
        superlink_port: port on which the SuperLink listens, on 127.0.0.1.

    Raises:
        ConfigError: the folder exists, or a value is not valid.
    """
    if root.exists():
        raise ConfigError(f"{root} already exists, nothing was changed: give another folder with --to")
    settings = {"name": name, "host": host, "port": port, "superlink_port": superlink_port}
    config = parse_settings(settings, DeployConfig, "deploy.yaml")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host.strip("[]")).version == 6:
            raise ConfigError(f"host: {host}: nginx listens on IPv4 only; give a name or an IPv4 address")
    if port == superlink_port:
        raise ConfigError(f"port and superlink_port are both {port}: nginx and the SuperLink need different ports")
    ca = make_ca(name)
    server = server_certificate(
        ca, _hosts(config)
    )  # before the folder is made, so that a wrong host leaves nothing behind
    with new_folder(root):
        _fill(Deployment(root), config, ca, server)
    return Deployment.open(root)


def _fill(deployment: Deployment, config: DeployConfig, ca: tuple[bytes, bytes], server: tuple[bytes, bytes]) -> None:
    root = deployment.root
    write_private(root / "ca.key", ca[0])
    refuse_readable(root / "ca.key")  # a file system without modes (a mounted share) would show here
    (root / "ca.crt").write_bytes(ca[1])
    _write_server(deployment, server)
    deployment.signing_key()
    for folder in ("sites", "state", "logs"):
        deployment.folder(folder)
    (root / "README.md").write_text(units.deployment_readme(config, fingerprint(ca[1])), encoding="utf-8")
    (root / units.unit_name(config)).write_text(units.deploy_unit(config, root), encoding="utf-8")
    about = (
        "# Where sites reach nginx (host, port), and SuperLink's port, which listens on 127.0.0.1 only.\n"
        "# limits: what nginx lets through (docs/coordinator.md); calls_per_s: null is an equal share for each site.\n"
        "# Restart fedimb deploy up after a change.\n"
    )
    text = about + yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)
    (root / "deploy.yaml").write_text(text, encoding="utf-8")  # last: this file makes the folder a deployment


def renew_certificate(deployment: Deployment) -> None:
    """Make a new server key and certificate for the host in deploy.yaml. Sites do not have to do anything.

    Raises:
        ConfigError: ca.key is missing, readable by others, or does not match ca.crt.
    """
    key = deployment.file("ca.key")
    if not key.is_file():
        raise ConfigError(f"{key} does not exist: copy it back from where you keep it, for this one command")
    refuse_readable(key)
    ca = (key.read_bytes(), deployment.file("ca.crt").read_bytes())
    _write_server(deployment, server_certificate(ca, _hosts(deployment.config)))


def expiry_warnings(deployment: Deployment) -> list[str]:
    """One line for each certificate that expires within 30 days, with what to do."""
    remedies = {
        "server.pem": "fedimb deploy renew, then restart fedimb deploy up",
        "ca.crt": "an authority cannot be renewed: make a new deployment (fedimb deploy init) and have every site "
        "join it",
    }
    lines = [expiry_warning(deployment.file(name), remedy) for name, remedy in remedies.items()]
    return [line for line in lines if line is not None]


def _hosts(config: DeployConfig) -> list[str]:
    """The public name, and loopback, where nginx and this machine's own commands reach the SuperLink."""
    return [config.host, "localhost", "127.0.0.1"]


def _write_server(deployment: Deployment, server: tuple[bytes, bytes]) -> None:
    write_private(deployment.file("server.key"), server[0])
    deployment.file("server.pem").write_bytes(server[1])
