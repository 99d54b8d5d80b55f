"""``fedimb deploy run``: make the run folder, hand it to Flower, watch it, report how it ended.

The run folder tells how a run ended: ``flwr run`` itself exits with 0 when a run fails.
"""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from fedimb.atomic import write_atomic
from fedimb.config.effects import unread
from fedimb.config.load import config_sha, from_json, run_label, to_json
from fedimb.config.overrides import dotted, set_words
from fedimb.data.federation import minority_line
from fedimb.deploy.bundle_hash import BUNDLE
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.plan_checks import check_parts
from fedimb.deploy.coordinator.serve import ACCEPTED, DEPLOYED
from fedimb.deploy.coordinator.site_grid import EVENTS
from fedimb.deploy.coordinator.sites import joined_sites
from fedimb.deploy.coordinator.superlink import CONNECTION, flwr, healthy
from fedimb.deploy.coordinator.traffic import check_traffic
from fedimb.deploy.study_plan.plan import StudyPlan, check_config, check_sites, read_plan
from fedimb.engine import processes
from fedimb.errors import ConfigError, RunFailed, RunWaiting, nearest
from fedimb.rundir.checkpoints import FIXED, fixed_hashes, rewrite_seal
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.rundir.seal import Manifest, write_seal
from fedimb.schema import RunConfig
from fedimb.serverapp.launch import is_finished, is_incomplete
from fedimb.serverapp.progress import ProgressBar

log = logging.getLogger("fedimb")

_POLL_S, _ASK_FLOWER_EVERY_S = 0.5, 20.0
_FLOWER = "flower.json"
_GOING_ON = ("new", "running")
"""Statuses of a run in progress: it is ``new`` again between the sites' joining and the first step."""


def find_plan(deployment: Deployment, word: str) -> StudyPlan:
    """Find a plan by its hash, by a beginning that no other plan has, or by its file. Raises ConfigError."""
    path = Path(word)
    if path.suffix == ".json" and path.is_file():
        return read_plan(path.read_text(encoding="utf-8"))
    known = [folder.name for folder in sorted(deployment.file("plans").glob("*")) if (folder / "plan.json").is_file()]
    # A folder of an earlier release has the first eight digits as its name.
    matches = [name for name in known if word and (name.startswith(word) or word.startswith(name))]
    if len(matches) > 1:
        raise ConfigError(f"'{word}' is the beginning of {len(matches)} plans: {', '.join(matches)}; give more of it")
    if not matches:
        raise ConfigError(f"no study plan '{word}' in {deployment.file('plans')}.{nearest(word, known)}")
    path = deployment.file("plans", matches[0], "plan.json")
    plan = read_plan(path.read_text(encoding="utf-8"))
    if plan.sha != matches[0]:
        raise ConfigError(
            f"{path} was changed: its hash is now {plan.sha}; make the plan again with fedimb deploy plan"
        )
    return plan


def create_run(
    deployment: Deployment, plan: StudyPlan, overrides: Sequence[str], join_s: float, away_s: float
) -> RunFolder:
    """Make a run folder for a plan, with overrides of the settings that may vary.

    Raises:
        ConfigError: a setting is outside the plan, the plan has expired or is for another deployment, there is no site,
            or parts cannot work together.
    """
    name = deployment.config.name
    if plan.deployment != name:
        raise ConfigError(
            f"plan {plan.sha} is for deployment '{plan.deployment}', but this is '{name}': give that "
            "deployment's folder"
        )
    if plan.expired():
        raise ConfigError(f"plan {plan.sha} expired on {plan.expires}: make a new one with fedimb deploy plan")
    _check_joined(deployment, plan)
    config = _configured(plan, overrides, deployment)
    check_sites(plan, config)
    check_parts(plan, config)
    check_traffic(deployment, plan, config)
    label = run_label(config)
    folder = RunFolder.create(
        deployment.folder("runs") / config.study, f"{label.replace('/', '_')}-s{config.seed}-{config_sha(config)[:8]}"
    )
    write_atomic(folder.path / "config.json", to_json(config).encode())
    write_atomic(folder.path / "plan.json", plan.to_json().encode())
    folder.write_json(
        DEPLOYED, {"deployment": name, "sites": [site.name for site in plan.sites], "join_s": join_s, "away_s": away_s}
    )
    write_seal(folder.path, Manifest(files=fixed_hashes(folder.path)))
    folder.set_status("new")
    return folder


def _check_joined(deployment: Deployment, plan: StudyPlan) -> None:
    """Refuse a plan whose sites have left, have made new keys, or expect messages signed with another key."""
    joined = joined_sites(deployment)
    for site in plan.sites:
        if site.name not in joined:
            raise ConfigError(
                f"plan {plan.sha} is for {', '.join(one.name for one in plan.sites)}, but {site.name} is not a site of "
                f"{deployment.root}: add it with fedimb deploy add-site, or make a plan for the others (--sites)"
            )
        if joined[site.name].key_fingerprint != site.fingerprint:
            raise ConfigError(
                f"{site.name} has another key than in plan {plan.sha} (it was rotated): make a new plan, and have the "
                "sites approve it"
            )
    if plan.coordinator != deployment.signing_key():
        raise ConfigError(
            f"{deployment.file('sign.key')} is not the key in plan {plan.sha}: restore it from a backup, or make a new "
            "plan"
        )


def _configured(plan: StudyPlan, overrides: Sequence[str], deployment: Deployment) -> RunConfig:
    tree = json.loads(json.dumps(plan.config))
    set_words(tree, overrides)
    keys = [word.partition("=")[0] for word in overrides]
    said = [key for key in dotted(tree) if any(key == one or key.startswith(f"{one}.") for one in keys)]
    if reasons := unread(said, plan.config, tree):
        raise ConfigError(next(iter(reasons.values())))
    tree["output_dir"] = str(deployment.folder("runs"))
    config = from_json(json.dumps(tree))
    check_config(plan, config)
    return config


def execute(
    deployment: Deployment, folder: RunFolder, progress: ProgressBar, accept_changes: bool = False
) -> RunResult:
    """Submit a run folder to the SuperLink and wait until the run ends. The folder is locked meanwhile.

    Args:
        accept_changes: continue although code or data changed since the start (`fedimb.rundir.changes`).

    Raises:
        ConfigError: the servers are down.
        RunWaiting: the run is waiting for a person.
        RunFailed: the run failed.
    """
    if not healthy(deployment):
        raise ConfigError(f"the servers of {deployment.root} are down: start them with fedimb deploy up")
    folder.lock()
    try:
        rewrite_seal(folder)
        if is_finished(folder):
            return RunResult.read(folder.path)
        if not is_incomplete(folder):
            folder.check_sealed(*FIXED)
        end_left_over(deployment, folder)
        plan = read_plan((folder.path / "plan.json").read_text(encoding="utf-8"))
        progress.note(minority_line(plan.minority, len(plan.classes), None))
        accepted = folder.path / ACCEPTED
        accepted.touch() if accept_changes else accepted.unlink(missing_ok=True)
        folder.set_status("running")
        lines = _Lines(folder.path / EVENTS)
        run_id = submit(deployment, folder)
        try:
            _watch(deployment, folder, run_id, progress, lines)
        except KeyboardInterrupt:
            flwr(deployment, "stop", run_id, CONNECTION)
            folder.set_status("killed", "interrupted")
            raise
        return _ended(folder)
    finally:
        folder.unlock()


def submit(deployment: Deployment, folder: RunFolder) -> str:
    """Hand a run folder to the SuperLink, whose ServerApp works on it. Returns Flower's id of the run.

    Raises:
        RunFailed: the SuperLink does not take it.
    """
    words = deployment.folder("state") / f"run-{folder.path.name[-8:]}.toml"
    words.write_text(f"run-dir = {json.dumps(str(folder.path), ensure_ascii=False)}\n", encoding="utf-8")
    app = _bundle(deployment)
    run_id = str(flwr(deployment, "run", str(app), CONNECTION, "--run-config", str(words))["run-id"])
    folder.write_json(_FLOWER, {"run-id": run_id})
    return run_id


def end_left_over(deployment: Deployment, folder: RunFolder) -> None:
    """End the leftovers of a killed attempt: its ServerApp may still be working on this folder."""
    before = folder.read_json(_FLOWER)
    if folder.status() in _GOING_ON and before is not None:
        with contextlib.suppress(RunFailed):  # it has ended, or the servers no longer know it
            flwr(deployment, "stop", before["run-id"], CONNECTION)
    processes.end(driver_of(folder))
    (folder.path / "processes.json").unlink(missing_ok=True)


def driver_of(folder: RunFolder) -> dict[str, str]:
    """``{pid: start time}`` of the ServerApp that works on a run; empty before it starts."""
    return dict(folder.read_json("processes.json", {}).get("driver", {}))


def _bundle(deployment: Deployment) -> Path:
    """Copy the bundle to where Flower can read it, whoever installed the package. Sites compare its content."""
    folder = deployment.folder("state", "bundle")
    shutil.copyfile(BUNDLE, folder / BUNDLE.name)
    return folder


def _watch(deployment: Deployment, folder: RunFolder, run_id: str, progress: ProgressBar, lines: "_Lines") -> None:
    """Watch until the folder says how the run ended, or its process is gone. Logs events at sites."""
    done, asked = 0, time.monotonic()
    while True:
        time.sleep(_POLL_S)
        ended = folder.status() not in _GOING_ON
        lines.tell()
        rounds = len({line["step"] for line in folder.metrics()})
        progress.skip(rounds - done)
        done = rounds
        if ended:
            return
        driver = driver_of(folder)
        why = ""
        if driver and all(processes.start_time(int(pid)) != start for pid, start in driver.items()):
            why = f"its process at the coordinator was killed; see {deployment.file('logs', 'superlink.log')}"
        elif time.monotonic() - asked > _ASK_FLOWER_EVERY_S:
            asked = time.monotonic()
            why = _trouble(deployment, run_id, bool(driver))
        if why and folder.status() in _GOING_ON:
            processes.end(driver)  # without the servers it would retry forever
            folder.set_status("failed", why, "RunFailed")


def _trouble(deployment: Deployment, run_id: str, begun: bool) -> str:
    """Why a run cannot continue; empty if it can.

    Flower is asked (which takes seconds) only until the run has begun.
    """
    if not healthy(deployment):
        return "the servers are down: start them with fedimb deploy up"
    if begun:
        return ""
    (run,) = flwr(deployment, "list", CONNECTION, "--run-id", run_id)["runs"]
    return f"Flower ended the run: {run['status']}" if str(run["status"]).startswith("finished") else ""


class _Lines:
    """The events file, from the position it had when this attempt began."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, path.stat().st_size if path.exists() else 0

    def tell(self) -> None:
        """Log new events as warnings."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if line.endswith(b"\n"):
                    self._at += len(line)
                    log.warning("%s", json.loads(line)["text"])


def _ended(folder: RunFolder) -> RunResult:
    status: dict[str, object] = folder.read_json("status.json")
    if status["status"] == "finished":
        return RunResult.read(folder.path)
    text = f"{status.get('reason') or status['status']}\n  continue with: fedimb deploy run --resume {folder.path}"
    raise (RunWaiting if status["status"] == "waiting" else RunFailed)(text)
