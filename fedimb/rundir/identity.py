"""A run's identity: what its numbers come from, ingredient by ingredient, so that a difference can be named.

`record_start` writes identity.json before the first round, `record_end` adds the code that was imported later.
`Present` looks at the same ingredients as they are now, each once, for as many runs as ask:

    >>> now = Identity(config="c", data="d", files={"mine/client.py": "2"})
    >>> differences(replace(now, files={"mine/client.py": "1"}), now)
    ['mine/client.py changed']
    >>> differences(now, now)
    []

Where a run is computed (engine, workers) and where it is written are not part of it.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch

from fedimb.config.load import NO_INFLUENCE, config_sha
from fedimb.config.parts import device_of
from fedimb.data.federation import Federation
from fedimb.data.paths import find_data
from fedimb.data.sources.files import fingerprint
from fedimb.data.store import open_source
from fedimb.data.subgroups import source_to_open
from fedimb.errors import ConfigError, DataError
from fedimb.plain import JsonObject
from fedimb.rundir.arrival_journal import RECORDED
from fedimb.rundir.code import Code, DiskCode, code_of, words_of
from fedimb.rundir.distributions import GONE
from fedimb.rundir.environment import installed_version
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.seal import sha256_of
from fedimb.rundir.source_files import EDITED
from fedimb.schema import RunConfig

FILE = "identity.json"
FORMAT = 1
NONE_RECORDED = "no identity recorded (fedimb 0.1)"


@dataclass(frozen=True)
class Identity:
    """What one run's numbers come from. An empty ingredient is not known, and not compared.

    Attributes:
        config: `fedimb.config.load.config_sha`.
        problem: the same without ``data.source``: equal for two configurations that differ in where the data are.
        data: sha256 of the arrays, labels, groups and ids that the source gives (`Store.content_sha`); in a deployment
            of the sites' data versions.
        partition: sha256 of the rows of each client, of the test set, and of the server.
        inputs: sha256 of other files that the configuration names, by their setting; and of the arrivals that the run
            repeats, if it does.
        versions: python, torch, numpy, flwr, and the kind of device that clients compute on.
        files, plugins, distributions: see `fedimb.rundir.code.Code`.
        sites: of a deployment: release and hash of the code of each site, by its name.
    """

    config: str = ""
    problem: str = ""
    data: str = ""
    partition: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    sites: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> Code:
        """The part of it that `fedimb.rundir.code` finds."""
        return Code(self.files, self.plugins, self.distributions)

    @property
    def code_sha(self) -> str:
        """sha256 (hex) of code and versions."""
        return _sha([self.code.sha, dict(self.versions), dict(self.sites)])

    @property
    def sha(self) -> str:
        """sha256 (hex) of all ingredients but ``distributions`` (see there)."""
        return _sha({name: value for name, value in self._ingredients().items() if name != "distributions"})

    def to_json(self) -> JsonObject:
        """As JSON values."""
        return {"format": FORMAT, "sha": self.sha, "code_sha": self.code_sha, **self._ingredients()}

    def _ingredients(self) -> JsonObject:
        """By name. `dataclasses.asdict` would copy each of a thousand strings, several times in a run."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()}


def differences(recorded: Identity | None, now: Identity) -> list[str]:
    """What changed since a run was made, a short sentence each; empty if nothing did.

    Args:
        recorded: the run's identity; None: it has none.
        now: see `Present.identity`.
    """
    if recorded is None:
        return [NONE_RECORDED]
    found = []
    for name, text in (("config", "the configuration"), ("data", "the data"), ("partition", "the partition")):
        before, after = getattr(recorded, name), getattr(now, name)
        if before and after and before != after:
            found.append(f"{text} changed")
    for place, before, after in _pairs(recorded.inputs, now.inputs):
        found.append(f"the content of {place} changed" if before and after != GONE else f"{place} is missing")
    for name, before, after in _pairs(recorded.versions, now.versions):
        found.append(f"{name} {before} -> {after}")
    found += [_about_file(name, before, after) for name, before, after in _pairs(recorded.files, now.files)]
    for name, before, after in _pairs(
        {**recorded.distributions, **recorded.plugins}, {**now.distributions, **now.plugins}
    ):
        old, new = before.partition(" ")[0], after.partition(" ")[0]
        if recorded.versions.get(name, "") == now.versions.get(name, ""):  # else said above
            found.append(f"{name} {old} -> {new}" if old != new else f"the installed files of {name} {old} changed")
    for site, before, after in _pairs(recorded.sites, now.sites):
        found.append(f"the code of site {site} changed ({before} -> {after})")
    return found


def _pairs(recorded: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(name, before, now) of what differs, among the names that both know."""
    for name, before in recorded.items():
        if name in now and (before != now[name] or before == EDITED):
            yield name, before, now[name]


def _about_file(name: str, before: str, after: str) -> str:
    if before == EDITED:
        return f"{name} was {EDITED}"
    return f"{name} is missing" if after == GONE else f"{name} changed"


def read_identity(folder: Path) -> Identity | None:
    """A run folder's identity; None if it has none, or if its file cannot be read.

    Raises:
        Damaged: the file is not as it was sealed.
    """
    try:
        return of_json(json.loads(RunFolder(folder).read(FILE) or b""))
    except (OSError, ValueError):
        return None


def of_json(tree: object) -> Identity | None:
    """What `Identity.to_json` gave; None for anything else."""
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        return None
    known = {one.name: one.default == "" for one in fields(Identity)}
    for name, text in known.items():
        value = tree.get(name)
        if not (isinstance(value, str) if text else isinstance(value, dict)):
            return None
    return Identity(**{name: tree[name] for name in known})


def identity_of(config: RunConfig, federation: Federation, more: Iterable[str] = ()) -> Identity:
    """The identity of a run that starts now.

    Args:
        more: further files of fedimb that it uses.
    """
    code = code_of(words_of(config), bool(federation.site_code), more)
    return Identity(
        config=config_sha(config),
        problem=problem_sha(config),
        data=federation.content_sha,
        partition=partition_sha(federation),
        inputs=inputs_of(config),
        versions=versions_of(config, bool(federation.site_code)),
        files=code.files,
        plugins=code.plugins,
        distributions=code.distributions,
        sites=dict(federation.site_code),
    )


def record_start(folder: RunFolder, config: RunConfig, federation: Federation) -> Identity:
    """Write a run's identity before its first round."""
    found = identity_of(config, federation)
    if (recorded := folder.path / RECORDED).exists():
        found = replace(found, inputs={**found.inputs, RECORDED: sha256_of(recorded)})
    folder.write_json(FILE, found.to_json())
    return found


def record_end(folder: RunFolder, config: RunConfig, more: Iterable[Code] = ()) -> None:
    """Add what was imported during the run, here and in worker processes, and mark files that differ between them.

    Args:
        more: the code of worker processes.
    """
    start = read_identity(folder.path)
    if start is None:  # begun by an earlier version: it stays without
        return
    files, plugins, distributions = dict(start.files), dict(start.plugins), dict(start.distributions)
    for code in (code_of(words_of(config), bool(start.sites)), *more):
        found = ((files, code.files), (plugins, code.plugins), (distributions, code.distributions))
        for mine, theirs in found:
            mine |= {name: sha if mine.get(name, sha) == sha else EDITED for name, sha in theirs.items()}
    end = replace(start, files=files, plugins=plugins, distributions=dict(sorted(distributions.items())))
    folder.write_json(FILE, end.to_json())


def tags_of(identity: Identity) -> dict[str, str]:
    """MLflow's tags of a run with this identity."""
    return {
        "fedimb.identity": identity.sha,
        "fedimb.data_sha": identity.data,
        "fedimb.code_sha": identity.code_sha,
    }


class Present:
    """The ingredients as they are now. Each source and file is looked at once, however many runs are compared."""

    def __init__(self) -> None:
        self._data: dict[str, str] = {}
        self._inputs: dict[str, str] = {}
        self._code = DiskCode()

    def identity(self, config: RunConfig, recorded: Identity | None, federation: Federation | None = None) -> Identity:
        """What a run of this configuration would be made of now, as far as ``recorded`` names it.

        The partition follows from configuration, data and code, so it is taken from ``federation`` only.

        Raises:
            ConfigError, DataError: the source cannot be opened.
        """
        code = Code() if recorded is None else self._code.now(recorded.code)
        missing = {} if recorded is None else dict.fromkeys(recorded.inputs, GONE)
        if recorded is not None and RECORDED in recorded.inputs:  # in the run folder, and sealed there
            missing[RECORDED] = recorded.inputs[RECORDED]
        return Identity(
            config=config_sha(config),
            problem=problem_sha(config),
            data=self._data_sha(config) if federation is None else federation.content_sha,
            partition="" if federation is None else partition_sha(federation),
            inputs=missing | inputs_of(config, self._inputs),
            versions=versions_of(config, recorded is not None and bool(recorded.sites)),
            files=code.files,
            plugins=code.plugins,
            distributions=code.distributions,
            sites={} if federation is None else dict(federation.site_code),
        )

    def differences(
        self, config: RunConfig, recorded: Identity | None, federation: Federation | None = None
    ) -> list[str]:
        """`differences` between a run's identity and its configuration's now. Raises as `identity`."""
        if recorded is None:
            return [NONE_RECORDED]
        return differences(recorded, self.identity(config, recorded, federation))

    def _data_sha(self, config: RunConfig) -> str:
        source = source_of(config)
        key = json.dumps(source, sort_keys=True)
        if key not in self._data:
            self._data[key] = open_source(source).content_sha
        return self._data[key]


def source_of(config: RunConfig) -> dict[str, object]:
    """The run's source, as `open_source` takes it."""
    return source_to_open(config.data)


def problem_sha(config: RunConfig) -> str:
    """`config_sha` without the source: what it gives is an ingredient of its own, so a renamed file changes nothing."""
    return config_sha(config.model_copy(update={"data": {**config.data, "source": {"name": "any"}}}))


def partition_sha(federation: Federation) -> str:
    """Of the rows of each client and what it annotates, the test set and the server, whatever the files are called."""
    return federation.hash_with(federation.content_sha)


def versions_of(config: RunConfig, deployed: bool = False) -> dict[str, str]:
    """Versions of Python (its minor) and of the libraries that compute, and the kind of device."""
    try:
        device = device_of(config.engine).type
    except ConfigError:
        device = "no cuda"
    if device == "cuda":
        device = torch.cuda.get_device_name()
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "flwr": installed_version("flwr"),
        "device": "of each site" if deployed else device,
    }


_PLACE = re.compile(r"(^|[._])(path|file|folder|root)s?(\.\d+)?$")
"""Settings that name a file or folder, which need not have a slash or a point in its name."""


def inputs_of(config: RunConfig, known: dict[str, str] | None = None) -> dict[str, str]:
    """Hashes of the files and folders that settings name, other than the source: an encoder's weights, pictures.

    Args:
        known: hashes by path, from earlier calls.
    """
    known = {} if known is None else known
    found: dict[str, str] = {}

    def walk(node: object, key: str) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                walk(value, f"{key}.{name}" if key else str(name))
        elif isinstance(node, list | tuple):
            for at, value in enumerate(node):
                walk(value, f"{key}.{at}")
        elif isinstance(node, str) and ("/" in node or "." in node or _PLACE.search(key)):
            if node not in known:
                with contextlib.suppress(DataError, OSError, ValueError):
                    known[node] = _content(find_data(node))
            if node in known:
                found[key] = known[node]

    tree = {key: value for key, value in config.model_dump().items() if key not in NO_INFLUENCE}
    walk({**tree, "data": {key: value for key, value in tree["data"].items() if key != "source"}}, "")
    return found


def _content(path: Path) -> str:
    """Of a file's content, or of all files in a folder with their names; see `fingerprint` for large files."""
    if path.is_file():
        return fingerprint("", [str(path)])
    files = sorted(f"{at}/{name}" for at, _, names in os.walk(path) for name in names)
    return _sha([[os.path.relpath(file, path), fingerprint("", [file])] for file in files])


def _sha(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
