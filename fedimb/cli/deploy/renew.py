"""A new server certificate from the same authority, for the host in deploy.yaml. Sites notice nothing. Needed once a
year (announced 30 days before), and after the host was changed. Restart fedimb deploy up afterwards.

  fedimb deploy renew"""

import argparse

from fedimb.cli.deploy.folder import add_folder, opened

LINE = "a new server certificate from the same authority; sites notice nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    add_folder(parser)


def run(args: argparse.Namespace) -> None:
    """Write server.key and server.pem anew."""
    from fedimb.deploy.coordinator.creation import renew
    from fedimb.deploy.pki import expires

    deployment = opened(args)
    renew(deployment)
    end = expires(deployment.file("server.pem").read_bytes())
    print(f"server.pem holds until {end:%Y-%m-%dT%H:%MZ}. Restart fedimb deploy up (or the service) to show it.")
