"""``fedimb deploy``: the coordinator's commands.

Study plans and runs are in `fedimb.cli.deploy_runs`, a second machine in `fedimb.cli.deploy_standby`.
"""

import argparse
from typing import TYPE_CHECKING

from fedimb.cli.deploy_dossier import DossierAction
from fedimb.cli.deploy_runs import Demo, Plan, Run
from fedimb.cli.deploy_standby import Standby, TakeOver
from fedimb.cli.places import add_deployment, open_deployment
from fedimb.cli.verbs import Action, register_actions

if TYPE_CHECKING:
    from fedimb.cli.output.coordinator import (
        BundleWritten,
        CertificateRenewed,
        DeploymentCreated,
        DeploymentStatus,
        SiteChanged,
    )
    from fedimb.cli.verbs import Verbs
    from fedimb.deploy.coordinator.deployment import Deployment

_ABOUT = """\
Coordinate hospital nodes: certificates, sites, study plans, servers, runs (docs/coordinator.md)."""


class Init(Action):
    """Create a deployment's folder: certificate authority, server certificate, settings, nginx configuration, a systemd
    unit, and a README with the steps for real machines.

      fedimb deploy init heart-study --host fl.example.org
      fedimb deploy init heart-study --host 10.1.2.3 --port 443 --to /srv/heart-study

    Read the fingerprint that it prints out to every site, by telephone, so that they know the authority is yours.
    """

    name = "init"
    line = "create a deployment's folder: certificates, settings, systemd unit, README"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("name", metavar="NAME", help="a-z, 0-9 and '-', as in heart-study")
        parser.add_argument("--host", required=True, metavar="H", help="name or IP address that sites connect to")
        parser.add_argument(
            "--port", type=int, default=9443, metavar="P", help="the only port that sites need (default: 9443)"
        )
        parser.add_argument(
            "--superlink-port",
            type=int,
            default=9092,
            metavar="P",
            help="port of Flower's SuperLink on 127.0.0.1 (default: 9092)",
        )
        parser.add_argument("--to", metavar="DIR", help="the new folder (default: ./NAME)")

    @staticmethod
    def run(args: argparse.Namespace) -> "DeploymentCreated":
        """Create it, and print the fingerprint and what to do next."""
        import shlex
        from pathlib import Path

        from fedimb.cli.output.coordinator import DeploymentCreated
        from fedimb.deploy.coordinator.creation import create_deployment
        from fedimb.deploy.pki import fingerprint, format_fingerprint, key_fingerprint

        root = Path(args.to or args.name).expanduser().absolute()
        deployment = create_deployment(root, args.name, args.host, args.port, args.superlink_port)
        config, place = deployment.config, shlex.quote(str(root))
        digest = format_fingerprint(fingerprint(deployment.file("ca.crt").read_bytes()))
        signs = key_fingerprint(deployment.signing_key().encode(), "sign.key")
        print(
            f"{root} is the folder of deployment {config.name}. Keep ca.key in it secret.\n\n"
            f"Fingerprint of ca.crt, to read out to each site by telephone:\n  {digest}\n\n"
            f"Fingerprint of sign.key, which signs your messages; sites compare it when they approve a plan:\n"
            f"  {signs}\n\n"
            f"Next, here (README.md has every step):\n"
            f"  fedimb deploy up --deployment {place}\n"
            f"At each site, with your ca.crt:\n"
            f"  fedimb node init SITE --host {config.host} --port {config.port} --ca ca.crt "
            f"--fingerprint 'FINGERPRINT'\n"
            f"Then, here, with what the site sends back:\n"
            f"  fedimb deploy add-site SITE.join.json --deployment {place}"
        )
        return DeploymentCreated(
            name=config.name,
            folder=str(root),
            fingerprint=digest,
            signing_key_fingerprint=signs,
            host=config.host,
            port=config.port,
        )


class Up(Action):
    """Run the coordinator's two servers until Ctrl-C: Flower's SuperLink on 127.0.0.1, and nginx in front of it. nginx
    forwards the calls a node makes and answers 403 to everything else. Sites that are added while it runs can connect
    at once; sites added before are registered at the start. Start and watch runs on this machine, or over ssh.

      fedimb deploy up
      ssh -L 9092:127.0.0.1:9092 coordinator.example.org    the SuperLink's port, for an administrator elsewhere

    To run it as a service, use the unit file in the folder (see README.md there).
    """

    name = "up"
    line = "run the servers (SuperLink on loopback, nginx in front of it) until Ctrl-C"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Run both. Returns 0 after Ctrl-C or SIGTERM; raises RunFailed if one of them stops on its own."""
        import signal
        import threading

        from fedimb.deploy.coordinator.creation import expiry_warnings
        from fedimb.deploy.coordinator.nginx import limit_warnings, limits_line
        from fedimb.deploy.coordinator.servers import Servers
        from fedimb.errors import RunFailed

        deployment, stop = open_deployment(args), threading.Event()
        for line in [*expiry_warnings(deployment), *limit_warnings(deployment)]:
            print(f"warning: {line}", flush=True)
        before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
        config = deployment.config
        print(f"{config.name}: starting; about 10 s", flush=True)
        try:
            with Servers(deployment) as servers:
                for line in servers.site_lines:
                    print(line, flush=True)
                print(f"sites     https://{config.host}:{config.port}  (only the calls a node makes)")
                print(f"SuperLink https://127.0.0.1:{config.superlink_port}  (this machine only)")
                print(f"limits    {limits_line(deployment)}")
                print(f"added     {', '.join(deployment.sites()) or 'no sites yet'}")
                print(f"logs      {deployment.file('logs')}; Ctrl-C stops both", flush=True)
                while not stop.wait(1.0):
                    if trouble := servers.ended():
                        raise RunFailed(trouble)
                    servers.rotate_logs()
                print("stopping both", flush=True)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return 0


class Status(Action):
    """Show the state of the deployment: servers, sites, and what is about to expire.
    Exit code 0: up and nothing to do; 1: down, or something needs attention.

      fedimb deploy status
    """

    name = "status"
    line = "state of servers, sites and certificates"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "DeploymentStatus":
        """Print the state. The exit code is 1 if it is down or something needs attention."""
        from fedimb.cli.output.coordinator import DeploymentStatus, SiteStatus
        from fedimb.deploy.coordinator.creation import expiry_warnings
        from fedimb.deploy.coordinator.registration import list_nodes, registered_sites
        from fedimb.deploy.coordinator.sites import joined_sites
        from fedimb.deploy.coordinator.standby import is_standby, read_mark
        from fedimb.deploy.coordinator.superlink import healthy
        from fedimb.deploy.pki import expires, fingerprint, format_fingerprint

        deployment = open_deployment(args, standby=True)
        config, up = deployment.config, healthy(deployment)
        known = list_nodes(deployment) if up else {}
        registered = registered_sites(deployment)
        digest = format_fingerprint(fingerprint(deployment.file("ca.crt").read_bytes()))
        valid = {
            name: f"{expires(deployment.file(name).read_bytes()):%Y-%m-%dT%H:%MZ}" for name in ("ca.crt", "server.pem")
        }
        sites = []
        for site, join in joined_sites(deployment).items():
            node = known.get(registered.get(site, {}).get("node_id", ""), {})
            state = node.get("status", "not registered" if up else "unknown while down")
            since = {"online": node.get("online-at"), "offline": node.get("offline-at")}.get(state)
            when = since.replace(" ", "T") if since else None
            sites.append(SiteStatus(site=site, state=state, since=when, contact=join.contact))
        troubles = expiry_warnings(deployment)
        if is_standby(deployment):
            mark = read_mark(deployment)
            troubles = [f"a standby of the deployment on {mark['host']}, copied {mark['copied']}", *troubles]
        status = DeploymentStatus(
            name=config.name,
            up=up,
            host=config.host,
            port=config.port,
            fingerprint=digest,
            valid_until=valid,
            sites=sites,
            warnings=list(troubles),
            exit_code=0 if up and not troubles else 1,
        )
        if not args.json:
            print_status(status)
        return status


class AddSite(Action):
    """Add a site, with the join file it sent. No other site's file changes, and the servers may be running.

      fedimb deploy add-site st-anna.join.json

    Compare the key's fingerprint that it prints with what the site's engineer reads out: only this proves whose key it
    is.
    """

    name = "add-site"
    line = "add a site, with the join file it sent"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("join", metavar="SITE.join.json", help="what fedimb node init wrote at the site")
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "SiteChanged":
        """Add the site, register it if the SuperLink is running, and print what to compare."""
        from pathlib import Path

        from fedimb import __version__
        from fedimb.deploy.coordinator.sites import add_site
        from fedimb.deploy.joining import read_join

        deployment, join = open_deployment(args), read_join(Path(args.join).expanduser())
        add_site(deployment, join)
        print(f"{join.site} takes part. Contact: {join.contact or '(none given)'}")
        print(f"Fingerprint of its key, to compare by telephone: {join.key_fingerprint}")
        if join.fedimb != __version__:
            print(
                f"Note: it has fedimb {join.fedimb}, here is {__version__}; fedimb node check at the site shows "
                "whether it matters."
            )
        return _changed("added", join.site, join.key_fingerprint, join.contact, bring_up_to_date(deployment))


class RemoveSite(Action):
    """Remove a site: its key is no longer valid. Runs it took part in keep their records, and no other site's file
    changes. Flower accepts a key only once: to come back, the site makes a new one (fedimb node rotate).

      fedimb deploy remove-site st-anna
    """

    name = "remove-site"
    line = "remove a site"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("site", metavar="SITE", help="the site's name")
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "SiteChanged":
        """Remove the site, also from a running SuperLink."""
        from fedimb.deploy.coordinator.sites import remove_site

        deployment = open_deployment(args)
        remove_site(deployment, args.site)
        print(f"{args.site} no longer takes part.")
        return _changed("removed", args.site, None, "", bring_up_to_date(deployment))


class Rotate(Action):
    """Replace a site's key with the one in its new join file, which fedimb node rotate wrote at the site. Do this
    between runs: the site is away until its node is restarted with the new key. No other site's file changes.

      fedimb deploy rotate st-anna st-anna.join.json
    """

    name = "rotate"
    line = "replace a site's key with the one in its new join file"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("site", metavar="SITE", help="the site's name")
        parser.add_argument("join", metavar="SITE.join.json", help="the new join file")
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "SiteChanged":
        """Replace the key, also in a running SuperLink."""
        from pathlib import Path

        from fedimb.deploy.coordinator.sites import rotate_key
        from fedimb.deploy.joining import read_join
        from fedimb.errors import ConfigError

        deployment, join = open_deployment(args), read_join(Path(args.join).expanduser())
        if join.site != args.site:
            raise ConfigError(
                f"{args.join} is of site '{join.site}', not '{args.site}': give the file of the site you mean"
            )
        rotate_key(deployment, join)
        print(f"{join.site} has a new key; fingerprint to compare by telephone: {join.key_fingerprint}")
        print("Plans that list its old key no longer run: make new ones (fedimb deploy plan) for the sites to approve.")
        return _changed("rotated", join.site, join.key_fingerprint, join.contact, bring_up_to_date(deployment))


class Renew(Action):
    """Make a new server certificate from the same authority, for the host in deploy.yaml. Sites have nothing to do.
    This is needed once a year (there is a warning 30 days before) and after a change of the host. Afterwards, restart
    fedimb deploy up.

      fedimb deploy renew
    """

    name = "renew"
    line = "make a new server certificate from the same authority; sites have nothing to do"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "CertificateRenewed":
        """Rewrite server.key and server.pem."""
        from fedimb.cli.output.coordinator import CertificateRenewed
        from fedimb.deploy.coordinator.creation import renew_certificate
        from fedimb.deploy.pki import expires

        deployment = open_deployment(args)
        renew_certificate(deployment)
        end = expires(deployment.file("server.pem").read_bytes())
        print(f"server.pem is valid until {end:%Y-%m-%dT%H:%MZ}. Restart fedimb deploy up (or the service) to use it.")
        return CertificateRenewed(valid_until=f"{end:%Y-%m-%dT%H:%MZ}")


class Bundle(Action):
    """Write everything a node needs into one tar, for a hospital whose machines cannot reach a package index.

    The tar contains fedimb's wheel and all its dependencies in the versions installed here, with checksums, a table of
    licences, and install.sh, which needs neither root nor a network. The hospital needs the same Python (3.x) and the
    same kind of machine as this one; its C library must not be older.

      fedimb deploy bundle --to /media/usb
      fedimb deploy bundle --extra dicom          with what DICOM images need
      fedimb deploy bundle --without torch        where the hospital has its own, for its graphics card
    """

    name = "bundle"
    line = "write a tar of wheels for installing nodes offline"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("--to", default=".", metavar="DIR", help="output folder (default: the working folder)")
        parser.add_argument(
            "--extra", action="append", default=[], metavar="NAME", help="extra of fedimb to include; repeatable"
        )
        parser.add_argument(
            "--without", action="append", default=[], metavar="PACKAGE", help="package to leave out; repeatable"
        )
        parser.add_argument("--wheel", metavar="FILE", help="fedimb's own wheel (default: built from the installation)")

    @staticmethod
    def run(args: argparse.Namespace) -> "BundleWritten":
        """Run the action."""
        from pathlib import Path

        from fedimb.cli.output.coordinator import BundleWritten
        from fedimb.deploy.offline import write_bundle

        wheel = Path(args.wheel) if args.wheel else None
        made = write_bundle(Path(args.to), args.extra, args.without, wheel, say=lambda line: print(line, flush=True))
        print(f"{made} ({made.stat().st_size / 1e6:.0f} MB): unpack it at the hospital and run ./install.sh")
        return BundleWritten(file=str(made), bytes=made.stat().st_size)


def print_status(status: "DeploymentStatus") -> None:
    """Print the state of a deployment."""
    state = "up" if status.up else "down (fedimb deploy up)"
    print(f"{status.name}: {state}, sites reach {status.host}:{status.port}")
    print(f"fingerprint of ca.crt: {status.fingerprint}")
    for name, end in status.valid_until.items():
        print(f"{name} is valid until {end}")
    for one in status.sites:
        when = f" since {one.since}" if one.since else ""
        print(f"  {one.site:<24} {one.state}{when}  {one.contact}".rstrip())
    if not status.sites:
        print("  no sites yet: add one with fedimb deploy add-site SITE.join.json")
    for line in status.warnings:
        print(f"warning: {line}")


def _changed(change: str, site: str, fingerprint: str | None, contact: str, updated: bool) -> "SiteChanged":
    from fedimb.cli.output.coordinator import SiteChanged

    return SiteChanged(site=site, change=change, key_fingerprint=fingerprint, contact=contact, servers_updated=updated)


def bring_up_to_date(deployment: "Deployment") -> bool:
    """Update a running SuperLink and print the changes. If none is running, say when they take effect.

    Returns:
        whether one is running.
    """
    from fedimb.deploy.coordinator import nginx
    from fedimb.deploy.coordinator.registration import reconcile
    from fedimb.deploy.coordinator.superlink import healthy
    from fedimb.errors import FedimbError

    if not healthy(deployment):
        print("The servers are down: this takes effect at the next fedimb deploy up.")
        return False
    for line in reconcile(deployment):
        print(line)
    try:
        nginx.reload(deployment)
    except FedimbError as error:  # the gate knows the sites all the same
        print(f"warning: until the next fedimb deploy up, new sites share a stranger's limits: {error}")
    return True


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    actions = (Init, Up, Status, AddSite, RemoveSite, Rotate, Renew, Bundle, Plan, Run, DossierAction, Demo)
    register_actions(verbs, "deploy", _ABOUT, (*actions, Standby, TakeOver))
