"""Files for running a node on a real machine: a systemd unit, and node.yaml with all settings."""

import json
from pathlib import Path

from fedimb.deploy.units import place, render


def node_unit(root: Path) -> str:
    """A node's systemd unit, run as the user who made the folder."""
    return render("node.service.tmpl", **place(root))


def node_yaml(site: str, host: str, port: int, ca_fingerprint: str) -> str:
    """node.yaml of a new node; all optional settings are shown as comments with their defaults."""
    words = {"site": site, "host": json.dumps(host, ensure_ascii=False), "port": port}
    return render("node.yaml.tmpl", fingerprint=json.dumps(ca_fingerprint), **words)
