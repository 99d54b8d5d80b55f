"""Write a study plan: one page that says what sites are asked to agree to, with everything that leaves them.

  fedimb deploy plan strategy=fairfal data=heart_severe rounds=20 "data.test={name: none}" data.validation=0.2 \\
      --purpose "Severe disease in four hospitals" --contact "Dr. Jürgen Müller, +49 30 1234" \\
      --expires 2026-12-31 --tags heart --vary rounds=1..50 --vary seed

--vary KEY: any value; KEY=1..50: a range; KEY=a,b,c: one of these. Everything else is fixed: another value is another
plan, which every site must approve anew. Sizes, classes and minority are read off the configured data; without any at
the coordinator give --classes and --input-shape."""

import argparse

LINE = "write a study plan for the sites to approve"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    from fedimb.cli.deploy.folder import add_folder

    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as fedimb run takes them")
    parser.add_argument("--purpose", required=True, metavar="TEXT", help="what for, in a sentence")
    parser.add_argument("--contact", required=True, action="append", metavar="TEXT", help="whom to ask; repeatable")
    parser.add_argument("--expires", required=True, metavar="DAY", help="last day, as in 2026-12-31 (UTC)")
    parser.add_argument("--tags", required=True, metavar="A,B", help="of the data set a site shall use")
    parser.add_argument("--vary", action="append", default=[], metavar="KEY[=RANGE]", help="may be repeated")
    parser.add_argument("--classes", metavar="A,B", help="class names in order (default: those of the data)")
    parser.add_argument("--minority", metavar="A,B", help="the classes the study is about (default: of the data)")
    parser.add_argument("--input-shape", metavar="N,N", help="of one row, as in 13 or 3,28,28")
    add_folder(parser)


def run(args: argparse.Namespace) -> None:
    """Compose, write plan.json, plan.md and plan.html, print what to do next."""
    from fedimb.cli.deploy.folder import opened
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate
    from fedimb.deploy.audit_log import utc_now
    from fedimb.deploy.coordinator.drafting import data_facts, last_moment, parse_vary, write_plan
    from fedimb.deploy.coordinator.plan_checks import check_parts
    from fedimb.deploy.study_plan.plan import make_plan

    deployment = opened(args)
    config = validate(compose(args.overrides))
    classes, minority, shape = data_facts(config, args.classes, args.minority, args.input_shape)
    vary = parse_vary(args.vary)
    expires = last_moment(args.expires)
    name, now = deployment.config.name, utc_now()
    plan = make_plan(
        name, config, args.purpose, args.contact, now, expires, vary, args.tags.split(","), classes, minority, shape
    )
    check_parts(plan, config)
    folder = write_plan(deployment, plan)
    print(
        f"{folder / 'plan.html'} is the page for data-protection officers, plan.json what sites approve.\n"
        f"plan      {plan.sha}\n"
        f"leaves    {len(plan.leaves)} kinds of records, each in the page\n"
        f"Next: a site sees it when a run under it asks (fedimb node inbox), or give plan.json to it beforehand."
    )
