"""A method as a plug-in that is being written: a package on the path, outside installed distributions."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedimb import registry

_FILES = {
    "__init__.py": "",
    "server.py": "from fedimb.strategies.base import Method\n\n\nclass Mine(Method):\n"
    "    def __init__(self, inner, rate: float = 1.0):\n        super().__init__(inner)\n",
    "client.py": "from fedimb.clients.base import Client\n\n\nclass MineClient(Client):\n"
    "    def __init__(self, rate: float = 1.0):\n        self.rate = rate\n\n"
    "    def train_spec(self, spec, context):\n"
    "        from mine.helper import slower\n\n        return spec.change(lr=slower(spec.lr) * self.rate)\n",
    "helper.py": "def slower(lr):\n    return lr * 0.5\n",
    "contract.py": "from fedimb.contracts.base import Contract\n\nMINE = Contract(name='mine')\n",
}
_POINTS = """[fedimb.strategy]
mine = mine.server:Mine
[fedimb.client]
mine = mine.client:MineClient
[fedimb.contract]
mine = mine.contract:MINE
[fedimb.configs]
mine = mine.configs
"""


def write_plugin(folder: Path) -> Path:
    """Write the package ``mine`` with the method of that name; returns its folder."""
    package = folder / "mine"
    (package / "configs" / "strategy").mkdir(parents=True)
    for name, text in _FILES.items():
        (package / name).write_text(text)
    (package / "configs" / "__init__.py").write_text("")
    (package / "configs" / "strategy" / "mine.yaml").write_text("# @package strategy.mine\nrate: 1.0\n")
    about = folder / "mine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(_POINTS)
    return package


@contextmanager
def as_new_process() -> Iterator[None]:
    """The plug-in is imported anew inside the block, as another process would."""

    def forget() -> None:
        for module in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
            del sys.modules[module]
        importlib.invalidate_caches()

    forget()
    with registry.isolated():
        yield
    forget()
