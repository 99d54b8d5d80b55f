"""Imports go down: each folder stands on a floor and imports its own floor and those below, and no two in a circle.

Lazy imports and those for type checkers count as any other, save of a Protocol: a type that says what is needed of
something is nobody's implementation. There is no list of exceptions; a floor that proves wrong is changed here and in
docs/architecture.md, in words.

The sources are read, nothing is imported. Seen are ``import`` and ``from``, also by old paths that `fedimb._moved`
leads on, and `import_module`, ``__import__`` and `pkgutil.resolve_name`, also under another name, with a text, an
f-string, a sum of texts or a name that is assigned one once; of a text that is known in part, the package. Not seen: a
module's name that is computed (from a dict such as ``registry.KINDS`` or ``cli.main.VERBS``, an argument, a file), an
import function fetched by ``getattr``, code in texts (``exec``, ``python -c``), what an installed package imports.
"""

import ast
from collections.abc import Iterable

import pytest
from source_imports import Arrow, arrows, module_of, sources

FLOORS = (
    (
        "errors",
        "seeds",
        "atomic",
        "by_reference",
        "records",
        "shapes",
        "text",
        "notebook",
        "plain",
        "process_env",
        "process_state",
        "strict_yaml",
        "sums",
        "supported",
        "_moved",
    ),
    ("registry", "schema", "evaluation"),
    ("contracts", "data", "models"),
    ("training", "encoders", "selection", "aggregators", "privacy", "discriminant", "attacks", "paces", "explanations"),
    ("config", "annotation", "tracking", "rundir"),
    ("generation", "clientapp"),
    ("engine", "clients"),
    ("serverapp", "strategies"),
    ("study", "bench"),
    ("report", "api", "testing", ""),
    (
        "deploy.files",
        "deploy.pki",
        "deploy.process_env",
        "deploy.home",
        "deploy.bundle_hash",
        "deploy.audit_chain",
        "deploy.planned_times",
    ),
    (
        "deploy.audit_log",
        "deploy.incidents",
        "deploy.joining",
        "deploy.input_names",
        "deploy.units",
        "deploy.checks",
        "deploy.signing",
        "deploy.region_spool",
    ),
    ("deploy.registered_data", "deploy.study_plan"),
    ("deploy.coordinator", "deploy.site"),
    ("deploy.demo", "deploy.offline", "deploy"),
    ("cli", "__main__"),
)
"""From the ground up. A folder is its first level below fedimb; of deploy, its four folders and each file."""

APART = (("deploy.coordinator", "deploy.site"), ("serverapp", "clients"), ("strategies", "clients"))
"""Folders of one run's two ends, which never import each other."""

BY_NAME_ONLY = ("strategies", "clients")
"""Methods: nobody but the registry, which builds them by name, imports these."""

_FLOOR_OF = {folder: floor for floor, folders in enumerate(FLOORS) for folder in folders}


def folder_of(module: str) -> str:
    """The table's name for the folder (or file) a dotted module belongs to.

    Raises:
        KeyError: the table has no floor for it.
    """
    parts = module.split(".")[1:]
    for length in range(len(parts), -1, -1):
        if (name := ".".join(parts[:length])) in _FLOOR_OF and (name or not parts):
            return name
    raise KeyError(f"{module}: give its folder a floor in FLOORS, and say it in docs/architecture.md")


def going_up(found: Iterable[Arrow]) -> list[str]:
    """A line for each import that goes to a higher floor, into another's end, or to a method by its module."""
    wrong = []
    for arrow in found:
        source, target = folder_of(arrow.source), folder_of(arrow.target)
        if source == target:
            continue
        reason = ""
        if _FLOOR_OF[target] > _FLOOR_OF[source]:
            reason = f"{source} is on floor {_FLOOR_OF[source]}, {target} on floor {_FLOOR_OF[target]}"
        if (source, target) in APART or (target, source) in APART:
            reason = f"{source} and {target} are two ends of a run: share what both need on a floor below"
        if target in BY_NAME_ONLY:
            reason = f"{target} are built by name, through fedimb.registry"
        if reason:
            wrong.append(f"{arrow.source}:{arrow.line} imports {arrow.target}: {reason}")
    return wrong


def circles(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """The groups of names that reach each other, each sorted (Tarjan's strongly connected components)."""
    graph: dict[str, set[str]] = {}
    for source, target in edges:
        if source != target:
            graph.setdefault(source, set()).add(target)
            graph.setdefault(target, set())
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = []
            while not group or group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return found


def protocols(modules: dict[str, str]) -> set[str]:
    """Dotted names of the classes that are Protocols."""
    return {
        f"{name}.{node.name}"
        for name, text in modules.items()
        if "Protocol" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in node.bases)
    }


def counted(modules: dict[str, str]) -> list[Arrow]:
    """The arrows that count: all but those for type checkers to Protocols alone."""
    known = protocols(modules)
    return [
        arrow
        for arrow in arrows(modules)
        if not (arrow.typing_only and arrow.names and all(f"{arrow.target}.{name}" in known for name in arrow.names))
    ]


@pytest.fixture(scope="module")
def modules() -> dict[str, str]:
    """Dotted name -> source of every module of the package, methods included."""
    return {module_of(file): file.read_text(encoding="utf-8") for file in sources("fedimb", "strategies", "clients")}


@pytest.fixture(scope="module")
def found(modules: dict[str, str]) -> list[Arrow]:
    """The arrows of the package that count."""
    return counted(modules)


def test_every_folder_has_a_floor(modules: dict[str, str]) -> None:
    assert {folder_of(module) for module in modules} <= set(_FLOOR_OF)


def test_no_import_goes_up(found: list[Arrow]) -> None:
    wrong = going_up(found)
    assert not wrong, "\n" + "\n".join(wrong)


def test_no_folders_import_in_a_circle(found: list[Arrow]) -> None:
    edges = {(folder_of(arrow.source), folder_of(arrow.target)) for arrow in found}
    assert circles(edges) == []


def test_no_files_import_in_a_circle(found: list[Arrow]) -> None:
    assert circles((arrow.source, arrow.target) for arrow in found) == []


LOOP = {"fedimb.serverapp.loop": "", "fedimb.engine.grid": ""}


@pytest.mark.parametrize(
    "text",
    [
        "from fedimb.serverapp.loop import Loop",
        "import fedimb.serverapp.loop",
        "from fedimb.serverapp import loop",
        "from ..serverapp import loop",
        "def late():\n    from fedimb.serverapp.loop import Loop",
        "import importlib\nimportlib.import_module('fedimb.serverapp.loop')",
        "import importlib\nimportlib.import_module(name='fedimb.serverapp.loop')",
        "import importlib\nimportlib.import_module('..serverapp.loop', __package__)",
        "if x:\n    __import__('fedimb.serverapp.loop')",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fedimb.serverapp.loop import Loop",
        "from importlib import import_module as load\nload('fedimb.serverapp.loop')",
        "import importlib as machinery\nmachinery.import_module('fedimb.serverapp.loop')",
        "import importlib\nload = importlib.import_module\nload('fedimb.serverapp.loop')",
        "import importlib\nPLACE = 'fedimb.serverapp'\nimportlib.import_module(f'{PLACE}.loop')",
        "import importlib\nTOP: str = 'fedimb'\nPLACE = TOP + '.serverapp.loop'\nimportlib.import_module(PLACE)",
        "import importlib\nimportlib.import_module('fedimb.' + 'serverapp.loop')",
        "from pkgutil import resolve_name\nresolve_name('fedimb.serverapp.loop:Loop')",
        "import pkgutil\npkgutil.resolve_name('fedimb.serverapp.loop')",
        "from fedimb.run.loop import Loop",
        "import fedimb.run.rounds",
        "from fedimb.run import loop",
        "import importlib\nimportlib.import_module('fedimb.run.loop')",
    ],
)
def test_a_planted_import_that_goes_up_is_found_with_both_names(text: str) -> None:
    (line,) = going_up(counted({**LOOP, "fedimb.engine.grid": text}))
    assert "fedimb.engine.grid" in line
    assert "fedimb.serverapp.loop" in line


def test_of_a_name_known_in_part_the_package_is_found() -> None:
    text = "import importlib\ndef late(name):\n    importlib.import_module(f'fedimb.serverapp.{name}')"
    (line,) = going_up(counted({"fedimb.serverapp": "", **LOOP, "fedimb.engine.grid": text}))
    assert "imports fedimb.serverapp:" in line


def test_a_protocol_may_be_named_for_type_checkers_and_nothing_beside_it() -> None:
    loop = "from typing import Protocol\nclass Model(Protocol): ...\nclass Loop: ..."
    quiet = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fedimb.serverapp.loop import "
    assert going_up(counted({"fedimb.serverapp.loop": loop, "fedimb.engine.grid": quiet + "Model"})) == []
    assert going_up(counted({"fedimb.serverapp.loop": loop, "fedimb.engine.grid": quiet + "Model, Loop"}))
    assert going_up(
        counted({"fedimb.serverapp.loop": loop, "fedimb.engine.grid": "from fedimb.serverapp.loop import Model"})
    )


def test_planted_circles_are_found() -> None:
    files = {"fedimb.data.a": "from fedimb.data.b import x", "fedimb.data.b": "def f():\n    import fedimb.data.a"}
    assert circles((a.source, a.target) for a in counted(files)) == [["fedimb.data.a", "fedimb.data.b"]]
    folders = {
        "fedimb.data.a": "import fedimb.models.a",
        "fedimb.models.b": "import fedimb.data.a",
        "fedimb.models.a": "",
    }
    edges = {(folder_of(arrow.source), folder_of(arrow.target)) for arrow in counted(folders)}
    assert circles(edges) == [["data", "models"]]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("deploy.site.inbox", "deploy.coordinator.serve"),
        ("deploy.coordinator.serve", "deploy.site.inbox"),
        ("serverapp.loop", "clients.plain"),
        ("strategies.scope", "clients.scope"),
        ("cli.main", "strategies.plain"),
    ],
)
def test_two_ends_and_methods_stay_apart(source: str, target: str) -> None:
    files = {f"fedimb.{source}": f"import fedimb.{target}", f"fedimb.{target}": ""}
    assert len(going_up(counted(files))) == 1


def test_a_new_folder_needs_a_floor() -> None:
    with pytest.raises(KeyError, match="give its folder a floor"):
        folder_of("fedimb.attic.chest")
