"""``fedimb new KIND NAME``: writes a new part as a small installable package that runs and passes its test."""

import argparse
import ast
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.output.parts import NewPart
    from fedimb.cli.verbs import Verbs

_EMPTY = ("$package/__init__.py", "$package/configs/__init__.py")
_PART = {
    "pyproject.toml": "part_pyproject.toml",
    "README.md": "part_README.md",
    "$package/$word.py": "$word.py",
    "$package/configs/$group/$name.yaml": "$word.yaml",
    "tests/test_$name.py": "part_test.py",
}
_STRATEGY = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "$package/contract.py": "contract.py",
    "$package/server.py": "server.py",
    "$package/client.py": "client.py",
    "$package/configs/$group/$name.yaml": "settings.yaml",
    "tests/test_$name.py": "test.py",
}


@dataclass(frozen=True)
class Kind:
    """What ``fedimb new`` writes for one kind of part.

    Attributes:
        word: as typed; also the suffix of the package's name and the name of its module.
        line: its line in the help.
        run: the command that uses it; ``$name`` is filled in.
        page: the page of docs that explains it.
        what: its name in prose, if not ``word``.
        ending: suffix of the class's name.
        registered: the registry's kind, if not ``word``.
        group: folder of its YAML, if not the registry's kind.
        files: path in the package -> template.
    """

    word: str
    line: str
    run: str
    page: str
    what: str = ""
    ending: str = ""
    registered: str = ""
    group: str = ""
    files: tuple[tuple[str, str], ...] = tuple(_PART.items())

    @property
    def kind(self) -> str:
        """Its kind in the registry."""
        return self.registered or self.word

    @property
    def plural(self) -> str:
        """Its name in `fedimb list`."""
        from fedimb.cli.listing import PLURALS

        return next(plural for plural, kind in PLURALS.items() if kind == self.kind)

    def words(self, name: str) -> dict[str, str]:
        """The values filled into the templates for a part of this name."""
        from string import Template

        package = f"{name}_{'method' if self.word == 'strategy' else self.word}"
        what = self.what or self.word
        return {
            "name": name,
            "package": package,
            "project": package.replace("_", "-"),
            "Class": "".join(part.capitalize() for part in name.split("_")) + self.ending,
            "word": self.word,
            "kind": self.kind,
            "group": self.group or self.kind,
            "plural": self.plural,
            "run": Template(self.run).substitute(name=name),
            "check": f"check_{self.kind}",
            "what": what,
            "a_what": f"{'an' if what[0] in 'aeiou' else 'a'} {what}",
            "A_what": f"{'An' if what[0] in 'aeiou' else 'A'} {what}",
            "page": self.page,
        }


KINDS = {
    kind.word: kind
    for kind in (
        Kind("loss", "a loss for local training", "fedimb run loss=$name", "add-a-loss.md", ending="Loss"),
        Kind(
            "query",
            "a query rule of active learning: which rows to label next",
            "fedimb run strategy=active 'strategy.active.query={name: $name}'",
            "add-a-query-rule.md",
            what="query rule",
            ending="Query",
        ),
        Kind(
            "aggregator",
            "a Flower strategy that merges the clients' weights",
            "fedimb run aggregator=$name",
            "add-an-aggregator.md",
        ),
        Kind(
            "optimizer",
            "a server optimiser: how the server moves the weights towards the clients' mean",
            "fedimb run aggregator=$name",
            "add-a-strategy.md",
            what="server optimiser",
            registered="aggregator",
        ),
        Kind(
            "source",
            "a data source: reads your data",
            "fedimb run data=$name",
            "add-a-source.md",
            ending="Source",
            group="data",
        ),
        Kind(
            "sampler",
            "a sampler: which rows a client visits, in which order",
            "fedimb run sampler=$name",
            "add-a-sampler.md",
            ending="Sampler",
        ),
        Kind("model", "a classifier", "fedimb run model=$name", "add-a-model.md", ending="Model"),
        Kind(
            "generator",
            "a generator of synthetic rows",
            "fedimb run strategy=fedssg data.public=30 data.n_max=80 'strategy.fedssg.generator={name: $name}'",
            "add-a-generator.md",
            ending="Generator",
        ),
        Kind(
            "strategy",
            "a method: its server side, its client side, and the records they exchange",
            "fedimb run strategy=$name",
            "add-a-strategy.md",
            files=tuple(_STRATEGY.items()),
        ),
    )
}

_ABOUT = f"""\
Create a small package with a new part: code, settings and a test. It is a working example; change it step by step.
KIND is one of:

{chr(10).join(f"  {kind.word:<11} {kind.line}" for kind in KINDS.values())}

  fedimb new loss gentle                       write the package to ./gentle-loss/
  fedimb new loss gentle --dir ~/losses/g      write it to another folder
  pip install --no-build-isolation -e gentle-loss
  fedimb run loss=gentle
  cd gentle-loss && python -m pytest

For the interfaces of all other kinds in `fedimb list` see docs/entry-points.md."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_READ_AS_VALUES = {"null", "true", "false", "yes", "no", "on", "off", "inf", "nan"}  # by YAML or the command line


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    new = verbs.add_parser("new", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    new.add_argument("kind", metavar="KIND", help=", ".join(KINDS))
    new.add_argument("name", metavar="NAME", help="lower-case letters, digits and _, as in loss=NAME")
    new.add_argument("--dir", metavar="DIR", help="folder to write, new or empty (default: ./NAME-KIND)")
    new.set_defaults(handler=new_part)


def new_part(args: argparse.Namespace) -> "NewPart":
    """``fedimb new``."""
    from fedimb.cli.output.parts import NewPart

    kind = kind_of(args.kind)
    check_name(kind, args.name)
    words = kind.words(args.name)
    folder = Path(args.dir).expanduser() if args.dir else Path(words["project"])
    files = pages(kind, args.name)
    write(folder, files)
    print(f"{folder}/")
    for name in files:
        print(f"  {name}")
    steps = [f"pip install --no-build-isolation -e {folder}", words["run"], f"cd {folder} && python -m pytest"]
    print("\n  ".join(["next:", *steps]))
    return NewPart(folder=str(folder), files=list(files), next=steps)


def kind_of(word: str) -> Kind:
    """The kind a user names. Raises ConfigError if there is no template for it."""
    from fedimb import registry
    from fedimb.errors import ConfigError, nearest

    if word in KINDS:
        return KINDS[word]
    if word in registry.KINDS:
        raise ConfigError(
            f"fedimb new has no template for '{word}': see docs/entry-points.md for its interface. "
            f"Templates: {', '.join(KINDS)}"
        )
    raise ConfigError(f"no kind '{word}'.{nearest(word, KINDS)}")


def check_name(kind: Kind, name: str) -> None:
    """Raise ConfigError unless ``name`` is free and valid for a part, a module and a YAML file."""
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    from fedimb import registry
    from fedimb.config.catalogue import Catalogue
    from fedimb.errors import ConfigError

    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name in _READ_AS_VALUES:
        raise ConfigError(
            f"'{name}' cannot name a {kind.word}: use a-z, 0-9 and _ from a letter on, and no keyword of Python or YAML"
        )
    words = kind.words(name)
    # Every part of fedimb has a YAML file or a module of its name, so nothing has to be imported to see what is taken.
    folders = [registry.KINDS[each] for each in (kind.kind, *(["contract"] if kind.word == "strategy" else []))]
    if (
        name in Catalogue().options(words["group"])
        or any(find_spec(f"{folder}.{name}") is not None for folder in folders)
        or any(point.name == name for point in entry_points(group=f"fedimb.{kind.kind}"))
    ):
        raise ConfigError(f"{kind.word} '{name}' exists already; choose another name (fedimb list {kind.plural})")
    if find_spec(words["package"]) is not None:
        raise ConfigError(f"a Python package '{words['package']}' is installed already; choose another name")
    for path, text in pages(kind, name).items():
        nodes = ast.walk(ast.parse(text)) if path.endswith(".py") else ()
        if any(words["Class"] == alias.name for n in nodes if isinstance(n, ast.ImportFrom) for alias in n.names):
            raise ConfigError(f"'{name}': its class '{words['Class']}' would hide a class it uses; choose another name")


def pages(kind: Kind, name: str) -> dict[str, str]:
    """The package's files: path below its folder -> content."""
    from importlib.resources import files
    from string import Template

    words = kind.words(name)

    def filled(text: str) -> str:
        return Template(text).substitute(words)

    templates = files("fedimb.cli.templates")
    texts = {path: templates.joinpath(f"{filled(source)}.tmpl").read_text("utf-8") for path, source in kind.files}
    texts |= dict.fromkeys(_EMPTY, "")
    return {path: filled(text) for path, text in sorted((filled(path), text) for path, text in texts.items())}


def write(folder: Path, pages: dict[str, str]) -> None:
    """Write all pages, or nothing.

    Raises:
        ConfigError: the folder holds something already or cannot be made.
    """
    from fedimb.errors import ConfigError

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder; choose another with --dir")
    made: list[Path] = []
    try:
        for name, text in pages.items():
            file = folder / name
            for parent in [p for p in reversed(file.parents) if not p.exists()]:
                parent.mkdir()
                made.append(parent)
            made.append(file)
            file.write_text(text, encoding="utf-8")
    except BaseException as error:
        for path in reversed(made):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise ConfigError(f"cannot write {folder}: {error.strerror}; choose another folder with --dir") from error
