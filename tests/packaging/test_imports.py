"""Arrows run one way: who may import whom, read from the sources of every file (nothing is imported)."""

import ast

import pytest
from source_imports import ROOT, imported, sources

TOP_LEVEL = ("strategies", "clients", "configs")
FLOWER_PUBLIC = {
    "flwr.app",
    "flwr.clientapp",
    "flwr.clientapp.mod",
    "flwr.clientapp.typing",
    "flwr.serverapp",
    "flwr.serverapp.exception",
    "flwr.serverapp.strategy",
}
# Where what may be imported; a folder or a module name under fedimb.
FLOWER_PRIVATE_IN = ("engine", "deploy")
ONLY_IN = {"mlflow": "tracking", "ray": "engine"}


def under(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or lies inside one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def flower_private(name: str) -> bool:
    """Whether an import reaches past Flower's public modules: ``flwr.supercore``, ``flwr.app._x``."""
    if not name.startswith("flwr."):
        return False
    if any(part.startswith("_") for part in name.split(".")):
        return True
    if name in FLOWER_PUBLIC:
        return False
    # One name inside a public module is fine: flwr.app.Message. A module inside it is not: flwr.app.message.
    return name.rpartition(".")[0] not in FLOWER_PUBLIC


def violations(source: str, path: str) -> list[str]:
    """One line per forbidden import in a file; ``path`` is relative to the repository, with ``/``."""
    parts = path.removesuffix(".py").split("/")
    place, inner = parts[0], parts[1] if len(parts) > 1 else ""
    dotted = [*parts[:-1]] if place == "fedimb" else ["fedimb", *parts[:-1]]
    wrong: dict[int, str] = {}  # one per line: `from a import b` names a and a.b
    for line, name in imported(ast.parse(source), ".".join(dotted)):
        reason = None
        if under(name, *TOP_LEVEL):
            reason = f"use fedimb.{name}: a second copy under another name registers everything twice"
        elif place == "fedimb" and under(name, "fedimb.strategies", "fedimb.clients"):
            reason = "the platform knows no method: build it by name through fedimb.registry"
        elif place == "strategies" and under(name, "fedimb.clients"):
            reason = "the server half never sees the client half: share through fedimb.contracts"
        elif place == "clients" and under(name, "fedimb.strategies"):
            reason = "the client half never sees the server half: share through fedimb.contracts"
        elif place in ("fedimb", "strategies", "clients"):
            platform_part = inner if place == "fedimb" else ""
            if flower_private(name) and platform_part not in FLOWER_PRIVATE_IN:
                reason = f"Flower internals only in fedimb/{{{','.join(FLOWER_PRIVATE_IN)}}}"
            for package, home in ONLY_IN.items():
                if under(name, package) and platform_part != home:
                    reason = f"only fedimb/{home} imports {package}"
        if reason:
            wrong.setdefault(line, f"{path}:{line}: import of {name}: {reason}")
    return [wrong[line] for line in sorted(wrong)]


def test_no_file_breaks_the_import_rules() -> None:
    files = sources()
    seen = {file.relative_to(ROOT).parts[0] for file in files}
    assert {"fedimb", "strategies", "clients", "configs", "tests"} <= seen
    wrong = [
        line
        for file in files
        for line in violations(file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix())
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_links_are_not_walked_twice() -> None:
    assert not [file for file in sources() if file.relative_to(ROOT).parts[:2] == ("fedimb", "strategies")]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tests/test_x.py", "import strategies.plain"),
        ("tests/test_x.py", "from configs import here"),
        ("experiments/e/run.py", "def f():\n    import clients"),
        ("strategies/x.py", "import importlib\nimportlib.import_module('strategies.plain')"),
        ("fedimb/serverapp/loop.py", "from fedimb.strategies.plain import Plain"),
        ("fedimb/serverapp/loop.py", "from fedimb import clients"),
        ("fedimb/serverapp/loop.py", "from ..strategies import plain"),
        ("fedimb/serverapp/loop.py", "from .. import strategies"),
        ("fedimb/cli.py", "from . import strategies"),
        ("fedimb/serverapp/__init__.py", "from ..clients.plain import x"),
        ("strategies/x.py", "from fedimb.clients import x"),
        ("strategies/x.py", "from ..clients import x"),
        ("clients/x.py", "import fedimb.strategies.x"),
        ("fedimb/serverapp/loop.py", "import flwr.supercore.task_identity"),
        ("strategies/x.py", "from flwr.server.strategy import FedAvg"),
        ("strategies/x.py", "from flwr.serverapp.strategy.strategy_utils import sample_nodes"),
        ("strategies/x.py", "from flwr.app import _private"),
        ("clients/x.py", "from flwr import common"),
        ("clients/x.py", "import mlflow"),
        ("fedimb/report/table.py", "def f():\n    from mlflow import MlflowClient"),
        ("fedimb/serverapp/loop.py", "import ray.util"),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str) -> None:
    assert violations(source, path), f"{source!r} in {path} was let through"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("strategies/x.py", "from fedimb.strategies.base import Base\nfrom .plain import Plain"),
        ("clients/x.py", "from fedimb.clients import plain"),
        ("strategies/x.py", "from flwr.serverapp.strategy import FedAvg\nfrom flwr.serverapp import Grid"),
        ("strategies/x.py", "from flwr.serverapp import strategy"),
        ("fedimb/engine/adapter.py", "from flwr.supercore.task_identity import TaskIdentity\nimport ray"),
        ("fedimb/engine/launcher.py", "import flwr.server"),
        ("fedimb/deploy/join.py", "from flwr.supernode import x"),
        ("fedimb/tracking/mlflow.py", "from mlflow import MlflowClient"),
        ("fedimb/report/plots.py", "import matplotlib, raytracer\nfrom fedimb.tracking import mlflow"),
        ("tests/tracking/test_mlflow.py", "import mlflow"),
        ("fedimb/data/clients_table.py", "from fedimb.data.clients import x"),
    ],
)
def test_an_allowed_import_passes(path: str, source: str) -> None:
    assert violations(source, path) == []
