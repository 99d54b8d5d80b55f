"""The method that trains nothing, as a user's own package: written into a folder, found through ``PYTHONPATH``.

It is no part of fedimb and `fedimb list` does not name it. A folder with a ``.dist-info`` is an installed package to
Python wherever it lies, so its entry points reach every process of every engine, as those of any installed method do.
"""

from importlib.resources import files
from pathlib import Path

NAME = "bench_noop"
_PACKAGE = "fedimb_bench_noop"
_HALVES = {"strategy": "server:Noop", "client": "client:NoopClient", "contract": "contract:NOOP"}


def write_package(folder: Path) -> Path:
    """Write the package into ``folder``, which is returned: the path to add to ``PYTHONPATH``."""
    points = "".join(f"[fedimb.{kind}]\n{NAME} = {_PACKAGE}.{half}\n" for kind, half in _HALVES.items())
    pages = {
        f"{_PACKAGE}/__init__.py": "",
        f"{_PACKAGE}/configs/__init__.py": "",
        f"{_PACKAGE}/configs/strategy/{NAME}.yaml": f"# @package strategy.{NAME}\n{{}}\n",
        f"{_PACKAGE}-0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {_PACKAGE}\nVersion: 0\n",
        f"{_PACKAGE}-0.dist-info/entry_points.txt": f"{points}[fedimb.configs]\n{NAME} = {_PACKAGE}.configs\n",
    }
    templates = files("fedimb.bench.noop_method")
    for half in ("server", "client", "contract"):
        pages[f"{_PACKAGE}/{half}.py"] = templates.joinpath(f"{half}.py.tmpl").read_text("utf-8")
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder
