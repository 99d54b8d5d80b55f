"""The project's own imports, read from the sources of every file: nothing is imported, no file is seen twice."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Real folders: fedimb/strategies and the other links would be seen twice (walks below do not follow links).
FOLDERS = ("fedimb", "strategies", "clients", "configs", "tests", "experiments")


def sources(*folders: str) -> list[Path]:
    """Every Python file below these folders (all of the project's by default), links not followed."""
    found = []
    for folder in folders or FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            inner = file.relative_to(ROOT).parents
            if not any((ROOT / parent).is_symlink() for parent in inner):
                found.append(file)
    return sorted(found)


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import: ``from a import b`` gives both ``a`` and ``a.b``.

    Args:
        package: the dotted package of the file, to resolve ``from . import x``.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, base] if base else parts)
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _names_itself(node):
            for given in (*node.args[:1], *(word.value for word in node.keywords if word.arg == "name")):
                if isinstance(given, ast.Constant):
                    name = str(given.value)
                    level = len(name) - len(name.lstrip("."))
                    parts = package.split(".")
                    yield node.lineno, ".".join([*parts[: len(parts) - level + 1], name[level:]]) if level else name


def module_of(file: Path) -> str:
    """The dotted name a source is imported by: ``strategies/plain.py`` is ``fedimb.strategies.plain``."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    dotted = ".".join(parts if parts[0] == "fedimb" else ("fedimb", *parts))
    return dotted.removesuffix(".__init__")


@dataclass(frozen=True)
class Arrow:
    """One module imports another, both of the project.

    Attributes:
        source, target: dotted names of the modules.
        line: where, in the source's file.
        names: what is imported from the target; empty for the module itself.
        typing_only: whether the import is for type checkers alone.
    """

    source: str
    target: str
    line: int
    names: tuple[str, ...] = ()
    typing_only: bool = False


def arrows(modules: dict[str, str]) -> list[Arrow]:
    """Every import of one of the modules by another: at the top, lazily in a function, or for type checkers.

    Args:
        modules: dotted name -> source text; a package under its own name.
    """
    packages = {name for name in modules if any(other.startswith(name + ".") for other in modules)}
    found = []
    for name, text in modules.items():
        tree = ast.parse(text)
        package = name if name in packages else name.rpartition(".")[0]
        quiet = {id(node) for block in _typing_blocks(tree) for node in ast.walk(block)}
        for node in ast.walk(tree):
            for line, target, names in _targets(node, package, modules):
                if target != name:
                    found.append(Arrow(name, target, line, names, id(node) in quiet))
    return found


def _typing_blocks(tree: ast.AST) -> Iterator[ast.stmt]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from node.body


def _targets(node: ast.AST, package: str, modules: dict[str, str]) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
        inner = [alias.name for alias in node.names if f"{base}.{alias.name}" in modules]
        yield from ((node.lineno, f"{base}.{one}", ()) for one in inner)
        rest = tuple(alias.name for alias in node.names if alias.name not in inner)
        if rest and base in modules:
            yield node.lineno, base, rest
        return
    if isinstance(node, ast.Import | ast.Call):
        for line, name in imported(ast.Module([node] if isinstance(node, ast.stmt) else [ast.Expr(node)], []), package):
            if name in modules and (isinstance(node, ast.Import) or _names_itself(node)):
                yield line, name, ()


def _names_itself(call: ast.Call) -> bool:
    return ast.unparse(call.func).split(".")[-1] in ("import_module", "__import__")
