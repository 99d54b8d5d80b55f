"""The API pages: every module that a page of docs/ or a template of `fedimb new` imports from, from its docstrings."""

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORT = re.compile(r"^\s*(?:from|import) (fedimb(?:\.\w+)*)", re.MULTILINE)


def public_modules() -> list[str]:
    """What users are told to import: the package itself, then its modules, sorted."""
    sources = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *(ROOT / "fedimb/cli/templates").glob("*.tmpl")]
    found = {name for file in sources for name in IMPORT.findall(file.read_text(encoding="utf-8"))}
    return ["fedimb.api", *sorted(found - {"fedimb", "fedimb.api"})]


def page(module: str) -> str:
    """A page for mkdocstrings to fill."""
    title = "fedimb" if module == "fedimb.api" else module
    return f"# {title}\n\n::: {module}\n"


def index() -> str:
    """All modules with the first sentence of their docstrings."""
    lines = [
        "# Python API",
        "",
        "The modules that pages and `fedimb new` import from. What is not here may change without notice.",
        "",
    ]
    for module in public_modules():
        text = (importlib.import_module(module).__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
        title = "fedimb" if module == "fedimb.api" else module
        lines.append(f"- [`{title}`]({module}.md): {text}")
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Address -> Markdown of all API pages, the index first."""
    made = {"reference/api/index.md": index()}
    return made | {f"reference/api/{module}.md": page(module) for module in public_modules()}
