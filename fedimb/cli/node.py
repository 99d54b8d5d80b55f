"""``fedimb node``: commands run at a hospital. Inbox, approvals and audit are in `fedimb.cli.node_decisions`."""

import argparse
import time
from typing import TYPE_CHECKING

from fedimb.cli.node_decisions import Approve, Audit, Inbox, Papers, Reject
from fedimb.cli.node_ledger import LedgerAction
from fedimb.cli.places import add_home
from fedimb.cli.verbs import Action, register_actions

if TYPE_CHECKING:
    from fedimb.cli.output.site import (
        DataListing,
        DataRegistered,
        DataVerified,
        DataWithdrawn,
        KeyRotated,
        NodeChecked,
        NodeCreated,
        NodeStatus,
        ProofChecked,
        ProofWritten,
    )
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Run a hospital's node: its key, its data, its approvals, and the process that takes part in runs. Run these commands at
the hospital. The node's folder is --home DIR, else $FEDIMB_NODE_HOME, else the working folder (docs/hospital.md)."""


class Init(Action):
    """Create this site's node: its key, which is generated here and never leaves, its settings, and the join file for
    the coordinator. Before you start, get ca.crt from the coordinator, and ask them for its fingerprint by telephone.

      fedimb node init st-anna --host fl.example.org --port 9443 --ca ca.crt --fingerprint "3f2a 91..." \
          --contact "Dr. Jürgen Müller, +49 30 1234"

    Afterwards, send SITE.join.json (it contains no secret) and read the key's fingerprint out to the coordinator.
    """

    name = "init"
    line = "create this site's node: key, settings, join file"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("site", metavar="SITE", help="the site's name: a-z, 0-9 and '-', as in st-anna")
        parser.add_argument("--host", required=True, metavar="H", help="the coordinator's name or IP address")
        parser.add_argument("--port", type=int, required=True, metavar="P", help="the coordinator's port")
        parser.add_argument("--ca", required=True, metavar="FILE", help="the coordinator's ca.crt")
        parser.add_argument(
            "--fingerprint", required=True, metavar="HEX", help="fingerprint of ca.crt, as it was read out to you"
        )
        parser.add_argument("--contact", default="", metavar="TEXT", help="whom the coordinator may call")
        parser.add_argument("--to", metavar="DIR", help="the new folder (default: ./SITE)")

    @staticmethod
    def run(args: argparse.Namespace) -> "NodeCreated":
        """Create the node, and print what to send and what to do next."""
        import shlex
        from pathlib import Path

        from fedimb.cli.output.site import NodeCreated
        from fedimb.deploy.site.identity import init_node

        root = Path(args.to or args.site).expanduser().absolute()
        ca, place = Path(args.ca).expanduser(), shlex.quote(str(root))
        join = init_node(root, args.site, (args.host, args.port), ca, args.fingerprint, args.contact)
        print(
            f"{root} is the folder of {join.site}'s node. It contains the key, which stays there.\n\n"
            f"Send to the coordinator:  {root / (join.site + '.join.json')}\n"
            f"Read out to them:         {join.key_fingerprint}\n\n"
            f"Next: set in {root / 'node.yaml'} what may leave the site and what resources the node may use; then\n"
            f"  fedimb node data add PATH --name NAME --tags TAG --home {place}\n"
            f"  fedimb node check --home {place}\n"
            f"  fedimb node run --home {place}"
        )
        return NodeCreated(
            site=join.site,
            folder=str(root),
            join_file=str(root / f"{join.site}.join.json"),
            key_fingerprint=join.key_fingerprint,
        )


class Data(Action):
    """Register data that this site offers to studies, by tag. The files stay where they are and are never edited.

      fedimb node data add /data/heart.csv --name heart --tags heart-disease --patient-column pid target=diagnosis
      fedimb node data add /data/heart.csv --name heart --tags heart-disease --like heart.yaml
      fedimb node data list
      fedimb node data verify heart                     check that every record is as it was registered
      fedimb node data prove heart 17 --to proof.json   prove that row 17 is included
      fedimb node data verify-proof proof.json --root 1c8f...
      fedimb node data withdraw heart --ids ids.txt --then stop

    docs/registered-data.md explains what a version proves, and what a withdrawal does and does not do.
    """

    name = "data"
    line = "register data for studies; verify them, prove records, withdraw patients"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        home = argparse.ArgumentParser(add_help=False)
        add_home(home)
        actions = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

        add = actions.add_parser("add", help="read a data set completely and register it", parents=[home])
        add.set_defaults(handler=_add_data)
        add.add_argument("path", metavar="PATH", help="table, .npz, folder or .zip")
        add.add_argument(
            "words", nargs="*", metavar="key=value", help="settings of the source, as for fedimb data check"
        )
        add.add_argument("--name", required=True, help="name of the data set; an existing name gets a new version")
        add.add_argument(
            "--tags", required=True, action="append", metavar="A,B,...", help="tags by which plans select the data set"
        )
        add.add_argument("--source", metavar="NAME", help="source that reads it (default: guessed from the file)")
        add.add_argument(
            "--like", metavar="FILE", help="read it like this data group (the coordinator's YAML, or an installed one)"
        )
        add.add_argument(
            "--patient-column",
            metavar="COLUMN",
            help="column with patients' ids: patients are never split, and are withdrawn by id",
        )
        add.add_argument("--classes", metavar="A,B,...", help="class names, in the study's order")
        add.add_argument(
            "--can-record",
            metavar="A,...",
            help="classes without any rows that this site would record if it saw a case",
        )

        listing = actions.add_parser(
            "list", help="list registered data sets and the runs that use them", parents=[home]
        )
        listing.set_defaults(handler=_list_data)
        verify = actions.add_parser("verify", help="read all records again and compare", parents=[home])
        verify.set_defaults(handler=_verify_data)
        verify.add_argument("name", nargs="?", metavar="NAME", help="default: all")

        prove = actions.add_parser("prove", help="prove that a record is in the registered version", parents=[home])
        prove.set_defaults(handler=_prove_data)
        prove.add_argument("name", metavar="NAME")
        prove.add_argument("record", metavar="RECORD", help="row number, or place as in 'a.csv row 17' or cat/p1.png")
        prove.add_argument(
            "--open",
            action="store_true",
            help="include the record itself, with label and patient's id: only for people who may see it",
        )
        prove.add_argument("--to", metavar="FILE", help="output file (default: the terminal)")

        check = actions.add_parser("verify-proof", help="check a proof; works without a node")
        check.set_defaults(handler=_verify_proof_data)
        check.add_argument("file", metavar="FILE")
        check.add_argument("--root", metavar="HEX", help="the Merkle root that the site published")

        withdraw = actions.add_parser("withdraw", help="remove patients from now on", parents=[home])
        withdraw.set_defaults(handler=_withdraw_data)
        withdraw.add_argument("name", metavar="NAME")
        withdraw.add_argument(
            "--ids",
            required=True,
            metavar="FILE",
            help="file with patients' ids, one per line; without a patient column, rows",
        )
        withdraw.add_argument(
            "--then",
            choices=("stop", "continue", "retrain"),
            default="stop",
            help="runs that used them: stop (default), continue without them, or retrain: only a new run from round 0",
        )


def _add_data(args: argparse.Namespace) -> "DataRegistered":
    from fedimb.cli import registered

    return registered.add_data(args)


def _list_data(args: argparse.Namespace) -> "DataListing":
    from fedimb.cli import registered

    return registered.list_data(args)


def _verify_data(args: argparse.Namespace) -> "DataVerified":
    from fedimb.cli import registered

    return registered.verify_data(args)


def _prove_data(args: argparse.Namespace) -> "ProofWritten":
    from fedimb.cli import registered

    return registered.prove_data(args)


def _verify_proof_data(args: argparse.Namespace) -> "ProofChecked":
    from fedimb.cli import registered

    return registered.verify_proof_data(args)


def _withdraw_data(args: argparse.Namespace) -> "DataWithdrawn":
    from fedimb.cli import registered

    return registered.withdraw_data(args)


class Check(Action):
    """Check whether this node can take part: data, versions, key, disk, proxy, coordinator and clock. Starts nothing.

      fedimb node check                       all checks that need no study plan
      fedimb node check --plan plan.json      also whether the data fit the study: do this before approving
      fedimb node check --json                output for a monitoring system

    All records are read again, which takes a while with many images. Exit code 0, or 2 if a line says fail: such a node
    does not train.
    """

    name = "check"
    line = "check whether this node can take part: data, versions, key, disk, network, clock"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("--plan", metavar="FILE", help="plan.json from the coordinator")
        add_home(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "NodeChecked":
        """Print the results."""
        from fedimb.cli.output.site import NodeChecked
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.check import all_pass, node_checks, open_plan, report

        home = NodeHome.open(args.home)
        found = []
        for check in node_checks(home, None if args.plan is None else open_plan(args.plan)):
            found.append(check)
            if not args.json:
                remedy = f": {check.remedy}" if check.remedy else ""
                print(f"{check.level:<4}  {check.name:<16}  {' '.join(check.found.split())}{remedy}", flush=True)
        return NodeChecked.model_validate(report(home, found) | {"exit_code": 0 if all_pass(found) else 2})


class Run(Action):
    """Run this site's node, in the foreground, until it is asked to stop (Ctrl-C, SIGTERM).

    Starts Flower's SuperNode behind a guard that runs only the fedimb installed here, restarts it if it dies (after 65
    seconds: the coordinator takes up to 60 to notice), and stops and starts it at the hours and days in node.yaml. For
    its state, see fedimb node status; its log is logs/supernode.log in the node's folder.

      fedimb node run --home ~/st-anna

    To run it as a service, use fedimb-node.service in the node's folder, which fedimb node init wrote.

    Exit code 0: it was asked to stop. 2: a person must act first (the message says what). 1: with --once, it failed.
    """

    name = "run"
    line = "run the node until asked to stop"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        add_home(parser)
        parser.add_argument("--once", action="store_true", help="start the process once, and exit when it ends")
        parser.add_argument(
            "--restart-after",
            type=float,
            default=65.0,
            metavar="S",
            help="seconds before restarting a process that died (default: 65)",
        )

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Run the action."""
        import logging

        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.node_process import Timings
        from fedimb.deploy.site.observe import preflight
        from fedimb.deploy.site.supervisor import Supervisor

        home = NodeHome.open(args.home)
        handler = logging.StreamHandler()
        lines = logging.Formatter(f"%(asctime)sZ {home.site}: %(message)s", "%Y-%m-%dT%H:%M:%S")
        lines.converter = time.gmtime
        handler.setFormatter(lines)
        logger = logging.getLogger("fedimb.node")
        logger.addHandler(handler)
        logger.propagate = False
        try:
            notices = preflight(home)
            for notice in notices:
                logger.warning("%s", notice)
            return Supervisor(home, Timings(restart_s=args.restart_after), notices=notices).run(once=args.once)
        finally:
            logger.removeHandler(handler)
            logger.propagate = True


class Status(Action):
    """Show the state of this site's node: what it is doing, since when, and what will need attention.

    Exit code 0: it takes part, or is absent by plan. 1: it needs attention (it is waiting for a person or for the
    coordinator, a certificate expires soon, or the disk is nearly full). 2: it does not take part. The node's folder
    has the same facts in status.json and, for node_exporter's textfile collector, in node.prom.
    """

    name = "status"
    line = "state of the node; exit code 0 healthy, 1 needs attention, 2 not taking part"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        add_home(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "NodeStatus":
        """Run the action."""
        import time
        from dataclasses import asdict

        from fedimb.cli.output.site import NodeStatus
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.status import judge, read_status

        found = read_status(NodeHome.open(args.home))
        code, line = judge(found, time.time())
        status = NodeStatus.model_validate(asdict(found) | {"judgement": line, "exit_code": code})
        if args.json:
            return status
        from fedimb.text import aligned

        last, size = found.message or {}, found.disk
        held = "" if size.get("limit") is None else f" of {size['limit'] / 1e9:g}"  # type: ignore[operator]
        rows = [
            (found.site, line),
            ("coordinator", f"connected since {found.connected}" if found.connected else "not connected"),
            ("last message", f"{last['time']} {last['type']}, {last['outcome']}" if last else "none yet"),
            ("last round", str(last.get("round") if last.get("round") is not None else "none yet")),
            ("restarts", str(found.restarts)),
            ("waiting for you", str(found.inbox)),
            ("certificate expires", found.certificate or "unknown"),
            ("disk", f"{(size.get('used') or 0) / 1e9:.2f}{held} GB used, {(size.get('free') or 0) / 1e9:.1f} GB free"),
            ("version", f"fedimb {found.fedimb}, Flower {found.flower}"),
            *(("warning", warning) for warning in found.warnings),
        ]
        print("\n".join(aligned(rows, left=2)))
        return status


class Rotate(Action):
    """Make a new key and a new join file for this node. The old key is deleted: a running node keeps using it until
    it is restarted. It can connect again after the coordinator has run fedimb deploy rotate with the new join file.

      fedimb node rotate
    """

    name = "rotate"
    line = "make a new key and a new join file"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        add_home(parser)
        parser.add_argument("--contact", metavar="TEXT", help="whom the coordinator may call (default: unchanged)")

    @staticmethod
    def run(args: argparse.Namespace) -> "KeyRotated":
        """Replace key, key.pub and SITE.join.json."""
        from fedimb.cli.output.site import KeyRotated
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.joining import read_join
        from fedimb.deploy.site.identity import new_identity

        home = NodeHome.open(args.home)
        before = home.file(f"{home.site}.join.json")
        contact = args.contact if args.contact is not None else read_join(before).contact if before.is_file() else ""
        join = new_identity(home.root, home.site, contact)
        print(f"Send to the coordinator:  {before}\nRead out to them:         {join.key_fingerprint}")
        print("After they have run fedimb deploy rotate with it, restart fedimb node run.")
        return KeyRotated(site=home.site, join_file=str(before), key_fingerprint=join.key_fingerprint)


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    actions = (Init, Data, Check, Run, Status, Rotate, Inbox, Approve, Reject, Audit, LedgerAction, Papers)
    register_actions(verbs, "node", _ABOUT, actions)
