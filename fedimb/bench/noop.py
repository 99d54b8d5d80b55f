"""A method that trains nothing, as a separate package: written into a folder and found through ``PYTHONPATH``.

It is not a part of fedimb, and `fedimb list` does not show it. To Python, a folder with a ``.dist-info`` is an
installed package wherever it is, so its entry points are found in every process of every engine, like any installed
method's.
"""

from importlib.resources import files
from pathlib import Path

NAME = "bench_noop"
_PACKAGE = "fedimb_bench_noop"
_SIDES = {"strategy": "server:Noop", "client": "client:NoopClient", "contract": "contract:NOOP"}


def write_package(folder: Path) -> Path:
    """Write the package into ``folder``; returns ``folder``, the path to add to ``PYTHONPATH``."""
    points = "".join(f"[fedimb.{kind}]\n{NAME} = {_PACKAGE}.{side}\n" for kind, side in _SIDES.items())
    pages = {
        f"{_PACKAGE}/__init__.py": "",
        f"{_PACKAGE}/configs/__init__.py": "",
        f"{_PACKAGE}/configs/strategy/{NAME}.yaml": f"# @package strategy.{NAME}\n{{}}\n",
        f"{_PACKAGE}-0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {_PACKAGE}\nVersion: 0\n",
        f"{_PACKAGE}-0.dist-info/entry_points.txt": f"{points}[fedimb.configs]\n{NAME} = {_PACKAGE}.configs\n",
    }
    templates = files("fedimb.bench.noop_method")
    for side in ("server", "client", "contract"):
        pages[f"{_PACKAGE}/{side}.py"] = templates.joinpath(f"{side}.py.tmpl").read_text("utf-8")
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder
