"""A copy of a working coordinator: usable whenever it is made, and no coordinator until somebody says so."""

import json
import shutil
import socket
import sqlite3
import ssl
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from coordinator import contents, make_deployment, make_node
from deployed import small_study, weights
from loopback import Loopback
from seals import rows_of
from small_runs import launch_in

from fedimb.cli.main import main
from fedimb.deploy.coordinator import standby as standby_module
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.coordinator.servers import Servers
from fedimb.deploy.coordinator.sites import add_site
from fedimb.deploy.coordinator.standby import MARK, copy_deployment, is_standby, take_over
from fedimb.deploy.coordinator.superlink import database
from fedimb.deploy.site.approvals import receive_plan
from fedimb.errors import ConfigError, RunFailed
from fedimb.records import unpack_arrays
from fedimb.rundir.arrival_journal import ArrivalJournal, check_replies
from fedimb.rundir.checkpoints import Checkpoints
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.rundir.seal import CHECKPOINT, write_seal


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    made = make_deployment(tmp_path / "Herz Süd")
    add_site(made, make_node(made, tmp_path / "linz"))
    return made


def nodes_in(path: Path) -> list[int]:
    with sqlite3.connect(path) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM node ORDER BY id")]


def test_the_database_is_copied_as_of_one_moment_while_it_is_written(deployment: Deployment, tmp_path: Path) -> None:
    writer = sqlite3.connect(database(deployment), isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE node (id INTEGER PRIMARY KEY, name TEXT)")
    writer.execute("INSERT INTO node VALUES (1, 'linz')")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO node VALUES (2, 'half')")
    made = copy_deployment(deployment, tmp_path / "second")
    copy = database(Deployment(tmp_path / "second"))
    assert made.sites == 1
    assert nodes_in(copy) == [1]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    writer.execute("COMMIT")
    assert copy_deployment(deployment, tmp_path / "second").sites == 2
    assert nodes_in(copy) == [1, 2]
    assert sorted(path.name for path in copy.parent.iterdir()) == ["superlink.db"]
    writer.close()


def test_a_damaged_database_is_said_and_the_copy_before_stays(deployment: Deployment, tmp_path: Path) -> None:
    with sqlite3.connect(database(deployment)) as connection:
        connection.execute("CREATE TABLE node (id INTEGER PRIMARY KEY)")
    copy_deployment(deployment, tmp_path / "second")
    database(deployment).write_bytes(b"not a database" * 100)
    with pytest.raises(RunFailed, match="the standby keeps the copy it had"):
        copy_deployment(deployment, tmp_path / "second")
    assert nodes_in(database(Deployment(tmp_path / "second"))) == []
    with pytest.raises(ConfigError, match="was not copied completely"):
        take_over(Deployment(tmp_path / "second"))


def test_keys_sites_and_plans_are_copied_and_removed_ones_go(deployment: Deployment, tmp_path: Path) -> None:
    deployment.folder("plans", "abc")
    deployment.file("plans", "abc", "plan.json").write_text("{}")
    copy_deployment(deployment, tmp_path / "second")
    deployment.file("sites", "linz.join.json").unlink()
    shutil.rmtree(deployment.file("plans", "abc"))
    made = Deployment(Path(copy_deployment(deployment, tmp_path / "second").folder))
    own = {name: data for name, data in contents(deployment.root).items() if not name.startswith(("state", "logs"))}
    theirs = {name: data for name, data in contents(made.root).items() if name != MARK}
    assert theirs == own
    for name in ("ca.key", "server.key", "sign.key"):
        assert stat.S_IMODE(made.file(name).stat().st_mode) == 0o600
    assert stat.S_IMODE(made.root.stat().st_mode) == 0o700


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which the last two checkpoints are there."""
    return Path(launch_in(tmp_path_factory.mktemp("run"), "engine=inline", "rounds=2").folder)


def test_a_run_that_goes_on_at_any_moment_of_the_copy_leaves_a_copy_that_can_be_resumed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is written after the n-th file that is copied, for every n."""
    copy_file, moments = standby_module._copy_file, len([path for path in run.rglob("*") if path.is_file()])
    covered = set()
    for moment in range(0, moments, 2):
        source = tmp_path / f"{moment}" / "run"
        shutil.copytree(run, source)
        folder, copied = RunFolder.open(source), []
        folder.lock()
        checkpoints = Checkpoints(folder, lambda versions: None)
        arrays, info = unpack_arrays((source / CHECKPOINT).read_bytes())
        checkpoints.restore()

        def go_on(
            folder: RunFolder = folder, checkpoints: Checkpoints = checkpoints, info: dict = info, arrays: dict = arrays
        ) -> None:
            progress = info["progress"] | {"server_round": info["progress"]["server_round"] + 1}
            size = folder.append_metrics([{"row": "x", "step": 3, "metrics": {}}])
            info |= {"message": info["message"] + 1, "metrics_size": size, "progress": progress}
            checkpoints.write(arrays, {key: value for key, value in info.items() if key != "sealed"})

        def file_then_round(
            path: Path,
            to: Path,
            moment: int = moment,
            copied: list = copied,
            go_on=go_on,  # type: ignore[no-untyped-def]
        ) -> None:
            copy_file(path, to)
            copied.append(path)
            if len(copied) == moment + 1:
                go_on()

        monkeypatch.setattr(standby_module, "_copy_file", file_then_round)
        covered.add(standby_module._copy_run(source, tmp_path / f"{moment}" / "copy"))
        folder.unlock()
        again = RunFolder.open(tmp_path / f"{moment}" / "copy")
        again.lock()
        found = Checkpoints(again, lambda versions: None).restore()
        again.unlock()
        assert found is not None
        assert {k: v.tobytes() for k, v in found.arrays.items()} == {k: v.tobytes() for k, v in arrays.items()}
    assert covered == {2, 3}


def test_a_run_that_cannot_be_copied_whole_leaves_the_copy_before(
    deployment: Deployment, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, deployment.file("runs", "default", "one"))
    assert copy_deployment(deployment, tmp_path / "second").runs == {"default/one": 2}
    before = contents(tmp_path / "second" / "runs")
    deployment.file("runs", "default", "one", "config.json").write_text("{}")
    with pytest.raises(RunFailed, match=r"could not be copied so that it can be resumed \(.*config.json was changed"):
        copy_deployment(deployment, tmp_path / "second")
    assert contents(tmp_path / "second" / "runs") == before
    shutil.rmtree(deployment.file("runs", "default", "one"))
    assert copy_deployment(deployment, tmp_path / "second").runs == {}
    assert contents(tmp_path / "second" / "runs") == {}


def test_a_standby_is_no_coordinator_until_it_is_taken_over(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", "standby", "--to", str(tmp_path / "b"), "--deployment", str(deployment.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == {}
    second = Deployment.open(tmp_path / "b")
    assert is_standby(second)
    with pytest.raises(ConfigError, match=r"is a standby of heart on .*, copied .*deploy take-over"), Servers(second):
        pass
    for words in (["remove-site", "linz"], ["up"], ["run", "x"], ["standby", "--to", str(tmp_path / "c")]):
        assert main(["deploy", *words, "--deployment", str(second.root)]) == 2
        assert "is a standby of heart" in capsys.readouterr().err
    assert main(["deploy", "status", "--deployment", str(second.root)]) == 1
    assert "a standby of the deployment on" in capsys.readouterr().out
    assert main(["deploy", "take-over", "--deployment", str(second.root)]) == 0
    assert f"fedimb deploy up --deployment {second.root}" in capsys.readouterr().out
    assert not is_standby(second)
    with pytest.raises(ConfigError, match="is not empty and not a standby"):
        copy_deployment(deployment, second.root)
    with pytest.raises(ConfigError, match="is not a standby's folder"):
        take_over(second)


def test_nobody_takes_over_while_the_coordinator_answers(deployment: Deployment, tmp_path: Path) -> None:
    second = Deployment(Path(copy_deployment(deployment, tmp_path / "second").folder))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(deployment.file("server.pem"), deployment.file("server.key"))
    with socket.create_server(("127.0.0.1", deployment.config.port)) as server:

        def shake_hands() -> None:
            caller, _ = server.accept()
            with caller, context.wrap_socket(caller, server_side=True) as secure:
                secure.recv(1)

        thread = threading.Thread(target=shake_hands)
        thread.start()
        with pytest.raises(ConfigError, match=r"the coordinator of heart answers at localhost:\d+: two of them"):
            take_over(second)
        thread.join()
    assert is_standby(second)
    assert take_over(second) == []


@pytest.mark.parametrize("place", ["inside", "around", "file", "full", "other"])
def test_folders_that_would_be_overwritten_are_refused(deployment: Deployment, tmp_path: Path, place: str) -> None:
    targets = {"inside": deployment.file("x"), "around": tmp_path, "file": tmp_path / "f", "full": tmp_path / "full"}
    (tmp_path / "f").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    if place == "other":
        targets["other"] = tmp_path / "o"
        copy_deployment(make_deployment(tmp_path / "another"), targets["other"])
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="--to"):
        copy_deployment(deployment, targets[place])
    assert contents(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [(), ("aggregator=scaffold",), ("prior.provenance=secure_sum", "loss=balanced_softmax")]
)
def test_a_run_that_its_standby_resumes_ends_with_the_same_bits(tmp_path: Path, method: tuple[str, ...]) -> None:
    words = ("tracking=none", "rounds=4", *method)
    study = small_study(tmp_path, {"linz": 60, "st-anna": 90, "va": 75}, *words)
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    folder, second = study.new(), tmp_path / "second"

    def is_lost(site, message):  # type: ignore[no-untyped-def]
        step = message.content.get("x.fedimb", {})
        if (site, message.metadata.message_type) == ("va", "train"):
            if step.get("round") == 3:
                copy_deployment(study.deployment, second)
            if step.get("round") == 4:
                raise OSError("the machine is gone")

    with pytest.raises(OSError, match="gone"):
        serve(folder.path, Loopback(study.homes.values(), 1, is_lost))
    shutil.rmtree(study.deployment.root)
    copy = second / folder.path.relative_to(study.deployment.root)
    with pytest.raises(ConfigError, match="is a standby of"):
        serve(copy, Loopback(study.homes.values(), 2))
    assert take_over(Deployment.open(second)) == [str(copy.relative_to(second / "runs"))]
    serve(copy, Loopback(study.homes.values(), 2))

    (tmp_path / "whole").mkdir()
    whole = small_study(tmp_path / "whole", {"linz": 60, "st-anna": 90, "va": 75}, *words)
    for home in whole.homes.values():
        receive_plan(home, whole.plan.to_json())
    whole.approve()
    reference = whole.new()
    serve(reference.path, Loopback(whole.homes.values(), 3))
    mine, theirs = weights(RunResult.read(copy)), weights(RunResult.read(reference.path))
    assert {name: value.tobytes() for name, value in mine.items()} == {n: v.tobytes() for n, v in theirs.items()}
    assert rows_of(copy) == rows_of(reference.path)


def test_each_arrival_in_a_copy_has_its_reply(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply arrives after the n-th file that is copied, for every n: the lines are never ahead of the replies."""
    copy_file, moments = standby_module._copy_file, len([path for path in run.rglob("*") if path.is_file()])
    for moment in range(0, moments, 3):
        source = tmp_path / f"{moment}" / "run"
        copied: list[Path] = []
        shutil.copytree(run, source)
        journal = ArrivalJournal(source)
        journal.append(b"one", 0, 0, 0, 0, 1, "")

        def file_then_reply(path: Path, to: Path, moment=moment, copied=copied, journal=journal) -> None:  # type: ignore[no-untyped-def]
            copy_file(path, to)
            copied.append(path)
            if len(copied) == moment + 1:
                journal.append(b"two", 0, 1, 1, 0, 2, "")

        monkeypatch.setattr(standby_module, "_copy_file", file_then_reply)
        copy = tmp_path / f"{moment}" / "copy"
        standby_module._copy_in_order(source, copy)
        check_replies(copy, 0, 0)


def test_a_copy_without_a_reply_that_a_resume_needs_does_not_replace_the_one_before(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "run"
    shutil.copytree(run, source)
    journal = ArrivalJournal(source)
    for number in range(2):
        journal.append(b"reply", 10**6, number, number, 0, number, "")  # of a step behind the checkpoint
    seal = RunFolder(source).seal
    assert seal is not None
    write_seal(source, replace(seal, ended=False))
    (source / "arrivals" / "000001.safetensors").unlink()
    with pytest.raises(RunFailed, match=r"000001\.safetensors is missing.*the standby keeps what it had"):
        standby_module._copy_run(source, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
