"""``fedimb data import``: look at files, say what they are, and write the data YAML that reads them."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.output.parts import DataImported
    from fedimb.cli.verbs import Verbs

_IMPORT = """\
Look at a file or folder, say what it is and what is not sure about it, and write the data YAML that reads it, with
every choice spelled out. Nothing is trained, and the files stay as they are.

  fedimb data import heart.csv                             writes data/heart.yaml; run with --config-dir . data=heart
  fedimb data import table.parquet target=diagnosis        settings of the source may follow as key=value
  fedimb data import images/ --to conf/data/chest.yaml     class folders, or a CSV that lists the pictures
  fedimb data import cohort.db query="SELECT ..."          a database

Known are tables (CSV, ARFF, KEEL, Parquet, Arrow), SQLite and DuckDB, .npz, pictures, DICOM with a CSV, PFLlib's shards
and LEAF's JSON. Read the lines that begin with "not sure" before the first run."""


def register_import(actions: "Verbs") -> None:
    """Add ``import`` to the actions of ``fedimb data``."""
    parser = actions.add_parser(
        "import",
        help="write a data YAML for files that you have",
        description=_IMPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="PATH", help="file or folder")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the source; they are kept")
    parser.add_argument("--to", metavar="FILE", help="the YAML to write; default: data/NAME.yaml")
    parser.add_argument("--force", action="store_true", help="replace the YAML if it is there")
    parser.set_defaults(handler=import_command)


def import_command(args: argparse.Namespace) -> "DataImported":
    """``fedimb data import``.

    Raises:
        ConfigError: the YAML is there already, a setting is wrong, or a choice is needed.
        DataError: nothing that fedimb knows, or files that cannot be read.
    """
    from fedimb.atomic import write_atomic
    from fedimb.cli.output.parts import DataImported
    from fedimb.cli.verbs import split_words
    from fedimb.config.catalogue import CONFIG_DIR, Catalogue
    from fedimb.data.check import load_source, read_settings
    from fedimb.data.importing.group import data_group, full_source, group_name, to_yaml
    from fedimb.data.importing.layouts import find_layout
    from fedimb.data.paths import find_data
    from fedimb.errors import ConfigError
    from fedimb.report.describe import describe_source, source_counts
    from fedimb.text import plain

    given, words = split_words(args.file, args.settings)
    path = find_data(given).absolute()
    target = Path(args.to or f"data/{group_name(path, Catalogue().options('data'))}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--to {target}: give a name ending in .yaml")
    if target.exists() and not args.force:
        raise ConfigError(f"{target} is there already: choose another name with --to FILE, or replace it with --force")
    settings = read_settings(words)
    on_bad = str(settings.pop("on_bad", "refuse"))
    found = find_layout(path, settings)
    data = load_source(full_source(found) | {"on_bad": on_bad})
    group = data_group(found, data, on_bad)
    write_atomic(target, to_yaml(str(path), found, group).encode())
    usable = target.absolute().parent.name == "data"
    run = f"fedimb run --config-dir {target.parent.parent} data={target.stem}" if usable else None
    if not args.json:
        shown = [plain(line, sys.stdout) for line in (path, found.layout, *found.unsure)]
        print(f"{shown[0]}: {shown[1]}\nsource: {group['source']['name']}\n{describe_source(data, sys.stdout)}\n")
        print("".join(f"not sure: {line}\n" for line in shown[2:]), end="")
        print(f"written: {target}\ncheck it: fedimb data check {target}")
        move = "move it into a folder called data, as DIR/data/NAME.yaml, then fedimb run --config-dir DIR data=NAME"
        print(f"run it:   {run or move}")
        if usable:
            sweep = f"fedimb sweep data={target.stem} loss=ce,focal"
            print(f"compare:  {CONFIG_DIR}={target.parent.parent} {sweep}   (sweep, compare and tune read it there)")
    return DataImported(
        layout=found.layout,
        source=str(group["source"]["name"]),
        **source_counts(data),
        unsure=found.unsure,
        settings=group,
        file=str(target),
        run=run,
    )
