"""What a coordinator is given to run on real machines: a systemd unit and the steps in a README."""

from pathlib import Path

from fedimb.deploy.coordinator.deployment import DeployConfig
from fedimb.deploy.pki import format_fingerprint
from fedimb.deploy.units import place, render


def unit_name(config: DeployConfig) -> str:
    """The file name of the coordinator's systemd unit."""
    return f"fedimb-{config.name}.service"


def deploy_unit(config: DeployConfig, root: Path) -> str:
    """The coordinator's systemd unit, run as whoever made the folder; a port below 1024 gets the one right it needs."""
    capability = "CAP_NET_BIND_SERVICE"
    below = f"AmbientCapabilities={capability}\nCapabilityBoundingSet={capability}\n" if config.port < 1024 else ""
    return render("deploy.service.tmpl", name=config.name, unit=unit_name(config), capabilities=below, **place(root))


def deployment_readme(config: DeployConfig, ca_fingerprint: str) -> str:
    """The steps for real machines, with this deployment's addresses."""
    words = config.model_dump() | {"unit": unit_name(config), "fingerprint": format_fingerprint(ca_fingerprint)}
    return render("deployment.md.tmpl", **words)
