"""Files for running a coordinator on a real machine: a systemd unit, and a README with the steps."""

from pathlib import Path

from fedimb.deploy.coordinator.deployment import DeployConfig
from fedimb.deploy.pki import format_fingerprint
from fedimb.deploy.units import place, render


def unit_name(config: DeployConfig) -> str:
    """The file name of the coordinator's systemd unit."""
    return f"fedimb-{config.name}.service"


def deploy_unit(config: DeployConfig, root: Path) -> str:
    """The coordinator's systemd unit, run as the user who made the folder.

    A port below 1024 gets CAP_NET_BIND_SERVICE.
    """
    capability = "CAP_NET_BIND_SERVICE"
    below = f"AmbientCapabilities={capability}\nCapabilityBoundingSet={capability}\n" if config.port < 1024 else ""
    return render("deploy.service.tmpl", name=config.name, unit=unit_name(config), capabilities=below, **place(root))


def deployment_readme(config: DeployConfig, ca_fingerprint: str) -> str:
    """README with the steps for real machines, using this deployment's addresses."""
    words = config.model_dump() | {"unit": unit_name(config), "fingerprint": format_fingerprint(ca_fingerprint)}
    return render("deployment.md.tmpl", **words)
