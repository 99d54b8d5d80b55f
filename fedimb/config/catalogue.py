"""Where configuration groups come from: fedimb's own, folders a user names, installed packages.

An installed package brings the YAML of its parts through the entry-point group ``fedimb.configs``; the value
is an importable module (a folder with ``__init__.py``) with group folders such as ``strategy/mine.yaml``.
A file that fedimb ships takes precedence over one of the same name elsewhere.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fedimb.errors import ConfigError

MODULE = "fedimb.configs"

Fingerprint = tuple[tuple[str, int, int], ...]

CONFIG_DIR = "FEDIMB_CONFIG_DIR"
"""Environment variable: folders of YAML groups, separated like those of PATH."""


class Catalogue:
    """The folders in use and the options of each group in them.

    Args:
        config_dirs: folders of YAML groups in addition to the shipped ones; the first one wins. Those of the
            environment variable FEDIMB_CONFIG_DIR come after them, for every verb and the workers it starts.

    Raises:
        ConfigError: a folder does not exist, or an installed package names a module that cannot be found.
    """

    def __init__(self, config_dirs: Sequence[Path] = ()) -> None:
        always = [Path(folder) for folder in os.environ.get(CONFIG_DIR, "").split(os.pathsep) if folder]
        self.folders = list(dict.fromkeys(Path(folder).expanduser().resolve() for folder in [*config_dirs, *always]))
        for folder in self.folders:
            if not folder.is_dir():
                raise ConfigError(f"no configuration folder '{folder}': create it or correct the path")
        self.modules = [MODULE, *_installed_modules(tuple(sys.path))]
        self.roots = [*(_folder_of(module) for module in self.modules), *self.folders]

    @cached_property
    def searchpath(self) -> str:
        """The Hydra override that adds everything but fedimb's own groups."""
        places = [f"file://{folder}" for folder in self.folders] + [f"pkg://{m}" for m in self.modules[1:]]
        return "hydra.searchpath=" + json.dumps(places, ensure_ascii=False)

    def fingerprint(self) -> Fingerprint:
        """Path, size and change time of every YAML file: if equal, a cached composition is still valid."""
        files = sorted(file for root in self.roots for file in root.rglob("*.yaml"))
        return tuple((str(f), (stat := f.stat()).st_size, stat.st_mtime_ns) for f in files)

    def options(self, group: str) -> list[str]:
        """Names that ``group=<name>`` accepts, sorted; empty if there is no such group."""
        if group.startswith((".", "/")) or ".." in group:
            return []
        found = (file for root in self.roots for file in (root / group).glob("*.yaml"))
        return sorted({file.stem for file in found}) if group else []

    def groups(self) -> list[str]:
        """Names of all groups (folders with at least one YAML file), sorted, nested ones with a slash."""
        found = {f.parent.relative_to(root).as_posix() for root in self.roots for f in root.rglob("*.yaml")}
        return sorted(found - {"."})


def data_set_about(about: Mapping[str, object]) -> str | None:
    """The name of the installed data YAML whose `data.about` this is; None if there is none."""
    import yaml

    for folder in Catalogue().roots:
        for file in sorted((folder / "data").glob("*.yaml")):
            group = yaml.safe_load(file.read_text(encoding="utf-8"))
            group = group.get("data", group) if isinstance(group, dict) else {}
            if isinstance(group, dict) and group.get("about") == about:
                return file.stem
    return None


@lru_cache(maxsize=8)
def _installed_modules(path: tuple[str, ...]) -> tuple[str, ...]:
    """Modules named by entry points; cached per ``sys.path``, because reading all metadata is slow."""
    points: Any = entry_points(group=MODULE)
    return tuple(sorted({point.module for point in points}))


def _folder_of(module: str) -> Path:
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"an installed package declares configurations in '{module}' (entry point {MODULE}), but there "
            "is no such package: reinstall or uninstall it"
        )
    return Path(next(iter(spec.submodule_search_locations)))
