"""``fedimb demo``: its arguments; the work is in `fedimb.cli.demo_tables`."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.output.studies import DemoFinished
    from fedimb.cli.verbs import Verbs

_WAIT_S = 60.0
"""Seconds that the demo waits at its end for MLflow, after the tables are printed."""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    about = (
        "Run three small comparisons on long-tailed digits and print a table of each: strategies; active learning with "
        "a few labels; and synthetic samples from a server that holds some rows."
    )
    demo = verbs.add_parser("demo", description=about)
    demo.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings for every run of the first table, e.g. rounds=10"
    )
    demo.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds per row (default 3)")
    demo.set_defaults(handler=demo_command)


def demo_command(args: argparse.Namespace) -> "DemoFinished":
    """``fedimb demo``."""
    from fedimb.config.compose import compose
    from fedimb.study.forkserver import start_early
    from fedimb.tracking.sender import sender_of

    tracking = compose(args.overrides).get("tracking")
    if args.seeds > 0:
        start_early()
    with sender_of(tracking, _WAIT_S) as sender:  # both import while this process imports torch
        from fedimb.cli.demo_tables import demo

        return demo(args.overrides, args.seeds, sender)
