"""``fedimb node ledger``: what was asked about a site's data, and a person's decisions about it."""

import argparse
from typing import TYPE_CHECKING

from fedimb.cli.places import add_home
from fedimb.cli.verbs import Action

if TYPE_CHECKING:
    from fedimb.cli.output.site import Asked, LedgerShown
    from fedimb.deploy.home import NodeHome


class LedgerAction(Action):
    """Show what was asked about this site's data so far, over all plans, runs and versions of the data, and the site's
    own limits (budget: in node.yaml). The node answers each message of a run once, and no more than a plan covers.

      fedimb node ledger
      fedimb node ledger --release RUN --from-round 4 --by "Dr. Anna Weiß" --reason "coordinator's disk failed"
      fedimb node ledger --reset heart --by "Dr. Anna Weiß" --reason "none of the records is the same"
      fedimb node ledger --restart --by "Dr. Anna Weiß" --reason "restored from the backup of 2026-03-01"

    --release: a run may ask for its messages from a round on once more, with other content; they are counted again.
    --reset: the counts of a data set start again. --restart: continue after the file was damaged, with the lines before
    the damage. Each of these is a person's decision, and a line in the audit log.
    """

    name = "ledger"
    line = "what was asked about this site's data; release a round, reset counts"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("--release", metavar="RUN", help="let this run ask for its last round once more")
        parser.add_argument("--from-round", type=int, metavar="N", help="with --release: from this round on")
        parser.add_argument("--reset", metavar="DATA", help="start the counts of this data set again")
        parser.add_argument("--restart", action="store_true", help="continue after the ledger was damaged")
        parser.add_argument("--reason", metavar="TEXT", help="why; it stays at the site")
        parser.add_argument("--by", metavar="NAME", help="who decides (default: the current user account)")
        add_home(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "LedgerShown":
        """Carry out a decision, if one is given, and print the ledger."""
        from fedimb.cli.output.site import Asked, LedgerShown
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.ledger import Ledger
        from fedimb.deploy.site.spending import ledger_names, lineage, rows, spent
        from fedimb.text import aligned

        home = NodeHome.open(args.home)
        did = _decide(home, args)
        ledger, budget, found, tables = Ledger(home), home.config.budget, [], []
        ledger.verify()
        with ledger.locked():
            for name in ledger_names(ledger):
                names = lineage(ledger, name)
                if name == names[0]:
                    found.append(Asked.from_spent(names, one := spent(ledger, name), budget.delta))
                    head = [", ".join(names), "so far", "limit"]
                    tables.append("\n".join(aligned([head, *rows(one, budget)], left=1)))
            count = ledger.length
        shown = LedgerShown(site=home.site, did=did, data_sets=found, budget=budget.model_dump(), lines=count)
        if not args.json:
            print("\n\n".join([*filter(None, [did]), *(tables or [f"nothing was asked at {home.site} so far"])]))
        return shown


def _decide(home: "NodeHome", args: argparse.Namespace) -> str:
    """What a decision did, in one line; empty if none is given."""
    from fedimb.deploy.site.account import release
    from fedimb.deploy.site.approvals import decider
    from fedimb.deploy.site.ledger import Ledger
    from fedimb.deploy.site.spending import reset
    from fedimb.errors import ConfigError

    chosen = [args.release is not None, args.reset is not None, args.restart]
    if sum(chosen) > 1:
        raise ConfigError("give one of --release, --reset and --restart")
    if args.from_round is not None and args.release is None:
        raise ConfigError("--from-round goes with --release RUN")
    if not any(chosen):
        return ""
    if not (args.reason or "").strip():
        raise ConfigError("say why: give --reason TEXT; it stays at the site, in the audit log")
    by = decider(args.by)
    if args.release is not None:
        first, count = release(home, args.release, args.from_round, by, args.reason)
        messages = "1 message" if count == 1 else f"{count} messages"
        return f"run {args.release} may ask for {messages} from round {first} on once more; each is counted again"
    if args.reset is not None:
        reset(home, args.reset, by, args.reason)
        return f"the counts of '{args.reset}' start again"
    kept = Ledger(home).restart(by, args.reason)
    return f"the ledger continues after its first {kept} lines; the file as it was is kept beside it"


def plan_costs(home: "NodeHome", item: str) -> "tuple[str, Asked | None, Asked | None]":
    """What a plan costs at this site: a table for people, and the counts before and after all of the plan.

    Nothing (an empty text) if the item is not a plan that was received, or if no data set has its tags.
    """
    from fedimb.cli.output.site import Asked
    from fedimb.deploy.registered_data.datasets import find_data_set
    from fedimb.deploy.site.approvals import load_plan, received_plans
    from fedimb.deploy.site.ledger import Ledger
    from fedimb.deploy.site.spending import beyond, planned, rows, sends_synthetic, spent
    from fedimb.errors import ConfigError
    from fedimb.text import aligned

    shas = [sha for sha in received_plans(home) if f"plan-{sha}".startswith(item)]
    if len(shas) != 1 or not item.startswith("plan-"):
        return "", None, None
    plan = load_plan(home, shas[0])
    try:
        data = find_data_set(home, plan.tags).name
    except ConfigError:
        return "", None, None
    ledger, budget = Ledger(home), home.config.budget
    with ledger.locked():
        now, counted = spent(ledger, data), spent(ledger, data, budget)
    more = planned(plan)
    head = [f"asked about '{data}'", "so far", "with all of this plan", "limit"]
    text = "\n".join(aligned([head, *rows(now, budget, now + more, sends_synthetic(plan))], left=1)) + "\n"
    if why := beyond(counted + more, budget):
        text += f"This plan asks for more than the site answers: it answers no more than {why}\n"
    return text, Asked.from_spent([data], now, budget.delta), Asked.from_spent([data], now + more, budget.delta)
