"""Source files by content: fedimb's own, and modules outside installed distributions with all that they import."""

import ast
import contextlib
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from fedimb.registry import entries
from fedimb.rundir.distributions import belongs_to_distribution

_STARTED_NS = time.time_ns()
_BEFORE = frozenset(sys.modules)
EDITED = "edited while the program was running"
"""In place of a hash: the code in memory is older than the file, and cannot be known any more."""

OWN = Path(__file__).parents[1]
APART = ("cli", "report", "bench", "testing", "tracking", "study", "deploy", "_moved.py", "__main__.py", "api.py")
"""Folders and files of fedimb that start runs or read their results; what they set is in the configuration."""


def remember_imported() -> None:
    """Note the content of every module outside distributions that is imported now.

    To be called before anything that takes time: a file that is edited afterwards is not what this process runs.
    """
    for name in _imported():
        if (path := _file_of(name)) is not None:
            loaded_sha(name, path)


# fedimb's own files


@dataclass(frozen=True)
class _Own:
    """A file of fedimb: its dotted name, the names of the parts it registers, and the names it mentions."""

    module: str
    parts: frozenset[str]
    mentions: frozenset[str]


_REGISTERS = re.compile(r"\bregister\(\s*\"\w+\",\s*\"(\w+)\"")
_MENTIONS = re.compile(r"fedimb(?:\.\w+)*(?: import (?:\([^)]*\)|[^\n]*))?")
_PARTS = frozenset(kind.removeprefix("fedimb.").replace(".", "/") for kind in entries.KINDS.values())


@cache
def _own(folder: str) -> dict[str, _Own]:
    """The files below one of fedimb's folders (or one file), links to ``strategies`` and ``clients`` followed."""
    paths = [f"{at}/{name}" for at, _, names in os.walk(OWN / folder, followlinks=True) for name in names]
    found = {}
    for path in sorted(paths or [str(OWN / folder)]):
        short = path[len(str(OWN)) + 1 :]
        if short.endswith(".py"):
            text = Path(path).read_text(encoding="utf-8")
            parts = _REGISTERS.findall(text) if short.rpartition("/")[0] in _PARTS else ()
            found[short] = _Own(_module_of(f"fedimb/{short}"), frozenset(parts), _mentioned(text))
    return found


def _mentioned(text: str) -> frozenset[str]:
    """Modules of fedimb that a text imports or names, except in a docstring's backquotes."""
    found: set[str] = set()
    for match in _MENTIONS.finditer(text):
        module, _, listed = match[0].partition(" import ")
        if text[match.start() - 1 : match.start()] != "`":
            found |= {module, *(f"{module}.{word}" for word in re.findall(r"\w+", listed))}
    return frozenset(found)


@lru_cache(maxsize=64)
def own_files(used: frozenset[str], imported: frozenset[str], deployed: bool) -> dict[str, str]:
    """sha256 of fedimb's files, without parts that are neither named nor imported by a file that is left.

    Args:
        used: names of parts.
        imported: modules of fedimb that code outside it imports.
    """
    left_out = {name for name in APART if not (deployed and name == "deploy")} | {"__pycache__"}
    kept = {name: file for top in sorted(os.listdir(OWN)) if top not in left_out for name, file in _own(top).items()}
    taken = {name for name, file in kept.items() if not file.parts or file.parts & used}
    while True:
        mentioned = imported.union(*(kept[name].mentions for name in taken))
        further = {name for name, file in kept.items() if name not in taken and file.module in mentioned}
        if not further:
            return {name: own_sha(OWN / name) for name in sorted(taken)}
        taken |= further


@cache
def own_sha(path: Path) -> str:
    """Of a file of fedimb, once per process: what it has imported stays as it was."""
    return EDITED if path.stat().st_mtime_ns > _STARTED_NS else content_sha(path.read_bytes())


# modules outside distributions


def outside_modules(used: set[str]) -> tuple[dict[str, tuple[str, Path]], set[str], set[str]]:
    """Modules outside distributions that the run uses: name -> (path below its package's folder, file).

    All that are imported are, except those of parts that it does not use, and of packages of which it uses no part.
    Beside them: all modules that those of its parts may import, and the texts in these.
    """
    outside = _Outside()
    imported = {name for name in _imported() if outside.place(name) is not None}
    parts: dict[str, set[str]] = {}
    for entry in entries.registered():
        modules = {entry.module, str(getattr(entry.factory, "__module__", ""))}
        parts.setdefault(entry.name, set()).update(name for name in modules if outside.place(name) is not None)
    roots = {word.rpartition(".")[0] for word in used if outside.place(word.rpartition(".")[0]) is not None}
    while True:
        reached = outside.closure(roots.union(*(modules for part, modules in parts.items() if part in used)))
        unused = set().union(*(modules for part, modules in parts.items() if part not in used)) - reached.keys()
        packages = top_packages(unused) - top_packages(reached)
        spare = outside.closure(unused | {name for name in imported if top_packages([name]) <= packages})
        kept = outside.closure(reached.keys() | (imported - spare.keys()))
        imports, texts = outside.read_all(reached)
        if texts & parts.keys() <= used:  # a part may build another by a name in its own code
            return kept, imports, texts
        used = used | texts & parts.keys()


def top_packages(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


class _Outside:
    """Modules outside distributions, as they are now: each name is looked up once, and each file read once.

    In a program of hundreds of its own modules, which import each other, a name is asked for thousands of times.
    """

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, Path] | None] = {}
        self._contents: dict[str, tuple[frozenset[str], frozenset[str]]] = {}

    def place(self, name: str) -> tuple[str, Path] | None:
        """(path below its package's folder, file) of a module; None for any other, or if it has no file."""
        if name not in self._places:
            file = _file_of(name)
            self._places[name] = None if file is None else (_relative(name, file), file)
        return self._places[name]

    def read(self, name: str, file: Path) -> tuple[frozenset[str], frozenset[str]]:
        """(modules that a module may import, texts in it)."""
        if name not in self._contents:
            self._contents[name] = _read(file, name)
        return self._contents[name]

    def read_all(self, places: Mapping[str, tuple[str, Path]]) -> tuple[set[str], set[str]]:
        """(modules that these modules may import, texts in them)."""
        read = [self.read(name, file) for name, (_, file) in places.items()]
        return set().union(*(modules for modules, _ in read)), set().union(*(texts for _, texts in read))

    def closure(self, names: Iterable[str]) -> dict[str, tuple[str, Path]]:
        """These modules and all that they import, also inside functions, as far as they are outside distributions."""
        found: dict[str, tuple[str, Path]] = {}
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            place = None if name in found else self.place(name)
            if place is not None:
                found[name] = place
                waiting += self.read(name, place[1])[0]
                waiting += [name.rpartition(".")[0]] if "." in name else []
        return found


@lru_cache(maxsize=4096)
def _parsed(path: Path, name: str, _mtime_ns: int) -> tuple[frozenset[str], frozenset[str]]:
    """(modules a file may import, texts in it)."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return frozenset(), frozenset()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    modules: set[str] = set()
    words: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            modules |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
    return frozenset(modules), frozenset(words)


def _read(path: Path, name: str) -> tuple[frozenset[str], frozenset[str]]:
    return _parsed(path, name, os.stat(path).st_mtime_ns) if path.suffix == ".py" else (frozenset(), frozenset())


_inside: dict[str, object] = {}
"""Imported modules that belong to an installed distribution or to Python, as far as `_inside_path` is sys.path."""
_inside_path: list[str] = []


def _imported() -> list[str]:
    """The imported modules, without those that were found in a distribution before: of two thousand, a run has few."""
    if _inside_path != sys.path:
        _inside.clear()
        _inside_path[:] = sys.path
    path, left = tuple(sys.path), []
    for name, module in list(sys.modules.items()):
        if module is not None and _inside.get(name) is module:
            continue
        origin = getattr(module, "__file__", None)
        if isinstance(origin, str) and belongs_to_distribution(origin, path):
            _inside[name] = module
        else:
            left.append(name)
    return left


def _file_of(name: str) -> Path | None:
    """The file of a module outside distributions; None for any other module, or if there is none."""
    top = name.partition(".")[0]
    if not top or top in sys.stdlib_module_names or top in ("fedimb", "__main__", "__mp_main__"):
        return None
    if top.startswith("__editable__"):  # pip's note of where a checkout is: another one with each version
        return None
    loaded = sys.modules.get(name)
    origin = getattr(loaded, "__file__", None) if loaded is not None else _found(name, _search_path())
    if not isinstance(origin, str) or belongs_to_distribution(origin, tuple(sys.path)) or not os.path.isfile(origin):
        return None
    return _path(os.path.abspath(origin))


@lru_cache(maxsize=4096)
def _path(text: str) -> Path:
    """The same object for the same text: making one takes longer than all else that is asked about a module."""
    return Path(text)


@lru_cache(maxsize=4096)
def _found(name: str, path: tuple[str, ...]) -> str | None:
    """The file of a module that is not imported; nothing is imported to find it."""
    where, origin = list(path), None
    for word in _prefixes(name):
        spec = _spec(word, where)
        last = word.rpartition(".")[2]
        folders = [f"{place}/{last}" for place in where if os.path.isdir(f"{place}/{last}")]
        if spec is None and not folders:
            return None
        origin = spec.origin if spec is not None and spec.has_location else None
        inside = None if spec is None else spec.submodule_search_locations
        where = folders if inside is None or origin is None else list(inside)
    return origin


def _spec(name: str, where: list[str]) -> ModuleSpec | None:
    """The first finder's answer; None also for a folder without ``__init__.py``, which only an import can resolve."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        top = "." not in name and finder is not PathFinder
        with contextlib.suppress(KeyError):  # of such a folder below another that is not imported
            if find is not None and (spec := find(name, None if top else where)) is not None:
                return spec if isinstance(spec, ModuleSpec) else None
    return None


def _search_path() -> tuple[str, ...]:
    """sys.path, and the working folder, where a run finds a user's model class (`fedimb.registry.targets`)."""
    return (*sys.path, *([] if os.getcwd() in sys.path else [os.getcwd()]))


def _prefixes(name: str) -> Iterator[str]:
    words = name.split(".")
    return (".".join(words[: n + 1]) for n in range(len(words)))


@lru_cache(maxsize=4096)
def _relative(name: str, path: Path) -> str:
    """``mine.client`` and its file -> ``mine/client.py``: the same wherever the package's folder is."""
    folders = name.split(".")
    return "/".join([*(folders if path.name.startswith("__init__.") else folders[:-1]), path.name])


def _module_of(relative: str) -> str:
    """``mine/client.py`` -> ``mine.client``."""
    *folders, file = relative.split("/")
    stem = file.partition(".")[0]
    return ".".join(folders if stem == "__init__" else [*folders, stem])


def find_file(relative: str) -> Path | None:
    """Where a file of `Code.files` is now."""
    if relative.startswith("fedimb/"):
        path = OWN / relative.removeprefix("fedimb/")
        return path if path.is_file() else None
    name = _module_of(relative)
    loaded = getattr(sys.modules.get(name), "__file__", None)
    origin = loaded if isinstance(loaded, str) else _found(name, _search_path())
    return Path(origin) if origin is not None and Path(origin).is_file() else None


_seen: dict[str, tuple[object, str]] = {}
"""Module -> (its spec when it was first read, hash): a file that is edited later is not what this process runs."""


def loaded_sha(name: str, path: Path) -> str:
    loaded = sys.modules.get(name)
    if loaded is None:
        return disk_sha(path)
    spec, sha = _seen.get(name, (None, ""))
    if not sha or spec is not loaded.__spec__:
        late = name in _BEFORE and path.stat().st_mtime_ns > _STARTED_NS
        sha = EDITED if late else disk_sha(path)
        _seen[name] = (loaded.__spec__, sha)
    return sha


def disk_sha(path: Path) -> str:
    return content_sha(path.read_bytes())


def content_sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
