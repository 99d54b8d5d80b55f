"""Keep the sites that the running SuperLink knows in step with the coordinator's folder.

``sites/SITE.join.json`` says which sites should take part, ``sites/SITE.registered.json`` which ones the SuperLink was
told about. `reconcile` makes the second match the first; it is safe to repeat and to interrupt. Flower accepts a key
only once: a key that was unregistered cannot be registered again (its database keeps keys unique).
"""

import json

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.sites import joined_sites
from fedimb.deploy.coordinator.superlink import CONNECTION, flwr
from fedimb.deploy.joining import JoinFile
from fedimb.errors import ConfigError, RunFailed
from fedimb.plain import JsonObject

_GONE = "unregistered"


def register_site(deployment: Deployment, site: str) -> str:
    """Register a site's key at the running SuperLink. Returns Flower's node id for it.

    Raises:
        ConfigError: the key was registered before and cannot come back.
        RunFailed: the SuperLink refused.
    """
    join = joined_sites(deployment)[site]
    key = deployment.folder("state") / f"{site}.pub"
    key.write_text(join.public_key + "\n", encoding="ascii")
    try:
        answer = flwr(deployment, "supernode", "register", str(key), CONNECTION, "--name", site)
    except RunFailed as error:
        if "already in use" in str(error).lower():
            raise ConfigError(
                f"{site}: Flower accepts a key only once, and this one ({join.key_fingerprint}) was registered before: "
                f"run fedimb node rotate at the site, then fedimb deploy rotate here with the new join file"
            ) from None
        raise
    finally:
        key.unlink()
    record = {"node_id": str(answer["node-id"]), "key": join.key_fingerprint}
    path = deployment.file("sites", f"{site}.registered.json")
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record["node_id"]


def registered_sites(deployment: Deployment) -> dict[str, dict[str, str]]:
    """``{site: {"node_id", "key"}}``: the sites that the SuperLink was told about, according to the folder."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(deployment.file("sites").glob("*.registered.json")):
        found[path.name.removesuffix(".registered.json")] = json.loads(path.read_text("utf-8"))
    return found


def list_nodes(deployment: Deployment) -> dict[str, JsonObject]:
    """What the running SuperLink reports about each node, by node id.

    ``status`` is registered, online or offline; times are UTC. Unregistered nodes are left out.
    """
    listed = flwr(deployment, "supernode", "list", CONNECTION)["nodes"]
    return {node["node-id"]: node for node in listed if node["status"] != _GONE}


def reconcile(deployment: Deployment) -> list[str]:
    """Update the running SuperLink to match the folder. Returns one line per change or problem.

    A site whose key cannot be registered gets a line of its own and does not affect the other sites.
    """
    known, told, want = list_nodes(deployment), registered_sites(deployment), joined_sites(deployment)
    lines: list[str] = []
    for site, record in told.items():
        if _current(record, want.get(site)) and record["node_id"] in known:
            continue
        if record["node_id"] in known:
            flwr(deployment, "supernode", "unregister", record["node_id"], CONNECTION)
            lines.append(f"{site}: its old key is no longer valid" if site in want else f"{site}: removed")
        deployment.file("sites", f"{site}.registered.json").unlink()
    for stranger in sorted(known.keys() - {record["node_id"] for record in told.values()}):
        lines.append(f"problem: the SuperLink knows node {stranger}, which is not a site of this folder")
    for site in sorted(want.keys() - registered_sites(deployment).keys()):
        try:
            register_site(deployment, site)
        except ConfigError as error:
            lines.append(f"problem: {error}")
        else:
            lines.append(f"{site}: registered")
    return lines


def _current(record: dict[str, str], join: JoinFile | None) -> bool:
    return join is not None and record["key"] == join.key_fingerprint
