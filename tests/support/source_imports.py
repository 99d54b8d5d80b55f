"""The project's own imports, read from the sources of every file: nothing is imported, no file is seen twice."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedimb._moved import MOVED

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


def imported(tree: ast.AST, package: str, known: "Names | None" = None) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import: ``from a import b`` gives both ``a`` and ``a.b``.

    Old module paths of fedimb 0.1 are given as the modules they lead to.

    Args:
        package: the dotted package of the file, to resolve ``from . import x``.
        known: what the file's names mean; None reads them from ``tree``.
    """
    nodes = nodes_of(tree)  # walking takes longer than what is done with the nodes
    known = known or Names.of(nodes)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, current(alias.name)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = base_of(node, package)
            yield node.lineno, current(base)
            yield from ((node.lineno, current(f"{base}.{alias.name}")) for alias in node.names)
        elif isinstance(node, ast.Call) and known.imports(node):
            for given in (*node.args[:1], *(word.value for word in node.keywords if word.arg == "name")):
                if name := known.module(given):
                    level = len(name) - len(name.lstrip("."))
                    parts = package.split(".")
                    full = ".".join([*parts[: len(parts) - level + 1], name[level:]]) if level else name
                    yield node.lineno, current(full)


def nodes_of(tree: ast.AST) -> list[ast.AST]:
    """A syntax tree's nodes, as `ast.walk` finds them, in a third of its time; names and constants are left out."""
    found: list[ast.AST] = [tree]
    for node in found:  # which grows
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                found += [one for one in value if isinstance(one, ast.AST) and not isinstance(one, _LEAVES)]
            elif isinstance(value, ast.AST) and not isinstance(value, _LEAVES):
                found.append(value)
    return found


_LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop)


def base_of(node: ast.ImportFrom, package: str) -> str:
    """The dotted module of a ``from`` import in a file of ``package``."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def current(name: str) -> str:
    """A dotted name with an old module path of fedimb 0.1 replaced by the new one."""
    top, _, inner = name.partition(".")
    return f"{top}.{MOVED[inner]}" if top == "fedimb" and inner in MOVED else name


IMPORTERS = ("import_module", "__import__", "resolve_name")
"""Functions of `importlib`, Python and `pkgutil` whose first argument names a module."""


@dataclass(frozen=True)
class Names:
    """What names of one file mean.

    Attributes:
        importers: names of functions that import, their aliases included.
        texts: names that are assigned a text once.
    """

    importers: frozenset[str]
    texts: Mapping[str, str]

    @classmethod
    def of(cls, nodes: Iterable[ast.AST]) -> "Names":
        """Read from the nodes of a file's syntax tree."""
        importers, values = set(IMPORTERS), dict[str, list[ast.expr]]()
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                importers |= {a.asname for a in node.names if a.asname and a.name in IMPORTERS}
            if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
                continue
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and node.value is not None:
                    values.setdefault(target.id, []).append(node.value)
        for name, given in values.items():
            if any(_last_word(one) in IMPORTERS for one in given):
                importers.add(name)
        texts: dict[str, str] = {}
        for _ in range(2):  # a text may be made of another one
            found = {name: _text(given[0], texts) for name, given in values.items() if len(given) == 1}
            texts = {name: text for name, (text, whole) in found.items() if whole}
        return cls(frozenset(importers), texts)

    def imports(self, call: ast.Call) -> bool:
        """Whether a call imports a module by name."""
        return _last_word(call.func) in self.importers

    def module(self, given: ast.expr) -> str:
        """The module that an argument names, as far as it can be read: of ``f"fedimb.data.{x}"`` the package."""
        text, whole = _text(given, self.texts)
        text = text.partition(":")[0]
        if whole:
            return text
        package = text.rpartition(".")[0]
        return package if "." in package else ""


def _last_word(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _text(node: ast.expr, texts: Mapping[str, str]) -> tuple[str, bool]:
    """The text of an expression up to the first part that cannot be read, and whether that is all of it."""
    match node:
        case ast.Constant(value=str(value)):
            return value, True
        case ast.Name(id=name) if name in texts:
            return texts[name], True
        case ast.FormattedValue(value=value, format_spec=None):
            return _text(value, texts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = [left, right]
        case ast.JoinedStr(values=parts):
            pass
        case _:
            return "", False
    found = ""
    for part in parts:
        text, whole = _text(part, texts)
        found += text
        if not whole:
            return found, False
    return found, True


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
        nodes = nodes_of(tree)
        blocks = _typing_blocks(nodes) if "TYPE_CHECKING" in text else ()
        quiet = {id(node) for block in blocks for node in nodes_of(block)}
        known = Names.of(nodes)
        for node in nodes:
            for line, target, names in _targets(node, package, modules, known):
                if target != name:
                    found.append(Arrow(name, target, line, names, id(node) in quiet))
    return found


def _typing_blocks(nodes: Iterable[ast.AST]) -> Iterator[ast.stmt]:
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from node.body


def _targets(
    node: ast.AST, package: str, modules: dict[str, str], known: Names
) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    if isinstance(node, ast.ImportFrom):
        base = base_of(node, package)
        inner = {alias.name: current(f"{base}.{alias.name}") for alias in node.names}
        inner = {name: module for name, module in inner.items() if module in modules}
        yield from ((node.lineno, module, ()) for module in inner.values())
        rest = tuple(alias.name for alias in node.names if alias.name not in inner)
        if rest and current(base) in modules:
            yield node.lineno, current(base), rest
        return
    if isinstance(node, ast.Import) or (isinstance(node, ast.Call) and known.imports(node)):
        block = [node] if isinstance(node, ast.stmt) else [ast.Expr(node)]
        for line, name in imported(ast.Module(block, []), package, known):
            if name in modules:
                yield line, name, ()
