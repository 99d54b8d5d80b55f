"""A coordinator whose process asks sites for more than the run it has: a hook that Python loads, told by a file."""

import os
from pathlib import Path

# It changes what the coordinator sends once site_grid is imported, in the process of the ServerApp.
HOOK = """
import importlib.util, os, sys
from pathlib import Path


def greedy(module):
    honest = module.DeployedGrid._sent

    def _sent(self, client, message):
        sent = honest(self, client, message)
        file = Path(os.environ["FEDIMB_TEST_GREEDY"])
        step = dict(sent.content.config_records.get("x.fedimb") or {})
        if not file.exists() or sent.metadata.message_type != "train":
            return sent
        from flwr.app import ConfigRecord
        from fedimb.records import array_record, arrays_of
        if file.read_text() == "weights" and step["round"] == 2:
            changed = {name: value + 1 for name, value in arrays_of(sent.content, "arrays").items()}
            sent.content["arrays"] = array_record(changed)
        if file.read_text() == "round" and step["round"] == 2:
            sent.content["x.fedimb"] = ConfigRecord({**step, "round": 10**6, "step": 10**6})
        return sent

    module.DeployedGrid._sent = _sent


class Hook:
    def find_spec(self, name, path=None, target=None):
        if name != "fedimb.deploy.coordinator.site_grid":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (run(module), greedy(module))[0]
        return spec


sys.meta_path.insert(0, Hook())
"""


def greedy_servers(folder: Path, told: Path) -> dict[str, str]:
    """Variables for servers that ask for what the file ``told`` says: ``weights`` or ``round``; honest without it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "FEDIMB_TEST_GREEDY": str(told)}
