"""A coordinator whose process asks sites for what their plan does not say: a hook that Python loads, told by a file."""

import os
from pathlib import Path

# It changes what the coordinator sends once site_grid is imported, in the process of the ServerApp.
HOOK = """
import copy, importlib.util, os, sys
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
    orders = module.DeployedGrid._order

    def _order(self, client, message):
        file = Path(os.environ["FEDIMB_TEST_GREEDY"])
        what = file.read_text() if file.exists() else ""
        joins = message.metadata.message_type == "query.join_site" and client == max(self._sites)
        if not joins or what not in ("client", "text", "plan"):
            return orders(self, client, message)
        from flwr.app import ConfigRecord, Message, RecordDict
        asked, signed = dict(message.content.config_records["x.run"]), copy.copy(self._signed)
        if what == "client":
            asked["client"] = 0
        else:
            other = signed._plan.model_copy(update={"runs": 1000})
            asked["plan"] = other.to_json()
            signed._plan = other if what == "plan" else signed._plan
        node = self._node_of[client]
        return signed.order(client, Message(RecordDict({"x.run": ConfigRecord(asked)}), node, "query.join_site"), node)

    module.DeployedGrid._order = _order


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
    """Variables for servers that ask for what the file ``told`` says; honest without it.

    ``weights``: round 2 with other weights. ``round``: round 10^6 instead of it. When the last site joins, ``client``:
    it is client 0; ``text``: a plan of 1,000 runs, signed as if it were the approved one; ``plan``: the same, signed
    as what it is.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "FEDIMB_TEST_GREEDY": str(told)}
