"""A coordinator, nodes with registered tables, and runs over them, on loopback; and replies that were tampered with."""

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from coordinator import make_deployment, make_node

from fedimb.config.compose import compose
from fedimb.config.schema import RunConfig
from fedimb.config.validate import validate
from fedimb.deploy.approvals import decide, received
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.datasets import register_data
from fedimb.deploy.deployment import Deployment
from fedimb.deploy.drafting import data_facts, write_plan
from fedimb.deploy.guard import LAST_MESSAGE
from fedimb.deploy.home import NodeHome
from fedimb.deploy.joining import add_site, read_join
from fedimb.deploy.node_process import Patience
from fedimb.deploy.plans import StudyPlan, make_plan
from fedimb.deploy.ranges import Range
from fedimb.deploy.status import read_json
from fedimb.deploy.submit import execute, new_run
from fedimb.deploy.supernode import supernode_command
from fedimb.deploy.supervisor import Supervisor
from fedimb.run.folder import RunFolder
from fedimb.run.launch import launch
from fedimb.run.progress import ProgressBar
from fedimb.run.result import RunResult

# Python loads it in every process of a node; it changes what the client answers once node_app is imported.
_TAMPER = """
import importlib.util, json, os, sys, time
from pathlib import Path


def tampered(module):
    honest = module.answer

    def answer(home, message, context):
        file = Path(os.environ["FEDIMB_TEST_TAMPER"])
        told = json.loads(file.read_text()) if file.exists() else {}
        step = dict(message.content.config_records["x.fedimb"]) if "x.fedimb" in message.content else {}
        if message.metadata.message_type != "train" or step["round"] not in told.get("rounds", []):
            return honest(home, message, context)
        if told["kind"] == "sleep":
            if told.get("once"):
                file.unlink()
            time.sleep(told["seconds"])
            return honest(home, message, context)
        from fedimb.records import array_record, arrays_of
        reply, sent = honest(home, message, context), arrays_of(message.content, "arrays")
        arrays = {name: value.copy() for name, value in arrays_of(reply.content, "arrays").items()}
        for name, value in arrays.items():
            if told["kind"] == "nan":
                value.reshape(-1)[0] = float("nan")
            elif told["kind"] == "shape":
                arrays[name] = value.reshape(-1)[:-1].copy()
            elif told["kind"] == "huge":
                arrays[name] = (sent[name] + 1e6 * (value - sent[name])).astype(value.dtype)
        reply.content["arrays"] = array_record(arrays)
        return reply

    module.answer = answer


class Hook:
    def find_spec(self, name, path=None, target=None):
        if name != "fedimb.deploy.node_app":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (run(module), tampered(module))[0]
        return spec


sys.meta_path.insert(0, Hook())
"""
QUICK = Patience(look_s=0.1, write_s=0.5, observe_s=5.0)


def write_table(path: Path, rows: int, seed: int) -> Path:
    """A table of four numbers and a label, of which one row in five is ``ill``."""
    rng = np.random.default_rng(seed)
    ill = np.arange(rows) % 5 == 0
    x = rng.normal(size=(rows, 4)) + ill[:, None] * np.array([1.5, -1.0, 0.5, 0.0]) + [0, 10, -3, 100]
    lines = ["age,dose,delta,pressure,label"]
    lines += [",".join([*(f"{v:.4f}" for v in row), "ill" if one else "well"]) for row, one in zip(x, ill, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


@dataclass
class Study:
    """A deployment whose sites have registered a table each.

    Attributes:
        config: of a run at the sites; `simulated` runs the same here.
        homes: by site.
    """

    deployment: Deployment
    homes: dict[str, NodeHome]
    config: RunConfig
    plan: StudyPlan
    running: dict[str, Supervisor] = field(default_factory=dict)

    def approve(self) -> None:
        """Every site that has received a plan agrees to it."""
        for home in self.homes.values():
            for sha in received(home):
                decide(home, sha, "approved", "Dr. Test")

    def new(self, *overrides: str, join_s: float = 120.0, away_s: float = 300.0) -> RunFolder:
        """A run folder under the plan."""
        return new_run(self.deployment, self.plan, overrides, join_s, away_s)

    def execute(self, folder: RunFolder) -> RunResult:
        """Run it to its end, as ``fedimb deploy run`` does."""
        return execute(self.deployment, folder, ProgressBar(1, enabled=False))

    def simulated(self, to: Path, *overrides: str) -> RunResult:
        """The same run, simulated."""
        own = [f"output_dir={to}", "tracking=none", "engine=inline", *overrides]
        changed = self.config.model_dump()
        for word in own:
            key, _, value = word.partition("=")
            changed[key] = (
                {"name": value} if key in ("tracking", "engine") else json.loads(value) if key == "seed" else value
            )
        return launch(validate(changed), None, ProgressBar(1, enabled=False))

    def messages(self, site: str, run: str) -> list[dict]:
        """The audit lines of a run's messages at a site."""
        lines = AuditLog(self.homes[site].file("audit.jsonl")).lines()
        return [line["facts"] for line in lines if line["kind"] == "message" and line["facts"]["run"] == run]

    def tamper(self, site: str, kind: str, rounds: Sequence[int], **more: object) -> None:
        """From now on this site's replies in these rounds are tampered with; `honest` ends it."""
        self._tamper_file(site).write_text(json.dumps({"kind": kind, "rounds": list(rounds), **more}))

    def honest(self) -> None:
        """No reply is tampered with."""
        for site in self.homes:
            self._tamper_file(site).unlink(missing_ok=True)

    def _tamper_file(self, site: str) -> Path:
        return self.homes[site].root.parent / f"{site}.tamper.json"

    def command(self, home: NodeHome) -> tuple[list[str], dict[str, str]]:
        """A SuperNode's, with the hook that tampers."""
        words, environment = supernode_command(home)
        hook = home.root.parent / "hook"
        hook.mkdir(exist_ok=True)
        (hook / "sitecustomize.py").write_text(_TAMPER)
        own = {"PYTHONPATH": str(hook), "FEDIMB_TEST_TAMPER": str(self._tamper_file(home.site))}
        return words, environment | own

    @contextlib.contextmanager
    def nodes(self, patience: Patience = QUICK) -> Iterator[None]:
        """All nodes run, under supervisors in this process."""
        threads = []
        try:
            for site, home in self.homes.items():
                self.running[site] = Supervisor(home, patience, self.command)
                threads.append(threading.Thread(target=self.running[site].run))
                threads[-1].start()
            for home in self.homes.values():
                until(lambda home=home: read_json(home.file("status.json")) or {}, lambda s: s.get("connected"), 120)
            yield
        finally:
            for supervisor in self.running.values():
                supervisor.stop()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
            self.running.clear()

    def kill_node_in(self, site: str, round_: int) -> None:
        """SIGKILL the site's SuperNode once its client works on that round."""
        home = self.homes[site]

        def busy(told: Mapping[str, object]) -> bool:
            return told.get("type") == "train" and told.get("round") == round_ and told.get("outcome") == "started"

        until(lambda: read_json(home.file(*LAST_MESSAGE)) or {}, busy, 120)
        status = read_json(home.file("status.json")) or {}
        os.kill(int(status["node"]), signal.SIGKILL)


def until(look: Callable, true: Callable, seconds: float):  # type: ignore[no-untyped-def]
    """What ``look`` sees once it is ``true``; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not true(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def make_study(root: Path, files: Mapping[str, Path], vary: Mapping[str, Range], *overrides: str) -> Study:
    """A deployment and a node for each file, registered, added; and a plan.

    Args:
        overrides: the configuration; its data are all files, of which a site registers its own.
    """
    config = validate(compose([*overrides, f"clients.count={len(files)}"]))
    like = root / "group.yaml"
    like.write_text(yaml.safe_dump(config.data), encoding="utf-8")
    deployment = make_deployment(root / "coordinator")
    homes = {}
    for site, file in files.items():
        make_node(deployment, root / site)
        homes[site] = NodeHome.open(root / site)
        register_data(homes[site], str(file), "heads", ["heads"], like=str(like))
        add_site(deployment, read_join(root / site / f"{site}.join.json"))
    classes, minority, shape = data_facts(config, None, None, None)
    about = ("Ein Versuch", ["Dr. Jürgen Müller"], "2026-01-01T00:00:00Z", "2126-01-01T00:00:00Z")
    plan = make_plan(deployment.config.name, config, *about, vary, ["heads"], classes, minority, shape)
    write_plan(deployment, plan)
    return Study(deployment, homes, config, plan)


def two_tables(root: Path, *overrides: str) -> Study:
    """Linz with 60 rows and St. Anna with 90; a logistic model, two rounds."""
    rows = {"linz": 60, "st-anna": 90}
    files = {site: write_table(root / f"{site}.csv", n, seed) for seed, (site, n) in enumerate(rows.items())}
    both = ",".join(f"{site}: '{path}'" for site, path in files.items())
    data = ["data=tabular_csv", f"data.source.files={{{both}}}", "data.source.target=label"]
    data += ["data.source.classes=[ill,well]", "data.source.indicators=[]", "partition=by_column"]
    data += ["data.test={name: none}", "data.validation=0.25"]
    rest = ("model=logistic", "rounds=2", "local.epochs=1", "local.lr=0.05", "evaluation.bootstrap=0", "engine=inline")
    vary = {"seed": Range(), "rounds": Range(low=1, high=5)}
    return make_study(root, files, vary, *data, *rest, *overrides)


def weights(result: RunResult) -> dict[str, np.ndarray]:
    """The final global model."""
    from safetensors.numpy import load_file

    return load_file(result.folder / "artifacts" / "model" / "model.safetensors")


def assert_same(one: RunResult, other: RunResult, tolerance: float = 1e-5) -> None:
    """Weights equal within ``tolerance``, confusion matrices equal."""
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        np.testing.assert_allclose(value, theirs[name], atol=tolerance, rtol=0, err_msg=name)
    for row, found in zip(one.rows, other.rows, strict=True):
        np.testing.assert_array_equal(found.confusion, row.confusion)


def events(folder: RunFolder) -> list[str]:
    """What the coordinator was told of its sites."""
    path = folder.path / "sites.jsonl"
    return [json.loads(line)["text"] for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_round(folder: RunFolder, number: int, seconds: float = 120) -> None:
    """Until that many rounds are done."""
    until(lambda: len({line["step"] for line in folder.metrics()}), lambda done: done >= number, seconds)


def in_background(work: Callable[[], object]) -> tuple[threading.Thread, list]:
    """Start ``work`` in a thread; its result or exception is put into the list."""
    said: list = []

    def run() -> None:
        try:
            said.append(work())
        except Exception as error:
            said.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, said


def short(text: str) -> str:
    """A message without incident ids, which are random."""
    return re.sub(r"incident [0-9a-f]{8}", "incident", text)
