"""``fedimb region plan`` and ``run``: a region of a larger study, which answers with the sum of its sites."""

import argparse
from typing import TYPE_CHECKING

from fedimb.cli.places import add_deployment, add_waits, open_deployment, waits_of
from fedimb.cli.verbs import Action, register_actions

if TYPE_CHECKING:
    from fedimb.cli.output.coordinator import PlanWritten
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Be a region of a larger study: to its coordinator, the root, one node that answers with the sum of its sites; to the
sites their coordinator. It has two folders, a node's (fedimb node init, --node) and a deployment's (fedimb deploy init,
--deployment), and three processes: fedimb node run, fedimb deploy up, fedimb region run (docs/regions.md)."""

_WAITS = (300.0, 900.0)
"""Seconds to wait for sites at the start, and for one that goes away."""


def _add_node(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--node", required=True, metavar="DIR", help="folder of the region's node, which the root asks")
    add_deployment(parser)


class Plan(Action):
    """Write the plan that the region's sites approve, made of a plan of the root that the region's node has received:
    the same study, signed by the region, with the sites that were added to its deployment.

      fedimb node inbox --home ~/north                         what the root asks; approve it there
      fedimb region plan 4f9a1c2e --node ~/north --deployment ~/north-coordinator
    """

    name = "plan"
    line = "write the plan for the region's sites, from the root's plan"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("plan", metavar="PLAN", help="the root's plan: its id or a unique beginning of it")
        parser.add_argument("--purpose", metavar="TEXT", help="what the study is for (default: as the root says)")
        _add_node(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "PlanWritten":
        """Write plan.json, plan.md and plan.html."""
        from fedimb.cli.output.coordinator import PlanWritten
        from fedimb.deploy.coordinator.drafting import write_plan
        from fedimb.deploy.coordinator.plan_checks import check_parts
        from fedimb.deploy.coordinator.region import plan_for_sites
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.approvals import load_plan, received_plans
        from fedimb.errors import ConfigError, nearest

        home, deployment = NodeHome.open(args.node), open_deployment(args)
        known = received_plans(home)
        matches = [sha for sha in known if sha.startswith(args.plan)]
        if len(matches) != 1:
            why = (
                f"is the beginning of {len(matches)} plans"
                if matches
                else f"was not received.{nearest(args.plan, known)}"
            )
            raise ConfigError(f"plan '{args.plan}' {why}; see fedimb node inbox --home {home.root}")
        root = load_plan(home, matches[0])
        plan = plan_for_sites(deployment, root, home.site, args.purpose)
        check_parts(plan, plan.run_config())
        folder = write_plan(deployment, plan)
        assert plan.part is not None
        print(
            f"{folder / 'plan.html'} is the page for data-protection officers; the sites approve plan.json.\n"
            f"plan      {plan.sha}\n"
            f"of        the root's plan {root.sha}\n"
            f"sites     {', '.join(site.name for site in plan.sites)}: clients {plan.part.first} to "
            f"{plan.part.first + len(plan.sites) - 1} of {plan.part.of}\n"
            f"signed    with {plan.coordinator_fingerprint}: read it out to each site by telephone\n"
            f"leaves    to the root: sums over at least {plan.part.min_members} sites\n"
            "Next: sites get it with the first run (fedimb node inbox), or send them plan.json beforehand."
        )
        return PlanWritten(sha=plan.sha, folder=str(folder), leaves=len(plan.leaves))


class Run(Action):
    """Answer the root's messages with sums over the region's sites, in the foreground, until asked to stop (Ctrl-C).

      fedimb node run --home ~/north                                          asked by the root
      fedimb deploy up --deployment ~/north-coordinator                       where the sites connect
      fedimb region run --node ~/north --deployment ~/north-coordinator

    Each of the three may be ended at any time and started again: the root's question stays open, and is answered for
    the same sites. What a site refuses or waits for is logged here; the root is told how many sites replied, not which.
    """

    name = "run"
    line = "answer the root with sums over the region's sites, until asked to stop"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        _add_node(parser)
        add_waits(parser, *_WAITS)

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Run the action."""
        import logging
        import threading

        from fedimb.deploy.coordinator.region_runs import RegionRuns
        from fedimb.deploy.coordinator.superlink import healthy
        from fedimb.deploy.home import NodeHome
        from fedimb.errors import ConfigError
        from fedimb.process_state import stopping

        join_s, away_s = waits_of(args, *_WAITS)
        home, deployment = NodeHome.open(args.node), open_deployment(args)
        if not healthy(deployment):
            raise ConfigError(f"the servers of {deployment.root} are down: start them with fedimb deploy up")
        logging.getLogger("fedimb").setLevel(logging.INFO)
        print(
            f"region {home.site} answers its root; its sites are those of {deployment.root}. Ctrl-C ends it.",
            flush=True,
        )
        stop = threading.Event()
        with stopping(stop):
            RegionRuns(deployment, home.root, join_s, away_s).watch(stop)
        return 0


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    register_actions(verbs, "region", _ABOUT, (Plan, Run))
