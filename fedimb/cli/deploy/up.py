"""Run the coordinator's two servers until Ctrl-C: Flower's SuperLink on 127.0.0.1, and nginx before it. It lets sites
reach the calls a node makes and answers 403 to everything else. Sites added meanwhile are let in at once; those added
before are registered now. Starting and looking at runs is done on this machine, or through ssh to it.

  fedimb deploy up
  ssh -L 9092:127.0.0.1:9092 coordinator.example.org    the SuperLink's port, for an administrator elsewhere

As a service: the unit file in the folder (README.md says how)."""

import argparse

from fedimb.cli.deploy.folder import add_folder, opened

LINE = "run the servers (SuperLink on loopback, nginx before it) until Ctrl-C"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    add_folder(parser)


def run(args: argparse.Namespace) -> int:
    """Run both; returns 0 after Ctrl-C or SIGTERM, raises RunFailed when one of them ends by itself."""
    import signal
    import threading

    from fedimb.deploy.coordinator.creation import warnings
    from fedimb.deploy.coordinator.servers import Servers
    from fedimb.errors import RunFailed

    deployment, stop = opened(args), threading.Event()
    for line in warnings(deployment):
        print(f"warning: {line}", flush=True)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    config = deployment.config
    print(f"{config.name}: starting; about 10 s", flush=True)
    try:
        with Servers(deployment) as servers:
            for line in servers.joined:
                print(line, flush=True)
            print(f"sites     https://{config.host}:{config.port}  (only the calls a node makes)")
            print(f"SuperLink https://127.0.0.1:{config.superlink_port}  (this machine only)")
            print(f"added     {', '.join(deployment.sites()) or 'no site yet'}")
            print(f"logs      {deployment.file('logs')}; Ctrl-C ends both", flush=True)
            while not stop.wait(1.0):
                if trouble := servers.ended():
                    raise RunFailed(trouble)
            print("ending both", flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
