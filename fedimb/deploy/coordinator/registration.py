"""Which sites the running SuperLink knows: brought to what the coordinator's folder says.

``sites/SITE.join.json`` says who should take part, ``sites/SITE.registered.json`` whom the SuperLink was told of. One
function, `reconcile`, makes the second follow the first; it is safe to repeat and to interrupt. Flower never takes a
key twice: one that was unregistered cannot come back (its database keeps keys unique).
"""

import json

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.sites import joined
from fedimb.deploy.coordinator.superlink import CONNECTION, flwr
from fedimb.deploy.joining import JoinFile
from fedimb.errors import ConfigError, RunFailed
from fedimb.plain import JsonObject

_GONE = "unregistered"


def register(deployment: Deployment, site: str) -> str:
    """Tell the running SuperLink a site's key; returns Flower's node id for it.

    Raises:
        ConfigError: the key was registered before and cannot come back.
        RunFailed: the SuperLink said no.
    """
    join = joined(deployment)[site]
    key = deployment.folder("state") / f"{site}.pub"
    key.write_text(join.public_key + "\n", encoding="ascii")
    try:
        answer = flwr(deployment, "supernode", "register", str(key), CONNECTION, "--name", site)
    except RunFailed as error:
        if "already in use" in str(error).lower():
            raise ConfigError(
                f"{site}: Flower takes a key once, and this one ({join.key_fingerprint}) was registered before. At the "
                f"site: fedimb node rotate; here: fedimb deploy rotate with the new join file"
            ) from None
        raise
    finally:
        key.unlink()
    record = {"node_id": str(answer["node-id"]), "key": join.key_fingerprint}
    path = deployment.file("sites", f"{site}.registered.json")
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record["node_id"]


def registered(deployment: Deployment) -> dict[str, dict[str, str]]:
    """``{site: {"node_id", "key"}}``: whom the SuperLink was told of, by these files."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(deployment.file("sites").glob("*.registered.json")):
        found[path.name.removesuffix(".registered.json")] = json.loads(path.read_text("utf-8"))
    return found


def nodes(deployment: Deployment) -> dict[str, JsonObject]:
    """What the running SuperLink says of each node, by node id: ``status`` registered, online or offline, times in UTC.

    Nodes that were unregistered are left out.
    """
    listed = flwr(deployment, "supernode", "list", CONNECTION)["nodes"]
    return {node["node-id"]: node for node in listed if node["status"] != _GONE}


def reconcile(deployment: Deployment) -> list[str]:
    """Bring the running SuperLink to what the folder says; returns one line per change or problem.

    A site whose key cannot be registered is told of in its line and keeps nobody else out.
    """
    known, told, want = nodes(deployment), registered(deployment), joined(deployment)
    lines: list[str] = []
    for site, record in told.items():
        if _current(record, want.get(site)) and record["node_id"] in known:
            continue
        if record["node_id"] in known:
            flwr(deployment, "supernode", "unregister", record["node_id"], CONNECTION)
            lines.append(f"{site}: its old key no longer counts" if site in want else f"{site}: left")
        deployment.file("sites", f"{site}.registered.json").unlink()
    for stranger in sorted(known.keys() - {record["node_id"] for record in told.values()}):
        lines.append(f"problem: the SuperLink knows node {stranger}, which is no site of this folder")
    for site in sorted(want.keys() - registered(deployment).keys()):
        try:
            register(deployment, site)
        except ConfigError as error:
            lines.append(f"problem: {error}")
        else:
            lines.append(f"{site}: registered")
    return lines


def _current(record: dict[str, str], join: JoinFile | None) -> bool:
    return join is not None and record["key"] == join.key_fingerprint
