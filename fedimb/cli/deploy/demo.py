"""A coordinator and four hospital nodes on this machine: keys, TLS, registered data, a plan, approvals, a run.

  FEDIMB_DATA_DIR=... fedimb deploy demo         with the UCI heart-disease data of four hospitals

Nothing is different from real machines but the addresses; each command is printed as it would be typed there. Takes
two to three minutes on two cores; ends the processes it started."""

import argparse

LINE = "coordinator and four hospitals on this machine, start to finish"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    parser.add_argument("--to", default="deploy-demo", metavar="DIR", help="the new folder (deploy-demo)")
    parser.add_argument("--data", metavar="DIR", help="folder with heart-disease/ (default: $FEDIMB_DATA_DIR)")


def run(args: argparse.Namespace) -> None:
    """Do it, and say where things are."""
    from pathlib import Path

    from fedimb.deploy.demo import Demo, check_data
    from fedimb.errors import ConfigError

    root = Path(args.to).expanduser().absolute()
    if root.exists():
        raise ConfigError(f"{root} is there already: remove it, or name another folder with --to")
    demo = Demo(root, check_data(args.data))
    folder = demo.run()
    print(
        f"\nrun folder   {folder}\n"
        f"plan         {folder / 'plan.json'}; its page: {root / 'coordinator' / 'plans'}\n"
        f"audit logs   {root}/<site>/audit.jsonl\n"
        f"pace         the run of three rounds took {demo.times['run']:.0f} s from submission to finish\n"
        "On real machines: the commands above, each at its own site; docs/coordinator.md and docs/hospital.md."
    )
