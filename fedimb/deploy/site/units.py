"""What a site is given to run on real machines: a systemd unit and node.yaml with every setting shown."""

import json
from pathlib import Path

from fedimb.deploy.units import place, render


def node_unit(root: Path) -> str:
    """A node's systemd unit, run as whoever made the folder."""
    return render("node.service.tmpl", **place(root))


def node_yaml(site: str, host: str, port: int, ca_fingerprint: str) -> str:
    """A new node's settings, every one that can be made shown as a comment with its default."""
    words = {"site": site, "host": json.dumps(host, ensure_ascii=False), "port": port}
    return render("node.yaml.tmpl", fingerprint=json.dumps(ca_fingerprint), **words)
