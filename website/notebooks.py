"""The notebooks of docs/notebooks: run anew with their outputs kept, and as pages of the site.

python -m website.notebooks            # runs each in an empty folder, and writes its outputs into it
python -m website.notebooks report     # only docs/notebooks/report.ipynb
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"
COLOUR = re.compile("\x1b\\[[0-9;]*m")
PANDAS_STYLE = re.compile(r"<style scoped>.*?</style>", re.DOTALL)


def notebooks() -> list[Path]:
    """The notebooks, in the order of their names."""
    return sorted(FOLDER.glob("*.ipynb"))


def executed(path: Path, folder: Path) -> dict[str, Any]:
    """A notebook as JSON with the outputs of a new run.

    Left out are what is written to standard error (progress, which depends on the machine's speed), times of execution,
    the plain text of what has HTML, colours, and where ``folder`` is.

    Args:
        path: the notebook.
        folder: where its cells run.
    """
    import nbformat
    from nbclient import NotebookClient

    node = nbformat.read(path, as_version=4)
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    before = {name: os.environ.get(name) for name in quiet}
    os.environ.update(quiet)
    try:
        NotebookClient(node, timeout=1800, resources={"metadata": {"path": str(folder)}}).execute()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    for cell in node.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _kept(cell.outputs)
    node.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return dict(json.loads(nbformat.writes(node).replace(f"{folder.resolve()}/", "")))


def _kept(outputs: list[Any]) -> list[Any]:
    """A cell's outputs without standard error, each text written in pieces as one."""
    found: list[Any] = []
    for one in outputs:
        if one.get("name") == "stdout":
            one.text = COLOUR.sub("", one.text)
            if found and found[-1].get("name") == "stdout":
                found[-1].text += one.text
                continue
        elif one.get("name") == "stderr":
            continue
        elif "text/html" in one.data:
            one.data.pop("text/plain", None)
        found.append(one)
    return found


def outputs(notebook: dict[str, Any]) -> list[str]:
    """What each output of a notebook shows: its HTML where it has one, else its text."""
    found = []
    for cell in notebook["cells"]:
        for one in cell.get("outputs", ()):
            data = one.get("data", {"text/plain": one.get("text", "")})
            found.append("".join(data.get("text/html", data.get("text/plain", ""))))
    return found


def markdown(notebook: dict[str, Any], name: str) -> str:
    """A notebook as a page: its text, its code, and below each cell what it shows."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for one in outputs({"cells": [cell]}):
            if not one.lstrip().startswith("<"):
                parts.append(f"```text\n{one.strip()}\n```")
                continue
            lines = PANDAS_STYLE.sub("", one).replace(' border="1" class="dataframe"', "").splitlines()
            shown = "\n".join(line for line in lines if line.strip())  # a blank line would end the block
            parts.append(f'<div class="output">\n{shown}\n</div>')
    parts.append(f"This page is a notebook, run as it stands: [{name}]({name}).")
    return "\n\n".join(parts) + "\n"


def pages() -> dict[str, str]:
    """Address -> Markdown of every notebook."""
    return {
        f"notebooks/{path.stem}.md": markdown(json.loads(path.read_text(encoding="utf-8")), path.name)
        for path in notebooks()
    }


def main(names: list[str]) -> None:
    """Run notebooks (all of them without names) and write them with their outputs."""
    for path in notebooks():
        if names and path.stem not in names:
            continue
        with tempfile.TemporaryDirectory(prefix="fedimb-notebook-") as folder:
            made = executed(path, Path(folder))
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
