"""What the scripts in ``experiments/`` share: where runs and tables go, and the table itself."""

import argparse
import logging
from pathlib import Path


def parser_of(script: str | Path, about: str | None) -> argparse.ArgumentParser:
    """A parser with ``--output`` (default ``runs/<the script's folder>``) and ``--to`` (the script's folder).

    Args:
        script: ``__file__`` of the experiment.
        about: its ``__doc__``.
    """
    here = Path(script).absolute().parent
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs", here.name), help="run folders")
    parser.add_argument("--to", type=Path, default=here, help="CSVs and table")
    return parser


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line's arguments; warnings are shown from here on, and the folder ``--to`` exists."""
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    args.to.mkdir(parents=True, exist_ok=True)
    return args


def publish(text: str, to: Path) -> None:
    """Write ``table.txt`` into ``to`` and print it."""
    text = text.rstrip("\n")
    (to / "table.txt").write_text(text + "\n")
    print(text)
