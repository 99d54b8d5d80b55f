"""``fedimb deploy plan``, ``run`` and ``demo``: write study plans and run them at the sites."""

import argparse
from typing import TYPE_CHECKING

from fedimb.cli.places import add_accept, add_deployment, add_waits, open_deployment, waits_of
from fedimb.cli.verbs import Action

if TYPE_CHECKING:
    from fedimb.cli.output.coordinator import DeployDemo, PlanWritten
    from fedimb.cli.output.results import RunFinished

_WAITS = (300.0, 1800.0)
"""Seconds to wait for sites at the start, and for one that goes away."""


class Plan(Action):
    """Write a study plan: one page with what sites are asked to agree to, including everything that leaves them.

      fedimb deploy plan strategy=fairfal data=heart_severe rounds=20 "data.test={name: none}" data.validation=0.2 \
          --purpose "Severe disease in four hospitals" --contact "Dr. Jürgen Müller, +49 30 1234" \
          --expires 2026-12-31 --tags heart --vary rounds=1..50 --vary seed

    --vary KEY: any value; KEY=1..50: a range; KEY=a,b,c: one of these. Everything else is fixed: a change makes another
    plan, which every site must approve again. --sites names the sites that take part, if not all do. A plan covers so
    many runs (--runs), and sites take part in no more. Sizes, classes and minority are read from the configured data;
    if the coordinator has no data, give --classes, --minority and --input-shape.
    """

    name = "plan"
    line = "write a study plan for the sites to approve"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""

        parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as fedimb run takes them")
        parser.add_argument("--purpose", required=True, metavar="TEXT", help="what the study is for, in one sentence")
        parser.add_argument("--contact", required=True, action="append", metavar="TEXT", help="whom to ask; repeatable")
        parser.add_argument("--expires", required=True, metavar="DAY", help="last day, as in 2026-12-31 (UTC)")
        parser.add_argument("--tags", required=True, metavar="A,B", help="tags of the registered data set to use")
        parser.add_argument(
            "--vary", action="append", default=[], metavar="KEY[=RANGE]", help="setting that may vary; repeatable"
        )
        parser.add_argument("--sites", metavar="A,B", help="sites that take part (default: all that were added)")
        parser.add_argument(
            "--runs",
            type=int,
            metavar="N",
            help="number of runs the plan covers (default: the combinations of listed values and of a range of seeds)",
        )
        parser.add_argument("--classes", metavar="A,B", help="class names in order (default: from the data)")
        parser.add_argument("--minority", metavar="A,B", help="the classes the study is about (default: from the data)")
        parser.add_argument(
            "--rows",
            action="append",
            default=[],
            metavar="[SITE=]N",
            help="most rows of a site, of every site or of one; repeatable (default: all rows of the configured data)",
        )
        parser.add_argument(
            "--value-range",
            action="append",
            default=[],
            metavar="LOW..HIGH",
            help="values of a table's columns: once for all, or once for each in order (default: from the data)",
        )
        parser.add_argument("--input-shape", metavar="N,N", help="shape of one row, as in 13 or 3,28,28")
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "PlanWritten":
        """Write plan.json, plan.md and plan.html, and print what to do next."""
        from fedimb.cli.output.coordinator import PlanWritten
        from fedimb.config.compose import compose
        from fedimb.config.validate import validate
        from fedimb.deploy.audit_log import utc_now
        from fedimb.deploy.coordinator.drafting import (
            describe_data,
            describe_limits,
            end_of_day,
            parse_vary,
            refuse_unread_ranges,
            with_deployment_defaults,
            write_plan,
        )
        from fedimb.deploy.coordinator.plan_checks import check_parts
        from fedimb.deploy.coordinator.sites import planned_keys
        from fedimb.deploy.coordinator.traffic import check_traffic, traffic_line
        from fedimb.deploy.study_plan.budget import default_runs
        from fedimb.deploy.study_plan.plan import make_plan

        deployment = open_deployment(args)
        words = with_deployment_defaults(args.overrides)
        # A plan whose settings may vary says what some of its runs read.
        config = validate(compose(words, about=() if args.vary else args.overrides))
        sites = planned_keys(deployment, args.sites.split(",") if args.sites else ())
        classes, minority, shape = describe_data(config, args.classes, args.minority, args.input_shape)
        has_data = not (args.classes and args.minority and args.input_shape)
        limits = describe_limits(config, tuple(sites), args.rows, args.value_range, has_data)
        vary = parse_vary(args.vary)
        expires = end_of_day(args.expires)
        name, now = deployment.config.name, utc_now()
        runs = default_runs(vary) if args.runs is None else args.runs
        about = (args.purpose, args.contact, now, expires, vary, args.tags.split(","), classes, minority, shape)
        plan = make_plan(name, config, *about, deployment.signing_key(), sites, runs, limits)
        refuse_unread_ranges(config, vary)
        check_parts(plan, config)
        traffic = traffic_line(deployment, check_traffic(deployment, plan, config))
        folder = write_plan(deployment, plan)
        print(
            f"{folder / 'plan.html'} is the page for data-protection officers; sites approve plan.json.\n"
            f"plan      {plan.sha}\n"
            f"sites     {', '.join(site.name for site in plan.sites)}\n"
            f"signed    with {plan.coordinator_fingerprint}: read it out to each site by telephone\n"
            f"covers    {plan.runs} run{'s' * (plan.runs > 1)}; for another number give --runs N\n"
            f"leaves    {len(plan.leaves)} kinds of records, all listed on the page\n"
            f"limits    at most {limits.most_rows} rows at a site; another number with --rows\n"
            f"traffic   {traffic}\n"
            f"Next: sites get it with the first run under it (fedimb node inbox), or send them plan.json "
            "beforehand, for fedimb node check --plan."
        )
        return PlanWritten(sha=plan.sha, folder=str(folder), leaves=len(plan.leaves))


class Run(Action):
    """Run a study plan at the sites. The servers must be up (fedimb deploy up).

      fedimb deploy run 4f9a1c2e                     the plan whose id starts like this, if no other does
      fedimb deploy run 4f9a1c2e seed=1 rounds=20    with settings that the plan allows to vary
      fedimb deploy run --resume runs/default/...    continue after a crash or a person's decision

    If a site must decide first, the run ends with exit code 75 and names the site; nothing stays running meanwhile.
    """

    name = "run"
    line = "run a study plan at the sites, or resume one"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""

        parser.add_argument(
            "plan", nargs="?", metavar="PLAN", help="a plan's id or a unique beginning of it, or a plan.json"
        )
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that the plan allows to vary")
        parser.add_argument("--resume", metavar="RUN", help="resume this run folder")
        parser.add_argument(
            "--without",
            action="append",
            default=[],
            metavar="SITE",
            help="with --resume: set this site aside for the rest of the run; repeatable",
        )
        add_accept(parser)
        add_waits(parser, *_WAITS, "; with --resume: as before")
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "RunFinished":
        """Submit, watch, print the result."""
        from pathlib import Path

        from fedimb.cli.run import shown
        from fedimb.config.load import row_label
        from fedimb.deploy.coordinator.serve import deployed_about, is_deployed, run_sites, set_waits
        from fedimb.deploy.coordinator.submit import create_run, execute, find_plan
        from fedimb.errors import ConfigError
        from fedimb.rundir.folder import RunFolder
        from fedimb.rundir.stored import read_config
        from fedimb.serverapp.left_out import set_aside
        from fedimb.serverapp.progress import ProgressBar

        deployment, waits = open_deployment(args), waits_of(args, *_WAITS)
        if args.without and not args.resume:
            raise ConfigError("--without goes with --resume; a new run without a site needs a plan for the others")
        if args.resume:
            folder = RunFolder.open(Path(args.resume))
            if not is_deployed(folder.path):
                raise ConfigError(f"{folder.path} is a simulation's run: resume it with fedimb run --resume")
            if (args.join, args.away) != (None, None):
                about = deployed_about(folder)
                set_waits(folder, *waits_of(args, about.join_s, about.away_s))
            for site in args.without:
                set_aside(folder.path, run_sites(folder.path), site, "the coordinator's decision")
        elif args.plan:
            folder = create_run(deployment, find_plan(deployment, args.plan), args.overrides, *waits)
        else:
            raise ConfigError("give a plan (fedimb deploy run PLAN) or a run to resume (--resume RUN)")
        config = read_config(folder)
        with ProgressBar(config.rounds) as progress:
            progress.title(row_label(config, next(iter(config.calibration))))
            result = execute(deployment, folder, progress, args.accept_changes)
        return shown(result, args.json)


class Demo(Action):
    """Run a coordinator and four hospital nodes on this machine: keys, TLS, registered data, a plan, approvals, a run.

      FEDIMB_DATA_DIR=... fedimb deploy demo         with the UCI heart-disease data of four hospitals

    Only the addresses differ from real machines; each command is printed as you would type it there. Takes two to three
    minutes on two cores, and stops the processes it started.
    """

    name = "demo"
    line = "a complete deployment on this machine: coordinator and four hospitals"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("--to", default="deploy-demo", metavar="DIR", help="the new folder (default: deploy-demo)")
        parser.add_argument("--data", metavar="DIR", help="folder with heart-disease/ (default: $FEDIMB_DATA_DIR)")

    @staticmethod
    def run(args: argparse.Namespace) -> "DeployDemo":
        """Run the demo, and print where everything is."""
        from pathlib import Path

        from fedimb.cli.output.coordinator import DeployDemo
        from fedimb.deploy.demo import Demo, check_data
        from fedimb.errors import ConfigError

        root = Path(args.to).expanduser().absolute()
        if root.exists():
            raise ConfigError(f"{root} already exists: remove it, or give another folder with --to")
        demo = Demo(root, check_data(args.data))
        folder = demo.run()
        print(
            f"\nrun folder   {folder}\n"
            f"plan         {folder / 'plan.json'}; its page: {root / 'coordinator' / 'plans'}\n"
            f"audit logs   {root}/<site>/audit.jsonl\n"
            f"pace         the run of three rounds took {demo.times['run']:.0f} s\n"
            "On real machines: the commands above, each at its own site; docs/coordinator.md and docs/hospital.md."
        )
        return DeployDemo(folder=str(folder), root=str(root), seconds=demo.times["run"])
