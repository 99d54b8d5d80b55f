"""A coordinator, nodes with registered tables, and runs over them, on loopback; and replies that were tampered with."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from coordinator import make_deployment, make_node
from ill_or_well import small_words, write_table
from tampered import TAMPER

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.drafting import describe_data, write_plan
from fedimb.deploy.coordinator.sites import add_site, planned_keys
from fedimb.deploy.coordinator.submit import create_run, execute
from fedimb.deploy.home import NodeHome
from fedimb.deploy.joining import read_join
from fedimb.deploy.registered_data.datasets import register_data
from fedimb.deploy.site.approvals import decide_plan, received_plans
from fedimb.deploy.site.guard import LAST_MESSAGE
from fedimb.deploy.site.node_process import Timings
from fedimb.deploy.site.status import read_json
from fedimb.deploy.site.supernode import supernode_command
from fedimb.deploy.site.supervisor import Supervisor
from fedimb.deploy.study_plan.plan import StudyPlan, make_plan
from fedimb.deploy.study_plan.ranges import Range
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.schema import RunConfig
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar

QUICK = Timings(check_s=0.1, write_s=0.5, observe_s=5.0)


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
    running: dict[str, tuple[Supervisor, threading.Thread]] = field(default_factory=dict)

    def approve(self) -> None:
        """Every site that has received a plan agrees to it."""
        for home in self.homes.values():
            for sha in received_plans(home):
                decide_plan(home, sha, "approved", "Dr. Test")

    def new(self, *overrides: str, join_s: float = 120.0, away_s: float = 300.0) -> RunFolder:
        """A run folder under the plan."""
        return create_run(self.deployment, self.plan, overrides, join_s, away_s)

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
        (hook / "sitecustomize.py").write_text(TAMPER)
        paths = [str(hook), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), "FEDIMB_TEST_TAMPER": str(self._tamper_file(home.site))}
        return words, environment | own

    def start(self, site: str, timings: Timings = QUICK) -> None:
        """Run a node, under a supervisor in this process."""
        supervisor = Supervisor(self.homes[site], timings, self.command)
        thread = threading.Thread(target=supervisor.run)
        thread.start()
        self.running[site] = (supervisor, thread)

    def stop(self, site: str) -> None:
        """End a node."""
        supervisor, thread = self.running.pop(site)
        supervisor.stop()
        thread.join(60)
        assert not thread.is_alive()

    def status(self, site: str) -> dict[str, Any]:
        """status.json of a node."""
        return read_json(self.homes[site].file("status.json")) or {}

    def online(self, site: str) -> dict[str, Any]:
        """Wait until the coordinator has let the node in."""
        return until(lambda: self.status(site), lambda s: s.get("connected") and s.get("state") == "running", 300)

    @contextlib.contextmanager
    def nodes(self) -> Iterator[None]:
        """All nodes run."""
        try:
            for site in self.homes:
                self.start(site)
            for site in self.homes:
                self.online(site)
            yield
        finally:
            for supervisor, _ in self.running.values():
                supervisor.stop()
            for site in list(self.running):
                self.stop(site)

    def signal_in(self, site: str, round_: int, number: int, seconds: float = 400) -> None:
        """Send the site's SuperNode a signal once its client works on that round."""
        home = self.homes[site]

        def busy(told: Mapping[str, object]) -> bool:
            return told.get("type") == "train" and told.get("round") == round_ and told.get("outcome") == "started"

        until(lambda: read_json(home.file(*LAST_MESSAGE)) or {}, busy, seconds)
        os.kill(int(self.status(site)["node"]), number)


def here() -> dict[str, str]:
    """Variables for the servers, which drop PYTHONPATH: they run the code of this process."""
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": path} if path else {}


def until(look: Callable, true: Callable, seconds: float):  # type: ignore[no-untyped-def]
    """What ``look`` sees once it is ``true``; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not true(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def make_study(
    root: Path, files: Mapping[str, Path], vary: Mapping[str, Range], *overrides: str, runs: int = 20
) -> Study:
    """A deployment and a node for each file, registered, added; and a plan.

    Args:
        overrides: the configuration; its data are all files, of which a site registers its own.
    """
    config = validate(compose((), shared=[*overrides, f"clients.count={len(files)}"]))
    like = root / "group.yaml"
    like.write_text(yaml.safe_dump(config.data), encoding="utf-8")
    deployment = make_deployment(root / "coordinator")
    homes = {}
    for site, file in files.items():
        make_node(deployment, root / site)
        homes[site] = NodeHome.open(root / site)
        register_data(homes[site], str(file), "heads", ["heads"], like=str(like))
        add_site(deployment, read_join(root / site / f"{site}.join.json"))
    classes, minority, shape = describe_data(config, None, None, None)
    about = ("Ein Versuch", ["Dr. Jürgen Müller"], "2026-01-01T00:00:00Z", "2126-01-01T00:00:00Z")
    who = (deployment.signing_key(), planned_keys(deployment))
    plan = make_plan(deployment.config.name, config, *about, vary, ["heads"], classes, minority, shape, *who, runs)
    write_plan(deployment, plan)
    return Study(deployment, homes, config, plan)


def small_study(root: Path, rows: Mapping[str, int], *overrides: str, runs: int = 20, most_rounds: int = 5) -> Study:
    """A table of so many rows at each site; a logistic model, two rounds."""
    files = {site: write_table(root / f"{site}.csv", n, seed) for seed, (site, n) in enumerate(rows.items())}
    vary = {"seed": Range(), "rounds": Range(low=1, high=most_rounds), "clients.deadline_s": Range()}
    return make_study(root, files, vary, *small_words(files), *overrides, runs=runs)


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


def usable(folder: RunFolder) -> list[float]:
    """Usable replies of each round."""
    found = [line["metrics"].get("data/replies") for line in folder.metrics()]
    return [count for count in found if count is not None]


def wait_for_round(folder: RunFolder, number: int, seconds: float = 400) -> None:
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
