"""Which code a run used: files by content, installed distributions by the hashes of their recorded files.

Files are fedimb's own (the same whether installed or a checkout) and modules outside installed distributions, such as a
plug-in that is being written, with the modules it imports, also inside functions. The code of parts that a run does not
use is left out, because one process may do many runs: an edit of one method leaves the runs of another as they are.

Not covered: data files that a plug-in's code opens itself, and modules outside distributions that are imported under a
name computed at run time and only in another process.
"""

import ast
import base64
import contextlib
import hashlib
import importlib
import json
import os
import re
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from fedimb.config.load import NO_INFLUENCE
from fedimb.registry import entries
from fedimb.schema import RunConfig, calibration_part

_STARTED_NS = time.time_ns()
_BEFORE = frozenset(sys.modules)
EDITED = "edited while the program was running"
"""In place of a hash: the code in memory is older than the file, and cannot be known any more."""
GONE = "missing"
"""In place of a hash: there is no such file or distribution now."""

OWN = Path(__file__).parents[1]
APART = ("cli", "report", "bench", "testing", "tracking", "study", "deploy", "_moved.py", "__main__.py", "api.py")
"""Folders and files of fedimb that start runs or read their results; what they set is in the configuration."""

TOOLS = frozenset(
    {
        # The command line and the terminal.
        *("argcomplete", "click", "colorama", "pygments", "rich", "shellingham", "tqdm", "typer"),
        # They read the configuration, which is part of the identity as such.
        *("antlr4-python3-runtime", "hydra-core", "omegaconf", "pyyaml", "ruamel.yaml"),
        # They get copies of a run's metrics, or draw them.
        *(
            "alembic",
            "contourpy",
            "cycler",
            "fonttools",
            "gitpython",
            "graphene",
            "graphql-core",
            "jinja2",
            "kiwisolver",
        ),
        *("markupsafe", "matplotlib", "mlflow", "mlflow-skinny", "mlflow-tracing", "sqlalchemy"),
        # They carry messages unchanged: runs on ray and inline agree bit for bit, which tests check.
        *("msgpack", "psutil", "ray"),
        # They install, measure and test.
        *(
            "coverage",
            "execnet",
            "hypothesis",
            "iniconfig",
            "pip",
            "pluggy",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
        ),
        *("setuptools", "wheel"),
    }
)
"""Distributions that cannot change a run's numbers, in lower case."""


@dataclass(frozen=True)
class Code:
    """The code of one run.

    Attributes:
        files: sha256 (hex) by path below its package's folder (``mine/client.py``); or `EDITED`, or `GONE`.
        plugins: installed distributions whose parts the run uses: version and sha256 by name; or `GONE`.
        distributions: the other installed distributions that the process imported, likewise. Some of them may have been
            imported by something else it did, so they are compared by name, and not part of `sha`.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        """sha256 (hex) of files and plug-ins."""
        return _sha(json.dumps([dict(self.files), dict(self.plugins)], sort_keys=True).encode())


def code_of(words: Iterable[str], deployed: bool = False, more: Iterable[str] = ()) -> Code:
    """The code that a run with these names in its configuration uses, as this process has imported it.

    Args:
        words: every key and text of the configuration; parts named in it are used.
        deployed: whether it runs on sites, so that fedimb.deploy is part of it.
        more: further files of fedimb, as ``study/computed.py``.
    """
    used = set(words)
    outside, imports, texts = _outside(used)
    own = frozenset(name for name in imports if name.startswith("fedimb."))
    files = {f"fedimb/{name}": sha for name, sha in _own_files(frozenset(used | texts), own, deployed).items()}
    files |= {f"fedimb/{name}": _own_sha(OWN / name) for name in more}
    for name in sorted(outside):
        files[outside[name][0]] = _loaded_sha(name, outside[name][1])
    plugins, others = _imported(used, _tops_of(imports))
    return Code(files, *({name: _installed(name) for name in sorted(names)} for names in (plugins, others)))


def remember_imported() -> None:
    """Note the content of every module outside distributions that is imported now.

    To be called before anything that takes time: a file that is edited afterwards is not what this process runs.
    """
    for name in list(sys.modules):
        if (path := _file_of(name)) is not None:
            _loaded_sha(name, path)


def words_of(config: RunConfig) -> set[str]:
    """Every key and text of a configuration that can change numbers: the names of its parts are among them."""
    found: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                found.add(str(key))
                walk(value)
        elif isinstance(node, list | tuple):
            for value in node:
                walk(value)
        elif isinstance(node, str):
            found.add(node)

    walk({key: value for key, value in config.model_dump().items() if key not in NO_INFLUENCE})
    return found | set(map(calibration_part, config.calibration))


class DiskCode:
    """Code as it is on disk now, which is what a new process would import. Every file is read once."""

    def __init__(self) -> None:
        importlib.invalidate_caches()
        self._infos = _infos.__wrapped__(tuple(sys.path))
        self._files: dict[str, str] = {}
        self._distributions: dict[str, str] = {}

    def now(self, before: Code) -> Code:
        """The same files, plug-ins and distributions as ``before`` names."""
        for name in before.files.keys() - self._files.keys():
            self._files[name] = _disk_sha(place) if (place := _place(name)) else GONE
        for name in (before.plugins.keys() | before.distributions.keys()) - self._distributions.keys():
            self._distributions[name] = _recorded(info) if (info := self._infos.get(name)) else GONE
        return Code(
            {name: self._files[name] for name in before.files},
            {name: self._distributions[name] for name in before.plugins},
            {name: self._distributions[name] for name in before.distributions},
        )


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
def _own_files(used: frozenset[str], imported: frozenset[str], deployed: bool) -> dict[str, str]:
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
            return {name: _own_sha(OWN / name) for name in sorted(taken)}
        taken |= further


@cache
def _own_sha(path: Path) -> str:
    """Of a file of fedimb, once per process: what it has imported stays as it was."""
    return EDITED if path.stat().st_mtime_ns > _STARTED_NS else _sha(path.read_bytes())


# modules outside distributions


def _outside(used: set[str]) -> tuple[dict[str, tuple[str, Path]], set[str], set[str]]:
    """Modules outside distributions that the run uses: name -> (path below its package's folder, file).

    All that are imported are, except those of parts that it does not use, and of packages of which it uses no part.
    Beside them: all modules that those of its parts may import, and the texts in these.
    """
    imported = {name for name in list(sys.modules) if _file_of(name) is not None}
    parts: dict[str, set[str]] = {}
    for entry in entries.registered():
        modules = {entry.module, str(getattr(entry.factory, "__module__", ""))}
        parts.setdefault(entry.name, set()).update(name for name in modules if _file_of(name) is not None)
    roots = {word.rpartition(".")[0] for word in used if _file_of(word.rpartition(".")[0]) is not None}
    while True:
        reached = _closure(roots.union(*(modules for part, modules in parts.items() if part in used)))
        unused = set().union(*(modules for part, modules in parts.items() if part not in used)) - reached.keys()
        packages = _tops_of(unused) - _tops_of(reached)
        spare = _closure(unused | {name for name in imported if _tops_of([name]) <= packages})
        kept = _closure(reached.keys() | (imported - spare.keys()))
        imports, texts = _read_all(reached)
        if texts & parts.keys() <= used:  # a part may build another by a name in its own code
            return kept, imports, texts
        used = used | texts & parts.keys()


def _tops_of(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def _read_all(places: Mapping[str, tuple[str, Path]]) -> tuple[set[str], set[str]]:
    """(modules that these modules may import, texts in them)."""
    read = [_read(path, name) for name, (_, path) in places.items()]
    return set().union(*(modules for modules, _ in read)), set().union(*(texts for _, texts in read))


def _closure(names: Iterable[str]) -> dict[str, tuple[str, Path]]:
    """These modules and all that they import, also inside functions, as far as they are outside distributions."""
    found: dict[str, tuple[str, Path]] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        place = None if name in found else _file_of(name)
        if place is not None:
            found[name] = (_relative(name, place), place)
            waiting += _read(place, name)[0]
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
    return _parsed(path, name, path.stat().st_mtime_ns) if path.suffix == ".py" else (frozenset(), frozenset())


def _file_of(name: str) -> Path | None:
    """The file of a module outside distributions; None for any other module, or if there is none."""
    top = name.partition(".")[0]
    if not top or top in sys.stdlib_module_names or top in ("fedimb", "__main__", "__mp_main__"):
        return None
    if top.startswith("__editable__"):  # pip's note of where a checkout is: another one with each version
        return None
    loaded = sys.modules.get(name)
    origin = getattr(loaded, "__file__", None) if loaded is not None else _found(name, _search_path())
    if not isinstance(origin, str) or _belongs(origin, tuple(sys.path)) or not os.path.isfile(origin):
        return None
    return Path(os.path.abspath(origin))


@lru_cache(maxsize=1 << 15)
def _belongs(origin: str, path: tuple[str, ...]) -> bool:
    """Whether a file is one of an installed distribution, or of Python itself."""
    for site in _sites(path):
        if origin.startswith(site) and origin[len(site) :].partition("/")[0].partition(".")[0] in _tops(path):
            return True
    library = f"{sysconfig.get_path('stdlib')}/"
    return origin.startswith(library) and "-packages/" not in origin


@lru_cache(maxsize=4)
def _sites(path: tuple[str, ...]) -> tuple[str, ...]:
    """The folders that distributions are installed in."""
    return tuple(sorted({f"{info.parent}/" for info in _infos(path).values()}))


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


def _relative(name: str, path: Path) -> str:
    """``mine.client`` and its file -> ``mine/client.py``: the same wherever the package's folder is."""
    folders = name.split(".")
    return "/".join([*(folders if path.name.startswith("__init__.") else folders[:-1]), path.name])


def _module_of(relative: str) -> str:
    """``mine/client.py`` -> ``mine.client``."""
    *folders, file = relative.split("/")
    stem = file.partition(".")[0]
    return ".".join(folders if stem == "__init__" else [*folders, stem])


def _place(relative: str) -> Path | None:
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


def _loaded_sha(name: str, path: Path) -> str:
    loaded = sys.modules.get(name)
    if loaded is None:
        return _disk_sha(path)
    spec, sha = _seen.get(name, (None, ""))
    if not sha or spec is not loaded.__spec__:
        late = name in _BEFORE and path.stat().st_mtime_ns > _STARTED_NS
        sha = EDITED if late else _disk_sha(path)
        _seen[name] = (loaded.__spec__, sha)
    return sha


def _disk_sha(path: Path) -> str:
    return _sha(path.read_bytes())


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# installed distributions


@lru_cache(maxsize=4)
def _infos(path: tuple[str, ...]) -> dict[str, Path]:
    """Every installed distribution's metadata folder, by name in lower case."""
    found: dict[str, Path] = {}
    for folder in path:
        for info in sorted(Path(folder or ".").glob("*.dist-info")):
            if (info / "RECORD").is_file():
                name = info.name.removesuffix(".dist-info").rpartition("-")[0]
                found.setdefault(name.lower().replace("_", "-"), info)
    return found


@lru_cache(maxsize=4)
def _tops(path: tuple[str, ...]) -> dict[str, set[str]]:
    """Names of the distributions that have files of a top-level module."""
    found: dict[str, set[str]] = {}
    for name, info in _infos(path).items():
        listed = info / "top_level.txt"
        text = (listed if listed.is_file() else info / "RECORD").read_text(encoding="utf-8")
        for top in set(text.split() if listed.is_file() else _TOP.findall(text)):
            found.setdefault(top, set()).add(name)
    return found


_TOP = re.compile(r"^\"?([^/.,\"\n]+)[^,\n]*\.(?:py|so|pyd),", re.MULTILINE)
_FILES = re.compile(r"^\"?([^,\"\n]+\.(?:py|so|pyd))\"?,(?:sha256=)?([^,\n]*),", re.MULTILINE)


def _imported(used: set[str], wanted: set[str]) -> tuple[set[str], set[str]]:
    """Names of the installed distributions whose parts the run uses, and of the others that this process imported.

    `TOOLS` are not among them, nor plug-ins that the run does not use. One that uses a plug-in may use others by it.

    Args:
        used: names of parts.
        wanted: top-level modules that code outside distributions imports.
    """
    tops = _tops(tuple(sys.path))
    found = set().union(*(tops.get(name, set()) for name in {name.partition(".")[0] for name in list(sys.modules)}))
    plugged: dict[str, bool] = {}
    for entry in entries.registered():
        for name in tops.get(str(getattr(entry.factory, "__module__", "")).partition(".")[0], ()):
            plugged[name] = plugged.get(name, False) or entry.name in used
    plugged = {name: here or any(name in tops.get(top, ()) for top in wanted) for name, here in plugged.items()}
    plugged.pop("fedimb", None)
    plugins = set(plugged) if any(plugged.values()) else set()
    return plugins, found - plugged.keys() - TOOLS - {"fedimb"}


@lru_cache(maxsize=512)
def _installed(name: str) -> str:
    """`_recorded`, once per process: what it has imported stays as it was."""
    return _recorded(_infos(tuple(sys.path))[name])


def _recorded(info: Path) -> str:
    """Version and hash of an installed distribution's RECORD, and of files that were edited since it was installed.

    A file is read again only if it is newer than RECORD, so this takes milliseconds.
    """
    version = info.name.removesuffix(".dist-info").rpartition("-")[2]
    text = (info / "RECORD").read_bytes()
    sha = hashlib.sha256(text)
    installed = (info / "RECORD").stat().st_mtime_ns + 2_000_000_000
    for file, recorded in _FILES.findall(text.decode()):
        try:
            if os.stat(f"{info.parent}/{file}").st_mtime_ns <= installed:
                continue
            content = Path(info.parent, file).read_bytes()
        except OSError:
            sha.update(f"{file} {GONE}\n".encode())
            continue
        if _urlsafe(content) != recorded:
            sha.update(f"{file} {_sha(content)}\n".encode())
    return f"{version} {sha.hexdigest()}"


def _urlsafe(content: bytes) -> str:
    """sha256 as RECORD writes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
