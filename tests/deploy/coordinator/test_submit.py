"""Watching a run from outside: how it ended, what happens to sites, and what an attempt that was killed left."""

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from study_plans import keys_of, plan_of, run_config

from fedimb.cli.main import main
from fedimb.deploy.coordinator import submit
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.drafting import write_plan
from fedimb.deploy.coordinator.serve import deployed_about
from fedimb.deploy.coordinator.site_grid import EVENTS
from fedimb.deploy.coordinator.sites import planned_keys
from fedimb.deploy.joining import JoinFile, write_join
from fedimb.deploy.study_plan.ranges import Range
from fedimb.engine import processes
from fedimb.errors import ConfigError, RunFailed, RunWaiting
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.progress import ProgressBar


class Flower:
    """In the place of the ``flwr`` command and of the servers' health."""

    def __init__(self):
        self.up, self.calls, self.status, self.on_run = True, [], "running", lambda folder: None

    def __call__(self, deployment, *words):
        self.calls.append(words[0])
        if words[0] == "list":
            return {"runs": [{"status": self.status}]}
        if words[0] == "run":
            text = Path(words[-1]).read_text(encoding="utf-8")
            self.on_run(RunFolder(Path(json.loads(text.partition("=")[2]))))
        return {"run-id": "77"}


@pytest.fixture
def flower(monkeypatch) -> Flower:
    told = Flower()
    monkeypatch.setattr(submit, "flwr", told)
    monkeypatch.setattr(submit, "healthy", lambda deployment: told.up)
    monkeypatch.setattr(submit, "_POLL_S", 0.005)
    monkeypatch.setattr(submit, "_ASK_FLOWER_EVERY_S", 0.02)
    return told


@pytest.fixture
def deployment(tmp_path) -> Deployment:
    root = tmp_path / "Größe"
    (root / "sites").mkdir(parents=True)
    (root / "deploy.yaml").write_text("name: heart\nhost: localhost\n")
    for site in ("va", "linz"):
        join = JoinFile(site=site, public_key=keys_of(site)[1], fedimb="0.1.0", created="2026-01-01")
        write_join(root / "sites" / f"{site}.join.json", join)
    (root / "sign.key").write_bytes(keys_of("coordinator")[0])
    (root / "sign.key").chmod(0o600)
    return Deployment.open(root)


@pytest.fixture
def plan(deployment):
    words = ("clients.count=2", "tracking=none", "data.test={name: none}", "data.validation=0.2")
    made = plan_of(run_config(*words))
    write_plan(deployment, made)
    return made


SCORED = ("data.test={name: none}", "data.validation=0.2")


def execute(deployment, folder):
    return submit.execute(deployment, folder, ProgressBar(5, enabled=False))


def test_plans_are_found_by_the_beginning_of_their_hash_or_as_a_file(deployment, plan, tmp_path):
    assert submit.find_plan(deployment, plan.sha[:8]) == plan
    assert submit.find_plan(deployment, plan.sha) == plan
    assert submit.find_plan(deployment, plan.sha[:4]) == plan
    path = tmp_path / "anderer plan.json"
    path.write_text(plan.to_json(), encoding="utf-8")
    assert submit.find_plan(deployment, str(path)) == plan
    with pytest.raises(ConfigError, match="no study plan 'zzzz'"):
        submit.find_plan(deployment, "zzzz")


def test_a_new_run_holds_plan_configuration_and_sites(deployment, plan):
    folder = submit.create_run(deployment, plan, ["rounds=7", "seed=3"], 10, 20)
    assert json.loads((folder.path / "config.json").read_text())["rounds"] == 7
    assert (folder.path / "plan.json").read_text(encoding="utf-8") == plan.to_json()
    about = {"deployment": "heart", "sites": ["linz", "va"], "join_s": 10, "away_s": 20}
    assert folder.read_json("deployed.json") == about
    assert folder.status() == "new"
    assert folder.path.parent.parent == deployment.file("runs")


def test_a_setting_that_the_run_does_not_read_is_refused(deployment, plan):
    words = ("model=logistic", "strategy=oneround", "strategy.oneround.secure=false", "tracking=none")
    made = plan_of(
        run_config("clients.count=2", *SCORED, *words), vary={"rounds": Range(low=1, high=9), "seed": Range()}
    )
    with pytest.raises(ConfigError, match=r"^rounds=7 changes nothing with strategy 'oneround'"):
        submit.create_run(deployment, made, ["rounds=7"], 10, 20)
    assert submit.create_run(deployment, made, ["seed=3"], 10, 20).status() == "new"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"deployment": "other"}, "is for deployment 'other', but this is 'heart'"),
        ({"expires": "2026-01-02T00:00:00Z"}, "expired on 2026-01-02"),
    ],
)
def test_a_plan_that_does_not_hold(deployment, plan, change, text):
    with pytest.raises(ConfigError, match=text):
        submit.create_run(deployment, plan.model_copy(update=change), [], 1, 1)
    assert not deployment.file("runs").exists()


def test_a_deployment_without_sites(deployment, plan):
    for path in deployment.file("sites").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match=r"is for linz, va, but linz is not a site of .* fedimb deploy add-site"):
        submit.create_run(deployment, plan, [], 1, 1)
    with pytest.raises(ConfigError, match="has no sites: add one with fedimb deploy add-site"):
        planned_keys(deployment)


def test_a_plan_for_two_of_four_sites(deployment, plan):
    for site in ("bonn", "st-anna"):
        join = JoinFile(site=site, public_key=keys_of(site)[1], fedimb="0.1.0", created="2026-01-01")
        write_join(deployment.file("sites", f"{site}.join.json"), join)
    assert list(planned_keys(deployment)) == ["bonn", "linz", "st-anna", "va"]
    assert planned_keys(deployment, ["va", "linz"]) == {site.name: site.key for site in plan.sites}
    folder = submit.create_run(deployment, plan, [], 10, 20)
    assert folder.read_json("deployed.json")["sites"] == ["linz", "va"]
    with pytest.raises(ConfigError, match="Did you mean 'linz'"):
        planned_keys(deployment, ["lins"])
    with pytest.raises(ConfigError, match="give each site once"):
        planned_keys(deployment, ["va", "va"])


def test_keys_that_are_no_longer_those_of_the_plan(deployment, plan):
    path = deployment.file("sites", "va.join.json")
    before = path.read_text()
    join = JoinFile(site="va", public_key=keys_of("other")[1], fedimb="0.1.0", created="2026-01-01")
    write_join(path, join)
    with pytest.raises(ConfigError, match=r"va has another key than in plan .* \(it was rotated\): make a new plan"):
        submit.create_run(deployment, plan, [], 1, 1)
    path.write_text(before)
    deployment.file("sign.key").unlink()
    with pytest.raises(ConfigError, match=r"sign\.key is not the key in plan"):
        submit.create_run(deployment, plan, [], 1, 1)


def test_a_plan_of_an_earlier_release_is_refused_in_words(deployment, plan):
    tree = json.loads(plan.to_json()) | {"format": 1}
    del tree["sites"], tree["coordinator"]
    deployment.folder("plans", "0a1b2c3d")
    deployment.file("plans", "0a1b2c3d", "plan.json").write_text(json.dumps(tree))
    with pytest.raises(
        ConfigError, match=r"of an earlier release, without the sites' keys .*: make a new plan with fedimb"
    ):
        submit.find_plan(deployment, "0a1b2c3d")


def test_a_plan_that_was_edited_or_is_named_by_half_is_not_run(deployment, plan):
    other = plan_of(run_config("clients.count=2"), purpose="another")
    folder = deployment.folder("plans", plan.sha[:2] + "f" * 62)
    (folder / "plan.json").write_text(other.to_json(), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"'{plan.sha[:2]}' is the beginning of 2 plans: .*; give more of it"):
        submit.find_plan(deployment, plan.sha[:2])
    with pytest.raises(ConfigError, match=f"was changed: its hash is now {other.sha}"):
        submit.find_plan(deployment, folder.name)


def test_servers_that_are_down(deployment, plan, flower):
    flower.up = False
    with pytest.raises(ConfigError, match="are down: start them with fedimb deploy up"):
        execute(deployment, submit.create_run(deployment, plan, [], 1, 1))
    assert flower.calls == []


@pytest.mark.parametrize(("status", "error"), [("waiting", RunWaiting), ("failed", RunFailed)])
def test_how_it_ended_is_read_from_the_folder(deployment, plan, flower, status, error):
    flower.on_run = lambda folder: folder.set_status(status, "va (labels 0/4)")
    folder = submit.create_run(deployment, plan, [], 1, 1)
    with pytest.raises(error, match=r"^va \(labels 0/4\)\n  continue with: fedimb deploy run --resume /"):
        execute(deployment, folder)
    folder.lock()  # nobody holds it any more


def test_what_happens_to_sites_is_told_once(deployment, plan, flower, caplog):
    folder = submit.create_run(deployment, plan, [], 1, 1)
    events = folder.path / EVENTS
    events.write_text('{"text": "of an earlier attempt"}\n')

    def goes_on(folder):
        with events.open("a", encoding="utf-8") as file:
            file.write('{"text": "va ist fort"}\n{"text": "linz')

        def rest():
            with events.open("a", encoding="utf-8") as file:
                file.write(' is away"}\n')
            folder.set_status("failed", "x")

        threading.Timer(0.05, rest).start()

    flower.on_run = goes_on
    with caplog.at_level(logging.WARNING, "fedimb"), pytest.raises(RunFailed):
        execute(deployment, folder)
    assert [record.message for record in caplog.records] == ["va ist fort", "linz is away"]


def test_a_run_whose_folder_is_being_filled_has_not_ended(deployment, plan, flower):
    """Once the sites have joined it says ``new`` for as long as the model is built."""

    def joined(folder):
        folder.set_status("new")
        threading.Timer(0.05, folder.set_status, ["waiting", "x"]).start()

    flower.on_run = joined
    with pytest.raises(RunWaiting):
        execute(deployment, submit.create_run(deployment, plan, [], 1, 1))


@pytest.mark.parametrize("status", ["new", "running"])
def test_a_run_whose_process_is_gone_has_failed(deployment, plan, flower, status):
    done = subprocess.Popen([sys.executable, "-c", ""])
    started = processes.record([done.pid])
    done.wait()

    def dies(folder):
        folder.write_json("processes.json", {"driver": started or {str(done.pid): "1"}})
        folder.set_status(status)

    flower.on_run = dies
    folder = submit.create_run(deployment, plan, [], 1, 1)
    with pytest.raises(RunFailed, match="its process at the coordinator was killed"):
        execute(deployment, folder)
    assert folder.status() == "failed"


def test_servers_that_end_within_a_run(deployment, plan, flower):
    """The process that executes the run would ask them for ever."""
    stays = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def goes_down(folder):
        folder.write_json("processes.json", {"driver": processes.record([stays.pid])})
        flower.up = False

    flower.on_run = goes_down
    with pytest.raises(RunFailed, match="the servers are down"):
        execute(deployment, submit.create_run(deployment, plan, [], 1, 1))
    assert stays.wait(5) == -9


def test_flower_ended_the_run_before_it_began(deployment, plan, flower):
    flower.status = "finished:failed"
    with pytest.raises(RunFailed, match="Flower ended the run: finished:failed"):
        execute(deployment, submit.create_run(deployment, plan, [], 1, 1))
    assert "list" in flower.calls


@pytest.mark.parametrize("status", ["new", "running"])
def test_a_resume_ends_what_a_killed_attempt_left(deployment, plan, flower, status):
    folder = submit.create_run(deployment, plan, [], 1, 1)
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    folder.write_json("processes.json", {"driver": processes.record([left.pid])})
    folder.write_json("flower.json", {"run-id": "76"})
    folder.set_status(status)
    flower.on_run = lambda folder: folder.set_status("waiting", "x")
    with pytest.raises(RunWaiting):
        execute(deployment, folder)
    assert left.wait(5) == -9
    assert flower.calls == ["stop", "run"]
    assert folder.read_json("processes.json") is None


def test_waits_given_with_a_resume_are_taken_and_others_stay(deployment, plan, flower, capsys):
    folder = submit.create_run(deployment, plan, (), 120.0, 300.0)
    sealed, tell = (folder.path / "deployed.json").read_bytes(), ["--deployment", str(deployment.root)]
    flower.on_run = lambda folder: folder.set_status("failed", "the sites are asleep", "RunFailed")
    for words, expected in (
        ([], (120.0, 300.0)),
        (["--join", "900"], (900.0, 300.0)),
        (["--away", "60"], (900.0, 60.0)),
    ):
        assert main(["deploy", "run", "--resume", str(folder.path), *tell, *words]) == 1
        about = deployed_about(folder)
        assert (about.join_s, about.away_s) == expected
    assert (folder.path / "deployed.json").read_bytes() == sealed
    capsys.readouterr()
    assert main(["deploy", "run", "--resume", str(folder.path), *tell, "--away", "0"]) == 2
    assert "--away 0: give a number of seconds above 0" in capsys.readouterr().err
