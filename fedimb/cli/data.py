"""``fedimb data``: ``describe`` what a run's clients would hold, save its ``split``, ``check`` your own data."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedimb.cli.output.parts import DataChecked, DataDescription, FindingLine, SplitWritten
    from fedimb.cli.verbs import Verbs
    from fedimb.data.federation import Federation
    from fedimb.data.findings.finding import Finding
    from fedimb.schema import RunConfig

_DESCRIBE = """\
Split the data as `fedimb run` would with the same settings, and print who holds what: rows per client and class, how
many clients hold each class, sizes of validation and test sets, and a warning for each class that cannot be learned.

  fedimb data describe                                                 the default: digits, 10 clients
  fedimb data describe partition.alpha=0.1 seed=3 --plot who.png       and draw a picture of it
  fedimb data describe partition.alpha=0.1 seed=3 --plot               the same in the terminal
  fedimb data describe partition.minority_placement=concentrated       minority classes at a fifth of the clients
  fedimb data describe data=wbc --croissant wbc.json                   metadata for other tools (Croissant, JSON-LD)"""

_SPLIT = """\
Split the data as `fedimb run` would with the same settings, and write one line per row: its id, its side (train,
validation, test, public, unused) and its client. Other tools can read the file, and so can fedimb:
data.test={name: file, path: FILE}.

  fedimb data split data=wbc data.test.name=by_site --to split.csv
  fedimb data split --run runs/default/fedavg-s0-3f2a --to split.csv       the split of a run"""

_CHECK = """\
Read your data completely and print what they hold, or what is wrong and where. Nothing is trained.

  fedimb data check configs/data/mine.yaml          a data group; its test split and long tail are tried too
  fedimb data check images/                         a folder (or .zip) with one folder per class
  fedimb data check bloodmnist.npz                  a file; settings of its source may follow
  fedimb data check table.csv target=diagnosis      ... as key=value
  fedimb data check labels.csv --source image_csv   choose the source instead of guessing it

File, settings and options may come in any order. What looks wrong is listed with its severity: refuse and ask stop a
run (ask until data.accept names it), note does not."""


_NOT_READY = 2


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    data = verbs.add_parser("data", help="import or check your own data, or show what each client would hold")
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    describe = actions.add_parser(
        "describe", help="show which client holds which classes", description=_DESCRIBE, formatter_class=raw
    )
    describe.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as for fedimb run")
    describe.add_argument(
        "--config-dir", action="append", default=[], metavar="DIR", help="folder with your own configuration groups"
    )
    describe.add_argument(
        "--plot",
        metavar="FILE",
        nargs="?",
        const="",
        help="draw rows per client and class into this .png or .svg; without FILE (and then last) in the terminal",
    )
    describe.add_argument(
        "--croissant", metavar="FILE", help="write Croissant metadata (.json): source, licence, checksums, partition"
    )
    describe.set_defaults(handler=describe_command)
    split = actions.add_parser(
        "split", help="save who gets which row, for other tools", description=_SPLIT, formatter_class=raw
    )
    split.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as for fedimb run")
    split.add_argument(
        "--config-dir", action="append", default=[], metavar="DIR", help="folder with your own configuration groups"
    )
    split.add_argument("--run", metavar="RUN", help="the split of this run instead (its folder, name or hash)")
    split.add_argument("--to", required=True, metavar="FILE", help="the .csv to write")
    split.set_defaults(handler=split_command)
    check = actions.add_parser(
        "check", help="read your data completely, and report what is wrong", description=_CHECK, formatter_class=raw
    )
    check.add_argument(
        "file", metavar="FILE", help="data YAML, folder, .zip, table or .npz; others: first fedimb data import"
    )
    check.add_argument("settings", nargs="*", metavar="key=value", help="settings of the source (not with a YAML file)")
    check.add_argument("--source", metavar="NAME", help="read FILE with this source (see `fedimb list sources`)")
    check.set_defaults(handler=check_command)
    from fedimb.cli.data_crops import register_crops
    from fedimb.cli.data_import import register_import

    register_import(actions)
    register_crops(actions)


def describe_command(args: argparse.Namespace) -> "DataDescription":
    """``fedimb data describe``.

    Raises:
        ConfigError, DataError: as `fedimb run` would; or the plot's suffix is neither .png nor .svg.
    """
    from fedimb.cli.output.parts import DataDescription
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate
    from fedimb.data.prepare import prepare
    from fedimb.report.describe import about_data, client_names, describe, warnings

    if args.plot and Path(args.plot).suffix not in (".png", ".svg"):  # checked before the work
        raise ConfigError(
            f"--plot {args.plot}: give a name ending in .png or .svg, or put --plot at the end to draw in the terminal"
        )
    if args.croissant:
        _new_file("--croissant", args.croissant, ".json")
    config = validate(compose(args.overrides, [Path(folder) for folder in args.config_dir]))
    federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    about = config.data.get("about") or {}
    if not args.json:
        print("\n\n".join([describe(federation), *([about_data(about)] if about else [])]))
    written = None
    if args.croissant:
        written = _write_croissant(args.croissant, config, federation)
        print(f"\ncroissant: {written}")
    drawn = None
    if args.plot == "":
        from fedimb.report.terminal import draw_partition

        draw_partition(federation.counts, federation.class_names, federation.minority)
    elif args.plot:
        from fedimb.rundir.partition_picture import partition_figure

        drawn = partition_figure(federation.counts, federation.class_names, federation.minority, args.plot)
        print(f"\npicture: {drawn}")
    test, held_out = federation.store.class_counts(federation.test), federation.known_counts(federation.validation)
    return DataDescription(
        class_names=list(federation.class_names),
        minority=list(federation.minority),
        clients=client_names(federation),
        counts=federation.counts.tolist(),
        test=test.tolist(),
        validation=held_out.tolist(),
        imbalance_factor=federation.imbalance_factor,
        partition=federation.sha,
        warnings=warnings(federation.counts, test, federation.class_names),
        picture=None if drawn is None else str(drawn),
        croissant=written,
        about=about,
    )


def _write_croissant(name: str, config: "RunConfig", federation: "Federation") -> str:
    """Write the metadata; returns the path."""
    import json

    from fedimb.atomic import write_atomic
    from fedimb.data.croissant import croissant
    from fedimb.rundir.identity import partition_sha

    about, source = config.data.get("about") or {}, config.data["source"]
    document = croissant(federation, Path(name).stem, about, source, partition_sha(federation))
    write_atomic(Path(name), (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    return name


def split_command(args: argparse.Namespace) -> "SplitWritten":
    """``fedimb data split``.

    Raises:
        ConfigError, DataError: as `fedimb run` would; no such run; ``--to`` is not a .csv or exists.
    """
    from fedimb.cli.find import find_run
    from fedimb.cli.output.parts import SplitWritten
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate
    from fedimb.data.prepare import prepare
    from fedimb.data.split_file import write_split
    from fedimb.rundir.folder import RunFolder
    from fedimb.rundir.stored import read_federation

    file = _new_file("--to", args.to, ".csv")
    if args.run and args.overrides:
        raise ConfigError(f"--run {args.run} already says how its data were split: leave out {args.overrides[0]}")
    if args.run:
        federation = read_federation(RunFolder.open(find_run(args.run)))
    else:
        config = validate(compose(args.overrides, [Path(folder) for folder in args.config_dir]))
        federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    rows = write_split(federation, file)
    train, validation = int(federation.train_sizes.sum()), int(federation.validation.sizes.sum())
    sides = {"train": train, "validation": validation, "test": len(federation.test), "public": len(federation.public)}
    sides["unused"] = rows - sum(sides.values())
    if not args.json:
        print(f"{file}: {rows:,} rows; " + ", ".join(f"{side} {count:,}" for side, count in sides.items() if count))
        print(f"read it back with 'data.test={{name: file, path: {file}}}'")
    return SplitWritten(file=str(file), rows=rows, sides=sides)


def _new_file(option: str, name: str, suffix: str) -> Path:
    """The path of a file to write. ConfigError if it exists, has another suffix, or has no folder."""
    path = Path(name)
    if path.suffix != suffix:
        raise ConfigError(f"{option} {name}: give a name ending in {suffix}")
    if path.exists():
        raise ConfigError(f"{option} {name} exists already: give another name, or remove it first")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {name}: there is no folder {path.parent}; make it first")
    return path


def check_command(args: argparse.Namespace) -> "DataChecked":
    """``fedimb data check``.

    Raises:
        ConfigError: a setting is wrong, or the source for the file cannot be guessed.
        DataError: the data cannot be read or split.

    The exit code is 2 if a run would refuse the data for what is found in them.
    """
    from fedimb.cli.output.parts import DataChecked
    from fedimb.cli.verbs import split_words
    from fedimb.data.check import read_source, split_accepted, try_cut
    from fedimb.data.config import DataConfig
    from fedimb.data.findings.look import look_at
    from fedimb.data.findings.stage import unresolved
    from fedimb.report.describe import about_data, describe_source, source_counts

    file, words = split_words(args.file, args.settings)
    accept, settings = split_accepted(words)
    name, data, group = read_source(file, settings, args.source)
    if not args.json:
        print(f"source: {name}\n{describe_source(data)}", flush=True)
    findings, cut = look_at(data)[0], None
    if not args.json:
        _print_findings(findings, accept)
    if group is not None:
        accept = (*accept, *DataConfig.parse(group).accept)
        cut, found = try_cut(group)
        findings += (later := [one for one in found if one not in findings])
        if not args.json:
            print(f"\n{cut}")
            _print_findings(later, accept)
    about = {} if group is None else DataConfig.parse(group).about or {}
    if about and not args.json:
        print(f"\n{about_data(about)}")
    return DataChecked(
        exit_code=_NOT_READY if unresolved(findings, accept) else 0,
        findings=[_finding_line(one, accept) for one in findings],
        source=name,
        **source_counts(data),
        cut=cut,
        about=about,
    )


def _print_findings(findings: "Sequence[Finding]", accept: "Sequence[str]") -> None:
    from fedimb.data.findings.stage import described

    if findings:
        print("\n" + "\n".join(described(one, accept) for one in findings), flush=True)


def _finding_line(one: "Finding", accept: "Sequence[str]") -> "FindingLine":
    from fedimb.cli.output.parts import FindingLine

    return FindingLine(
        name=one.name, severity=one.severity, place=one.place, text=one.text, accepted=one.name in accept
    )
