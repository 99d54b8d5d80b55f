"""What fedimb writes out for people and for other programs: systemd units, node.yaml, README. Source: ours."""

import getpass
import json
import string
import sys
from importlib import resources
from pathlib import Path

from fedimb.deploy.deployment import DeployConfig
from fedimb.deploy.pki import spoken


class _At(string.Template):
    """``@name`` is replaced; ``$`` is nginx's and the shell's."""

    delimiter = "@"


def render(name: str, /, **words: object) -> str:
    """The template ``name`` (a file of fedimb/deploy/templates) with every ``@word`` replaced."""
    text = resources.files("fedimb.deploy.templates").joinpath(name).read_text("utf-8")
    return _At(text).substitute({key: str(value) for key, value in words.items()})


def unit_name(config: DeployConfig) -> str:
    """The file name of the coordinator's systemd unit."""
    return f"fedimb-{config.name}.service"


def deploy_unit(config: DeployConfig, root: Path) -> str:
    """The coordinator's systemd unit, run as whoever made the folder; a port below 1024 gets the one right it needs."""
    capability = "CAP_NET_BIND_SERVICE"
    below = f"AmbientCapabilities={capability}\nCapabilityBoundingSet={capability}\n" if config.port < 1024 else ""
    return render("deploy.service.tmpl", name=config.name, unit=unit_name(config), capabilities=below, **_place(root))


def node_unit(root: Path) -> str:
    """A node's systemd unit, run as whoever made the folder."""
    return render("node.service.tmpl", **_place(root))


def node_yaml(site: str, host: str, port: int, ca_fingerprint: str) -> str:
    """A new node's settings, every one that can be made shown as a comment with its default."""
    words = {"site": site, "host": json.dumps(host, ensure_ascii=False), "port": port}
    return render("node.yaml.tmpl", fingerprint=json.dumps(ca_fingerprint), **words)


def deployment_readme(config: DeployConfig, ca_fingerprint: str) -> str:
    """The steps for real machines, with this deployment's addresses."""
    words = config.model_dump() | {"unit": unit_name(config), "fingerprint": spoken(ca_fingerprint)}
    return render("deployment.md.tmpl", **words)


def _place(root: Path) -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "fedimb"
    command = str(Path(sys.executable).parent / "fedimb")
    return {"user": user, "fedimb": _in_quotes(command), "root": _in_quotes(str(root))}


def _in_quotes(path: str) -> str:
    """A path as systemd reads it between double quotes."""
    return path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
