"""Which code a run used: files by content, installed distributions by the hashes of their recorded files.

Files are fedimb's own (the same whether installed or a checkout) and modules outside installed distributions, such as a
plug-in that is being written, with the modules it imports, also inside functions. The code of parts that a run does not
use is left out, because one process may do many runs: an edit of one method leaves the runs of another as they are.

Not covered: data files that a plug-in's code opens itself, and modules outside distributions that are imported under a
name computed at run time and only in another process.
"""

import hashlib
import importlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fedimb.config.load import NO_INFLUENCE
from fedimb.rundir.distributions import GONE, imported_distributions, installed_sha, metadata_folders, recorded_sha
from fedimb.rundir.source_files import (
    OWN,
    disk_sha,
    find_file,
    loaded_sha,
    outside_modules,
    own_files,
    own_sha,
    top_packages,
)
from fedimb.schema import RunConfig, calibration_part


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
        return hashlib.sha256(json.dumps([dict(self.files), dict(self.plugins)], sort_keys=True).encode()).hexdigest()


def code_of(words: Iterable[str], deployed: bool = False, more: Iterable[str] = ()) -> Code:
    """The code that a run with these names in its configuration uses, as this process has imported it.

    Args:
        words: every key and text of the configuration; parts named in it are used.
        deployed: whether it runs on sites, so that fedimb.deploy is part of it.
        more: further files of fedimb, as ``study/computed.py``.
    """
    used = set(words)
    outside, imports, texts = outside_modules(used)
    own = frozenset(name for name in imports if name.startswith("fedimb."))
    files = {f"fedimb/{name}": sha for name, sha in own_files(frozenset(used | texts), own, deployed).items()}
    files |= {f"fedimb/{name}": own_sha(OWN / name) for name in more}
    for name in sorted(outside):
        files[outside[name][0]] = loaded_sha(name, outside[name][1])
    plugins, others = imported_distributions(used, top_packages(imports))
    return Code(files, *({name: installed_sha(name) for name in sorted(names)} for names in (plugins, others)))


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
        self._infos = metadata_folders.__wrapped__(tuple(sys.path))
        self._files: dict[str, str] = {}
        self._distributions: dict[str, str] = {}

    def now(self, before: Code) -> Code:
        """The same files, plug-ins and distributions as ``before`` names."""
        for name in before.files.keys() - self._files.keys():
            self._files[name] = disk_sha(place) if (place := find_file(name)) else GONE
        for name in (before.plugins.keys() | before.distributions.keys()) - self._distributions.keys():
            self._distributions[name] = recorded_sha(info) if (info := self._infos.get(name)) else GONE
        return Code(
            {name: self._files[name] for name in before.files},
            {name: self._distributions[name] for name in before.plugins},
            {name: self._distributions[name] for name in before.distributions},
        )
