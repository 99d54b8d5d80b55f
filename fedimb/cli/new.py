"""``fedimb new strategy NAME``: a method of your own as a small installable package that runs and passes its test."""

import argparse
import keyword
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Write a method's pages as a package of your own: server half, client half, contract, settings, test. It works as it
is; change it piece by piece.

  fedimb new strategy fairer                    writes ./fairer-method/
  fedimb new strategy fairer --dir ~/methods/f  writes there
  pip install -e fairer-method
  fedimb run strategy=fairer
  cd fairer-method && python -m pytest"""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "$package/contract.py": "contract.py",
    "$package/server.py": "server.py",
    "$package/client.py": "client.py",
    "$package/configs/strategy/$name.yaml": "settings.yaml",
    "tests/test_$name.py": "test.py",
}
_EMPTY = ("$package/__init__.py", "$package/configs/__init__.py")


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    new = verbs.add_parser(
        "new",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = new.add_subparsers(dest="kind", metavar="KIND", required=True)
    strategy = kinds.add_parser(
        "strategy", help="a strategy", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    strategy.add_argument("name", metavar="NAME", help="lower-case letters, digits and _, as in strategy=NAME")
    strategy.add_argument("--dir", metavar="DIR", help="folder to write, new or empty (default: NAME-method)")
    strategy.set_defaults(handler=new_strategy)


def new_strategy(args: argparse.Namespace) -> int:
    """``fedimb new strategy``."""
    check_name(args.name)
    folder = Path(args.dir).expanduser() if args.dir else Path(f"{args.name.replace('_', '-')}-method")
    files = pages(args.name)
    write(folder, files)
    print(f"{folder}/")
    for name in files:
        print(f"  {name}")
    print(f"next:\n  pip install -e {folder}\n  fedimb run strategy={args.name}\n  cd {folder} && python -m pytest")
    return 0


def check_name(name: str) -> None:
    """Raises ConfigError unless ``name`` can be a strategy's, a module's and a query's, and is free."""
    from fedimb.config.catalogue import Catalogue
    from fedimb.errors import ConfigError

    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigError(
            f"'{name}' cannot name a strategy: begin with a letter, then a-z, 0-9 and _, no Python keyword"
        )
    # Every strategy has its YAML, so the catalogue knows all of them without importing one.
    if name in Catalogue().options("strategy") or find_spec(f"fedimb.contracts.{name}") is not None:
        raise ConfigError(f"strategy '{name}' exists already; choose another name (fedimb list strategies)")
    if find_spec(f"{name}_method") is not None:
        raise ConfigError(f"a Python package '{name}_method' is installed already; choose another name")


def pages(name: str) -> dict[str, str]:
    """The package's files: path below its folder -> content."""
    from importlib.resources import files
    from string import Template

    words = {
        "name": name,
        "package": f"{name}_method",
        "project": f"{name.replace('_', '-')}-method",
        "Class": "".join(part.capitalize() for part in name.split("_")),
    }
    templates = files("fedimb.cli.templates")
    written = {path: templates.joinpath(f"{source}.tmpl").read_text("utf-8") for path, source in _FILES.items()}
    written |= dict.fromkeys(_EMPTY, "")
    return {
        Template(path).substitute(words): Template(text).substitute(words) for path, text in sorted(written.items())
    }


def write(folder: Path, pages: dict[str, str]) -> None:
    """Write all pages. Raises ConfigError when the folder holds something already or cannot be made."""
    from fedimb.errors import ConfigError

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder; choose another with --dir")
    try:
        for name, text in pages.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}; choose another folder with --dir") from error
