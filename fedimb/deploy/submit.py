"""``fedimb deploy run``: make the run folder, hand it to Flower, watch it, say how it ended. Source: ours.

How a run ended is read from its folder: ``flwr run`` itself answers 0 when a run fails.
"""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fedimb.config.load import config_sha, from_json, row_label, to_json
from fedimb.config.overrides import set_value
from fedimb.config.schema import RunConfig
from fedimb.deploy.deployment import Deployment
from fedimb.deploy.plans import StudyPlan, check_config, read_plan
from fedimb.deploy.serve import DEPLOYED
from fedimb.deploy.superlink import CONNECTION, flwr, healthy
from fedimb.engine.flower import BUNDLE
from fedimb.errors import ConfigError, RunFailed, RunWaiting, nearest
from fedimb.records import write_atomic
from fedimb.run.folder import RunFolder
from fedimb.run.progress import ProgressBar
from fedimb.run.result import RunResult

_POLL_S, _ASK_FLOWER_EVERY_S = 0.5, 20.0


def find_plan(deployment: Deployment, word: str) -> StudyPlan:
    """The plan whose hash begins so, or that lies in a file. ConfigError if there is none."""
    path = Path(word)
    if path.suffix == ".json" and path.is_file():
        return read_plan(path.read_text(encoding="utf-8"))
    known = [folder.name for folder in sorted(deployment.file("plans").glob("*")) if (folder / "plan.json").is_file()]
    matches = [name for name in known if name.startswith(word[:8])]
    if len(matches) != 1:
        raise ConfigError(f"no study plan '{word}' in {deployment.file('plans')}.{nearest(word, known)}")
    return read_plan(deployment.file("plans", matches[0], "plan.json").read_text(encoding="utf-8"))


def new_run(
    deployment: Deployment, plan: StudyPlan, overrides: Sequence[str], join_s: float, away_s: float
) -> RunFolder:
    """A run folder under the plan, with the settings that may vary set.

    Raises:
        ConfigError: a setting outside the plan, an expired plan, another deployment's, or no site.
    """
    name = deployment.config.name
    if plan.deployment != name:
        raise ConfigError(f"plan {plan.sha[:8]} is for deployment '{plan.deployment}', this one is '{name}'")
    if plan.expired():
        raise ConfigError(f"plan {plan.sha[:8]} expired on {plan.expires}: make a new one with fedimb deploy plan")
    sites = deployment.sites()
    if not sites:
        raise ConfigError(f"{deployment.root} has no site: fedimb deploy add-site SITE.join.json")
    config = _configured(plan, overrides, deployment)
    if config.clients.count != len(sites):
        raise ConfigError(
            f"the plan's clients.count is {config.clients.count} and {len(sites)} sites have joined "
            f"({', '.join(sites)}): make the plan with clients.count={len(sites)}"
        )
    label = row_label(config, next(iter(config.calibration)))
    folder = RunFolder.create(
        deployment.folder("runs") / config.study, f"{label.replace('/', '_')}-s{config.seed}-{config_sha(config)[:8]}"
    )
    write_atomic(folder.path / "config.json", to_json(config).encode())
    write_atomic(folder.path / "plan.json", plan.to_json().encode())
    folder.write_json(DEPLOYED, {"deployment": name, "sites": list(sites), "join_s": join_s, "away_s": away_s})
    folder.set_status("new")
    return folder


def _configured(plan: StudyPlan, overrides: Sequence[str], deployment: Deployment) -> RunConfig:
    tree = json.loads(json.dumps(plan.config))
    for word in overrides:
        key, found, value = word.partition("=")
        if not found:
            raise ConfigError(f"'{word}' is no setting: write key=value, as in rounds=20")
        set_value(tree, key, yaml.safe_load(value))
    tree["output_dir"] = str(deployment.folder("runs"))
    config = from_json(json.dumps(tree))
    check_config(plan, config)
    return config


def execute(deployment: Deployment, folder: RunFolder, progress: ProgressBar) -> RunResult:
    """Hand a run folder to the SuperLink and wait for its end; the folder is locked meanwhile.

    Raises:
        ConfigError: the servers are down. RunWaiting, RunFailed: how the run ended.
    """
    if not healthy(deployment):
        raise ConfigError(f"the servers of {deployment.root} are down: start them with fedimb deploy up")
    folder.lock()
    try:
        if folder.status() == "finished":
            return RunResult.read(folder.path)
        folder.set_status("running")
        words = deployment.folder("state") / f"run-{folder.path.name[-8:]}.toml"
        words.write_text(f"run-dir = {json.dumps(str(folder.path), ensure_ascii=False)}\n", encoding="utf-8")
        app = _bundle(deployment)
        run_id = str(flwr(deployment, "run", str(app), CONNECTION, "--run-config", str(words))["run-id"])
        try:
            _watch(deployment, folder, run_id, progress)
        except KeyboardInterrupt:
            flwr(deployment, "stop", run_id, CONNECTION)
            folder.set_status("killed", "interrupted")
            raise
        return _ended(folder)
    finally:
        folder.unlock()


def _bundle(deployment: Deployment) -> Path:
    """The bundle, where Flower may read it whoever installed the package; its content is what sites compare."""
    folder = deployment.folder("state", "bundle")
    shutil.copyfile(BUNDLE, folder / BUNDLE.name)
    return folder


def _watch(deployment: Deployment, folder: RunFolder, run_id: str, progress: ProgressBar) -> None:
    done, flower, asked = 0, "", time.monotonic()
    while True:
        time.sleep(_POLL_S)
        rounds = len({line["step"] for line in folder.metrics()})
        progress.skip(rounds - done)
        done = rounds
        if folder.status() != "running":
            return
        if time.monotonic() - asked > _ASK_FLOWER_EVERY_S:
            (run,) = flwr(deployment, "list", CONNECTION, "--run-id", run_id)["runs"]
            flower, asked = str(run["status"]), time.monotonic()
            if flower.startswith("finished") and folder.status() == "running":
                folder.set_status("failed", f"Flower ended the run: {flower}", "RunFailed")
                return


def _ended(folder: RunFolder) -> RunResult:
    status: dict[str, Any] = folder.read_json("status.json")
    if status["status"] == "finished":
        return RunResult.read(folder.path)
    text = f"{status.get('reason') or status['status']}\n  go on with: fedimb deploy run --resume {folder.path}"
    raise (RunWaiting if status["status"] == "waiting" else RunFailed)(text)
