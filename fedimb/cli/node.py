"""``fedimb node``: a hospital's node, at the hospital; what people there decide is in `fedimb.cli.node_decisions`."""

import argparse
import time
from typing import TYPE_CHECKING

from fedimb.cli.node_decisions import Approve, Audit, Inbox, Reject
from fedimb.cli.verbs import Action, register_actions

if TYPE_CHECKING:
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
A hospital's node: its key, its data, what it agrees to, and the process that takes part. Run at the hospital; each
action works on the node's folder: --home DIR, else $FEDIMB_NODE_HOME, else the working folder (docs/hospital.md)."""


class Init(Action):
    """Make this site's node: its key, which is born here and never leaves, its settings, and the join file for the
    coordinator. Before: get ca.crt from the coordinator, and its fingerprint from them by telephone.

      fedimb node init st-anna --host fl.example.org --port 9443 --ca ca.crt --fingerprint "3f2a 91..." \
          --contact "Dr. Jürgen Müller, +49 30 1234"

    Afterwards: send SITE.join.json (it holds no secret), and read the key's fingerprint out to the coordinator.
    """

    name = "init"
    line = "make this site's node: key, settings, join file"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        parser.add_argument("site", metavar="SITE", help="its name: a-z, 0-9 and '-', as in st-anna")
        parser.add_argument("--host", required=True, metavar="H", help="the coordinator's name or IP address")
        parser.add_argument("--port", type=int, required=True, metavar="P", help="the coordinator's port")
        parser.add_argument("--ca", required=True, metavar="FILE", help="the coordinator's ca.crt")
        parser.add_argument("--fingerprint", required=True, metavar="HEX", help="of ca.crt, as it was read out to you")
        parser.add_argument("--contact", default="", metavar="TEXT", help="whom the coordinator may call")
        parser.add_argument("--to", metavar="DIR", help="the new folder (default: ./SITE)")

    @staticmethod
    def run(args: argparse.Namespace) -> None:
        """Make it, and print what to send and what to do next."""
        import shlex
        from pathlib import Path

        from fedimb.deploy.site.identity import init_node

        root = Path(args.to or args.site).expanduser().absolute()
        ca, place = Path(args.ca).expanduser(), shlex.quote(str(root))
        join = init_node(root, args.site, (args.host, args.port), ca, args.fingerprint, args.contact)
        print(
            f"{root} is {join.site}'s node. Its key is in it and stays there.\n\n"
            f"Send to the coordinator:  {root / (join.site + '.join.json')}\n"
            f"Read out to them:         {join.key_fingerprint}\n\n"
            f"Next: decide in {root / 'node.yaml'} what may leave and what the node may use; then\n"
            f"  fedimb node data add PATH --name NAME --tags TAG --home {place}\n"
            f"  fedimb node check --home {place}\n"
            f"  fedimb node run --home {place}"
        )


class Data(Action):
    """Registered data: what this site offers to studies, by tag. The files stay where they are and are never edited.

      fedimb node data add /data/heart.csv --name heart --tags heart-disease --patient-column pid target=diagnosis
      fedimb node data add /data/heart.csv --name heart --tags heart-disease --like heart.yaml
      fedimb node data list
      fedimb node data verify heart                     is every record as it was registered?
      fedimb node data prove heart 17 --to proof.json   that row 17 is among them
      fedimb node data verify-proof proof.json --root 1c8f...
      fedimb node data withdraw heart --ids ids.txt --then stop

    docs/registered-data.md says what a version proves, and what a withdrawal does and does not.
    """

    name = "data"
    line = "register data for studies, verify, prove, withdraw patients"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        home = argparse.ArgumentParser(add_help=False)
        home.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")
        actions = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

        add = actions.add_parser("add", help="read a data set completely and register it", parents=[home])
        add.add_argument("path", metavar="PATH", help="table, .npz, folder or .zip")
        add.add_argument("words", nargs="*", metavar="key=value", help="settings of the source (fedimb data check)")
        add.add_argument("--name", required=True, help="what the site calls it; again for a new version of it")
        add.add_argument("--tags", required=True, action="append", metavar="A,B,...", help="what plans ask for")
        add.add_argument("--source", metavar="NAME", help="how to read it (default: by the file's kind)")
        add.add_argument("--like", metavar="FILE", help="read it as this data group (YAML of the coordinator) says")
        add.add_argument(
            "--patient-column", metavar="COLUMN", help="column of patients' ids: kept whole, withdrawn by it"
        )
        add.add_argument("--classes", metavar="A,B,...", help="the classes, in the study's order")
        add.add_argument(
            "--can-record", metavar="A,...", help="classes without a row here that this site would record if it saw one"
        )

        actions.add_parser("list", help="what is registered, and which runs use it", parents=[home])
        verify = actions.add_parser("verify", help="read every record again", parents=[home])
        verify.add_argument("name", nargs="?", metavar="NAME", help="default: all")

        prove = actions.add_parser("prove", help="that a record is in the registered version", parents=[home])
        prove.add_argument("name", metavar="NAME")
        prove.add_argument("record", metavar="RECORD", help="row number, or file as in 'a.csv row 17' or cat/p1.png")
        prove.add_argument(
            "--open",
            action="store_true",
            help="with the record itself (label and patient's id too): for who may see it",
        )
        prove.add_argument("--to", metavar="FILE", help="where to (default: the terminal)")

        check = actions.add_parser("verify-proof", help="check a proof; needs no node")
        check.add_argument("file", metavar="FILE")
        check.add_argument("--root", metavar="HEX", help="the Merkle root the site gave before")

        withdraw = actions.add_parser("withdraw", help="leave patients out from now on", parents=[home])
        withdraw.add_argument("name", metavar="NAME")
        withdraw.add_argument(
            "--ids", required=True, metavar="FILE", help="patients' ids, one per line; without a patient column, rows"
        )
        withdraw.add_argument(
            "--then",
            choices=("stop", "continue", "retrain"),
            default="stop",
            help="runs that used them: stop here (default), continue without them, or only a new run from round 0",
        )

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """The chosen action."""
        from fedimb.cli import registered

        return int(getattr(registered, f"{args.what.replace('-', '_')}_data")(args) or 0)


class Check(Action):
    """Can this node take part? Look at data, versions, key, disk, proxy, the coordinator and the clock; nothing is
    started.

      fedimb node check                       all but what needs a study plan
      fedimb node check --plan plan.json      ... and whether the data fit the study: do this before approving it
      fedimb node check --json                the same for a monitoring system

    Every record is read again, so that with many pictures it takes a while. Exit code 0, or 2 when a line says fail:
    such a node does not train.
    """

    name = "check"
    line = "can this node take part: data, versions, key, disk, network, clock"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        parser.add_argument("--plan", metavar="FILE", help="plan.json, as the coordinator sent it")
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
        parser.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Print what was found."""
        import json

        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.check import facts, fit, node_checks, open_plan

        home = NodeHome.open(args.home)
        found = []
        for check in node_checks(home, None if args.plan is None else open_plan(args.plan)):
            found.append(check)
            if not args.json:
                remedy = f": {check.remedy}" if check.remedy else ""
                print(f"{check.level:<4}  {check.name:<16}  {' '.join(check.found.split())}{remedy}", flush=True)
        if args.json:
            print(json.dumps(facts(home, found), ensure_ascii=False, indent=1))
        return 0 if fit(found) else 2


class Run(Action):
    """Run this site's node, in the foreground, until it is asked to stop (Ctrl-C, SIGTERM).

    Starts Flower's SuperNode with a guard before it that lets nothing run but the fedimb installed here, watches over
    it, starts it again when it dies (after 65 seconds: the coordinator takes up to 60 to notice), ends and starts it at
    the hours and days of node.yaml. How it is: fedimb node status. Its log: logs/supernode.log in the node's folder.

      fedimb node run --home ~/st-anna

    As a service: fedimb-node.service in the node's folder, which fedimb node init wrote.

    Exit code 0 when asked to stop, 2 when a person must act first (the line says what), 1 with --once when it failed.
    """

    name = "run"
    line = "take part: run the node until asked to stop"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Options of the action."""
        parser.add_argument(
            "--home", metavar="DIR", help="the node's folder ($FEDIMB_NODE_HOME, else the working folder)"
        )
        parser.add_argument("--once", action="store_true", help="start the process once, end with it")
        parser.add_argument(
            "--restart-after", type=float, default=65.0, metavar="S", help="seconds from a death to the next start (65)"
        )

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Run the action."""
        import logging

        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.node_process import Patience
        from fedimb.deploy.site.observe import preflight
        from fedimb.deploy.site.supervisor import Supervisor

        home = NodeHome.open(args.home)
        handler = logging.StreamHandler()
        lines = logging.Formatter(f"%(asctime)sZ {home.site}: %(message)s", "%Y-%m-%dT%H:%M:%S")
        lines.converter = time.gmtime
        handler.setFormatter(lines)
        told = logging.getLogger("fedimb.node")
        told.addHandler(handler)
        told.propagate = False
        try:
            notices = preflight(home)
            for notice in notices:
                told.warning("%s", notice)
            return Supervisor(home, Patience(restart_s=args.restart_after), notices=notices).run(once=args.once)
        finally:
            told.removeHandler(handler)
            told.propagate = True


class Status(Action):
    """How this site's node is: what it does, since when, and what will need somebody.

    Exit code 0: it takes part, or is absent by plan. 1: somebody should look (it waits for a person or for the
    coordinator, a certificate or the disk ends soon). 2: it does not take part. The same facts stand in the node's
    folder as status.json and, for node_exporter's textfile collector, as node.prom.
    """

    name = "status"
    line = "how the node is; exit code 0 well, 1 look, 2 not taking part"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Options of the action."""
        parser.add_argument(
            "--home", metavar="DIR", help="the node's folder ($FEDIMB_NODE_HOME, else the working folder)"
        )
        parser.add_argument(
            "--json", action="store_true", help="print status.json, with the judgement, and nothing else"
        )

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Run the action."""
        import json
        import time
        from dataclasses import asdict

        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.status import judged, read

        found = read(NodeHome.open(args.home))
        code, line = judged(found, time.time())
        if args.json:
            print(json.dumps(asdict(found) | {"judgement": line, "exit_code": code}, indent=1, ensure_ascii=False))
            return code
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
            ("certificate ends", found.certificate or "unknown"),
            ("disk", f"{(size.get('used') or 0) / 1e9:.2f}{held} GB used, {(size.get('free') or 0) / 1e9:.1f} GB free"),
            ("version", f"fedimb {found.fedimb}, Flower {found.flower}"),
            *(("look at", warning) for warning in found.warnings),
        ]
        print("\n".join(aligned(rows, left=2)))
        return code


class Rotate(Action):
    """Make a new key for this node, and a new join file. The old key is gone: the node that runs now goes on with it
    until it is restarted, and is let in again once the coordinator ran fedimb deploy rotate with the new join file.

      fedimb node rotate
    """

    name = "rotate"
    line = "make a new key and a new join file"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        parser.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")
        parser.add_argument("--contact", metavar="TEXT", help="whom the coordinator may call (default: as before)")

    @staticmethod
    def run(args: argparse.Namespace) -> None:
        """Replace key, key.pub and SITE.join.json."""
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.joining import read_join
        from fedimb.deploy.site.identity import new_identity

        home = NodeHome.open(args.home)
        before = home.file(f"{home.site}.join.json")
        contact = args.contact if args.contact is not None else read_join(before).contact if before.is_file() else ""
        join = new_identity(home.root, home.site, contact)
        print(f"Send to the coordinator:  {before}\nRead out to them:         {join.key_fingerprint}")
        print("When they ran fedimb deploy rotate with it, restart fedimb node run.")


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    actions = (Init, Data, Check, Run, Status, Rotate, Inbox, Approve, Reject, Audit)
    register_actions(verbs, "node", _ABOUT, actions)
