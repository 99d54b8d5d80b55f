"""``fedimb deploy``: the coordinator's side of hospital nodes; plans and runs are in `fedimb.cli.deploy_runs`."""

import argparse
from typing import TYPE_CHECKING

from fedimb.cli.deploy_runs import Demo, Plan, Run
from fedimb.cli.places import add_deployment, open_deployment
from fedimb.cli.verbs import Action, register_actions

if TYPE_CHECKING:
    from fedimb.cli.verbs import Verbs
    from fedimb.deploy.coordinator.deployment import Deployment

_ABOUT = """\
The coordinator's side of hospital nodes: certificates, sites, study plans, the servers, runs (docs/coordinator.md)."""


class Init(Action):
    """Make a deployment's folder: certificate authority, server certificate with its names, settings, nginx's
    configuration, a systemd unit, and a README with the steps for real machines.

      fedimb deploy init heart-study --host fl.example.org
      fedimb deploy init heart-study --host 10.1.2.3 --port 443 --to /srv/heart-study

    Read the fingerprint it prints to every site, by telephone: with it they know the authority is yours.
    """

    name = "init"
    line = "make a deployment's folder: certificates, settings, units, README"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        parser.add_argument("name", metavar="NAME", help="a-z, 0-9 and '-', as in heart-study")
        parser.add_argument("--host", required=True, metavar="H", help="name or IP address under which sites reach it")
        parser.add_argument(
            "--port", type=int, default=9443, metavar="P", help="the one port sites need (default 9443)"
        )
        parser.add_argument(
            "--superlink-port",
            type=int,
            default=9092,
            metavar="P",
            help="Flower's SuperLink, on 127.0.0.1 (default 9092)",
        )
        parser.add_argument("--to", metavar="DIR", help="the new folder (default: ./NAME)")

    @staticmethod
    def run(args: argparse.Namespace) -> None:
        """Make it, and print the fingerprint and what to do next."""
        import shlex
        from pathlib import Path

        from fedimb.deploy.coordinator.creation import create_deployment
        from fedimb.deploy.pki import fingerprint, format_fingerprint

        root = Path(args.to or args.name).expanduser().absolute()
        deployment = create_deployment(root, args.name, args.host, args.port, args.superlink_port)
        config, place = deployment.config, shlex.quote(str(root))
        digest = format_fingerprint(fingerprint(deployment.file("ca.crt").read_bytes()))
        print(
            f"{root} is the folder of {config.name}. Keep ca.key in it secret.\n\n"
            f"Fingerprint of ca.crt, to be read out to each site by telephone:\n  {digest}\n\n"
            f"Next, here (README.md has every step):\n"
            f"  fedimb deploy up --deployment {place}\n"
            f"At each site, with your ca.crt:\n"
            f"  fedimb node init SITE --host {config.host} --port {config.port} --ca ca.crt "
            f"--fingerprint 'FINGERPRINT'\n"
            f"Then, here, with what the site sends back:\n"
            f"  fedimb deploy add-site SITE.join.json --deployment {place}"
        )


class Up(Action):
    """Run the coordinator's two servers until Ctrl-C: Flower's SuperLink on 127.0.0.1, and nginx before it. It lets
    sites reach the calls a node makes and answers 403 to everything else. Sites added meanwhile are let in at once;
    those added before are registered now. Starting and looking at runs is done on this machine, or through ssh to it.

      fedimb deploy up
      ssh -L 9092:127.0.0.1:9092 coordinator.example.org    the SuperLink's port, for an administrator elsewhere

    As a service: the unit file in the folder (README.md says how).
    """

    name = "up"
    line = "run the servers (SuperLink on loopback, nginx before it) until Ctrl-C"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Run both; returns 0 after Ctrl-C or SIGTERM, raises RunFailed when one of them ends by itself."""
        import signal
        import threading

        from fedimb.deploy.coordinator.creation import warnings
        from fedimb.deploy.coordinator.servers import Servers
        from fedimb.errors import RunFailed

        deployment, stop = open_deployment(args), threading.Event()
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


class Status(Action):
    """How the deployment is: are the servers up, which sites are there, what is about to expire.
    Exit code 0: up and nothing to do; 1: down, or something needs a person.

      fedimb deploy status
    """

    name = "status"
    line = "servers, sites, certificates: how the deployment is"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Print it; 0 or 1."""
        from fedimb.deploy.coordinator.creation import warnings
        from fedimb.deploy.coordinator.registration import nodes, registered
        from fedimb.deploy.coordinator.sites import joined
        from fedimb.deploy.coordinator.superlink import healthy
        from fedimb.deploy.pki import expires, fingerprint, format_fingerprint

        deployment = open_deployment(args)
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


class AddSite(Action):
    """Take a site in, with the join file it sent. No other site's file changes, and the servers may be running.

      fedimb deploy add-site st-anna.join.json

    Compare the key's fingerprint it prints with what the site's engineer reads out: only then is the key the site's.
    """

    name = "add-site"
    line = "take a site in, with the join file it sent"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        parser.add_argument("join", metavar="SITE.join.json", help="what fedimb node init wrote at the site")
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> None:
        """Add it, register it where the SuperLink runs, print what to compare."""
        from pathlib import Path

        from fedimb import __version__
        from fedimb.deploy.coordinator.sites import add_site
        from fedimb.deploy.joining import read_join

        deployment, join = open_deployment(args), read_join(Path(args.join).expanduser())
        add_site(deployment, join)
        print(f"{join.site} takes part. Contact: {join.contact or '(none given)'}")
        print(f"Its key, to be compared by telephone: {join.key_fingerprint}")
        if join.fedimb != __version__:
            print(
                f"Note: it has fedimb {join.fedimb}, here is {__version__}; fedimb node check there says if it matters."
            )
        bring_up_to_date(deployment)


class RemoveSite(Action):
    """Leave a site out from now on: its key no longer counts. Runs it took part in keep their records, and no other
    site's file changes. Flower takes a key once: to come back, the site makes a new one (fedimb node rotate).

      fedimb deploy remove-site st-anna
    """

    name = "remove-site"
    line = "leave a site out from now on"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        parser.add_argument("site", metavar="SITE", help="its name")
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> None:
        """Remove it, and have a running SuperLink forget it."""
        from fedimb.deploy.coordinator.sites import remove_site

        deployment = open_deployment(args)
        remove_site(deployment, args.site)
        print(f"{args.site} no longer takes part.")
        bring_up_to_date(deployment)


class Rotate(Action):
    """Replace a site's key by the one in its new join file (fedimb node rotate wrote it at the site). Do it between
    runs: the site is away from now until its node was restarted with the new key. No other site's file changes.

      fedimb deploy rotate st-anna st-anna.join.json
    """

    name = "rotate"
    line = "replace a site's key by the one in its new join file"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        parser.add_argument("site", metavar="SITE", help="its name")
        parser.add_argument("join", metavar="SITE.join.json", help="the new join file")
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> None:
        """Replace it, at a running SuperLink too."""
        from pathlib import Path

        from fedimb.deploy.coordinator.sites import rotate
        from fedimb.deploy.joining import read_join
        from fedimb.errors import ConfigError

        deployment, join = open_deployment(args), read_join(Path(args.join).expanduser())
        if join.site != args.site:
            raise ConfigError(f"{args.join} is of site '{join.site}', not of '{args.site}': which one is meant?")
        rotate(deployment, join)
        print(f"{join.site} has a new key, to be compared by telephone: {join.key_fingerprint}")
        bring_up_to_date(deployment)


class Renew(Action):
    """A new server certificate from the same authority, for the host in deploy.yaml. Sites notice nothing. Needed once
    a year (announced 30 days before), and after the host was changed. Restart fedimb deploy up afterwards.

      fedimb deploy renew
    """

    name = "renew"
    line = "a new server certificate from the same authority; sites notice nothing"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> None:
        """Write server.key and server.pem anew."""
        from fedimb.deploy.coordinator.creation import renew
        from fedimb.deploy.pki import expires

        deployment = open_deployment(args)
        renew(deployment)
        end = expires(deployment.file("server.pem").read_bytes())
        print(f"server.pem holds until {end:%Y-%m-%dT%H:%MZ}. Restart fedimb deploy up (or the service) to show it.")


class Bundle(Action):
    """Write everything a node needs into one tar, for a hospital whose machines reach no package index.

    The tar holds fedimb's wheel and the exact versions of all it needs, as installed here, with checksums, a table of
    licences, and install.sh, which needs neither root nor a network. The hospital's machine needs the same Python (3.x)
    and the same kind of machine as this one; its C library must not be older.

      fedimb deploy bundle --to /media/usb
      fedimb deploy bundle --extra dicom          with what DICOM images need
      fedimb deploy bundle --without torch        where the hospital has its own, for its graphics card
    """

    name = "bundle"
    line = "write a tar of wheels for nodes without a package index"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Options of the action."""
        parser.add_argument("--to", default=".", metavar="DIR", help="folder it is written into (the working folder)")
        parser.add_argument(
            "--extra", action="append", default=[], metavar="NAME", help="an extra of fedimb; repeatable"
        )
        parser.add_argument("--without", action="append", default=[], metavar="PACKAGE", help="leave out; repeatable")
        parser.add_argument(
            "--wheel", metavar="FILE", help="fedimb's own wheel (default: made from where it is installed)"
        )

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Run the action."""
        from pathlib import Path

        from fedimb.deploy.offline import write_bundle

        wheel = Path(args.wheel) if args.wheel else None
        made = write_bundle(Path(args.to), args.extra, args.without, wheel, say=lambda line: print(line, flush=True))
        print(f"{made} ({made.stat().st_size / 1e6:.0f} MB): unpack it at the hospital and run ./install.sh")
        return 0


def bring_up_to_date(deployment: "Deployment") -> None:
    """Tell a running SuperLink what changed, and print what came of it; without one, say when it will be told."""
    from fedimb.deploy.coordinator.registration import reconcile
    from fedimb.deploy.coordinator.superlink import healthy

    if not healthy(deployment):
        print("The servers are down: this takes effect with the next fedimb deploy up.")
        return
    for line in reconcile(deployment):
        print(line)


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    actions = (Init, Up, Status, AddSite, RemoveSite, Rotate, Renew, Bundle, Plan, Run, Demo)
    register_actions(verbs, "deploy", _ABOUT, actions)
