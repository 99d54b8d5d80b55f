"""How the deployment is: are the servers up, which sites are there, what is about to expire.
Exit code 0: up and nothing to do; 1: down, or something needs a person.

  fedimb deploy status"""

import argparse

from fedimb.cli.deploy.folder import add_folder, opened

LINE = "servers, sites, certificates: how the deployment is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    add_folder(parser)


def run(args: argparse.Namespace) -> int:
    """Print it; 0 or 1."""
    from fedimb.deploy.coordinator.creation import warnings
    from fedimb.deploy.coordinator.registration import nodes, registered
    from fedimb.deploy.coordinator.sites import joined
    from fedimb.deploy.coordinator.superlink import healthy
    from fedimb.deploy.pki import expires, fingerprint, format_fingerprint

    deployment = opened(args)
    config, up = deployment.config, healthy(deployment)
    at = nodes(deployment) if up else {}
    told = registered(deployment)
    print(f"{config.name}: {'up' if up else 'down (fedimb deploy up)'}, sites reach {config.host}:{config.port}")
    print(f"fingerprint of ca.crt: {format_fingerprint(fingerprint(deployment.file('ca.crt').read_bytes()))}")
    for name in ("ca.crt", "server.pem"):
        print(f"{name} holds until {expires(deployment.file(name).read_bytes()):%Y-%m-%dT%H:%MZ}")
    for site, join in joined(deployment).items():
        node = at.get(told.get(site, {}).get("node_id", ""), {})
        state = node.get("status", "not registered" if up else "unknown while down")
        since = {"online": node.get("online-at"), "offline": node.get("offline-at")}.get(state)
        when = f" since {since.replace(' ', 'T')}" if since else ""
        print(f"  {site:<24} {state}{when}  {join.contact}".rstrip())
    if not deployment.sites():
        print("  no site yet: fedimb deploy add-site SITE.join.json")
    troubles = warnings(deployment)
    for line in troubles:
        print(f"warning: {line}")
    return 0 if up and not troubles else 1
