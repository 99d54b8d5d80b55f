"""``fedimb tune``: tunes settings on seeds that comparisons do not use."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedimb.cli.output.studies import TuningFinished, TuningPlanned
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Try configurations on separate tuning seeds (1000, 1001, ...) and choose the one with the best lower quartile of the
score over seeds: the best mean is often at the edge of stability, where some seeds collapse. If the best value is the
first or last of its range, the range is extended.

  fedimb tune local.lr=0.1,0.2,0.4 loss=balanced_softmax
  fedimb tune local.lr=0.1,0.4 aggregator=fedprox aggregator.proximal_mu=0.01,0.1 --seeds 8
  fedimb tune study.yaml                            tune every row of a study, as `fedimb compare` does"""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    from fedimb.cli.study import add_options

    tune = verbs.add_parser("tune", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    tune.add_argument(
        "words", nargs="+", metavar="STUDY|key=a,b", help="a study's YAML file, or settings with values to try"
    )
    tune.add_argument(
        "--seeds",
        type=int,
        default=5,
        metavar="N",
        help="number of tuning seeds (default 5; a study's file has its own)",
    )
    tune.add_argument(
        "--score", default="macro_recall", help="score to choose by (default macro_recall; a study's file has its own)"
    )
    add_options(tune)
    tune.set_defaults(handler=tune_command)


def tune_command(args: argparse.Namespace) -> "TuningFinished | TuningPlanned":
    """``fedimb tune``. Prints each row's choice; the exit code is 1 if a run failed."""
    from fedimb.cli.output.studies import Choice, TuningFinished, TuningPlanned
    from fedimb.cli.study import workers
    from fedimb.study.cells import plan
    from fedimb.study.compare import study_folder, tuned_rows
    from fedimb.study.tuning import check_tuning

    study, more = _study(args)
    _, tasks = plan(study, None, more)
    folder = study_folder(tasks)
    check_tuning(study, more)
    if args.dry_run:
        from fedimb.study.design import points_of

        points = {label: points_of(study, row) for label, row in study.tuned_rows.items()}
        if not args.json:
            for label, tried in points.items():
                print(f"{label}: " + "; ".join(" ".join(point) for point in tried))
        return TuningPlanned(rows={label: [list(point) for point in tried] for label, tried in points.items()})
    folder.mkdir(parents=True, exist_ok=True)
    tuned, lost = tuned_rows(study, more, workers(args, folder), folder)
    choices = []
    for (scope, label), trial in tuned.best.items():
        where = "" if scope in ("default", "*") else f" in {scope}"
        edge = tuned.edges.get((scope, label))
        choices.append(
            Choice(
                setting=scope if where else None,
                row=label,
                words=list(trial.words),
                lower_quartile=trial.quartile,
                edges=list(edge or ()),
            )
        )
        note = f"  ({', '.join(edge)} is still at the end of the values tried)" if edge else ""
        print(f"{label}{where}: {' '.join(trial.words)}  lower quartile {trial.quartile:.3f}{note}")
    print(f"wrote {folder / 'tuning.csv'}")
    for line in lost:
        print(f"  {line}")
    failed = any(line.startswith("failed") for line in lost)
    return TuningFinished(choices=choices, file=str(folder / "tuning.csv"), failures=lost, exit_code=int(failed))


def _study(args: argparse.Namespace) -> tuple[Any, list[str]]:
    from fedimb.errors import ConfigError
    from fedimb.study.design import read_study, study_of
    from fedimb.study.sweep import expand, name_of, top_level

    if "=" not in args.words[0]:
        study = read_study(Path(args.words[0]))
        if study.tune is None:
            raise ConfigError(f"{args.words[0]} has no tune: section, so there is nothing to tune; add one")
        return study, args.words[1:]
    expand(args.words)  # refuses malformed arguments
    values = {word.partition("=")[0]: top_level(word.partition("=")[2]) for word in args.words}
    grid = {key: tried for key, tried in values.items() if len(tried) > 1}
    if not grid:
        raise ConfigError("nothing to tune: give several values, e.g. local.lr=0.1,0.2")
    fixed = [word for word in args.words if word.partition("=")[0] not in grid]
    tree = {
        "name": name_of(args.words).replace("sweep", "tune"),
        "base": fixed,
        "rows": {"tuned": []},
        "references": False,
        "tune": {"grid": grid, "seeds": args.seeds, "score": args.score},
    }
    return study_of(tree, "tune"), []
