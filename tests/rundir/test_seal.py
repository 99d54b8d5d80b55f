"""A changed run folder is found by whoever reads it, and a damaged checkpoint costs a few rounds, not the run."""

import json
import os
import shutil
from pathlib import Path

import pytest
from seals import flip, rows_of, unfinished, unseal
from small_runs import launch_in, weights_sha

from fedimb.cli import main
from fedimb.errors import FedimbError
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.rundir.seal import Damaged, Manifest, read_seal, write_seal
from fedimb.serverapp.launch import resume

SCAFFOLD = ("engine=inline", "aggregator=scaffold", "clients.count=3", "rounds=4")


@pytest.fixture(scope="module")
def finished(cache_dir, tmp_path_factory):
    return launch_in(tmp_path_factory.mktemp("sealed"), *SCAFFOLD)


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of the finished run's folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished.folder, tmp_path / "runs" / "default" / finished.folder.name))


def say(capsys, *words: str) -> tuple[int, str]:
    code = main(list(words))
    return code, capsys.readouterr().err


def commands(run: Path) -> dict[str, tuple[str, ...]]:
    return {
        "show": ("show", str(run)),
        "predict": ("predict", str(run), "--out", "out.csv"),
        "report": ("report", str(run), "--to", "out.html"),
        "track": ("track", "sync", str(run)),
        "resume": ("run", "--resume", str(run)),
    }


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("config.json", ("show", "predict", "report", "track", "resume")),
        ("partition.npz", ("show", "predict", "report", "track")),
        ("metrics.jsonl", ("show", "report", "track")),
        ("result.json", ("show", "predict", "report")),
        ("artifacts/model/model.safetensors", ("predict", "track")),
    ],
)
def test_a_flipped_byte_is_named_with_its_file_by_whoever_reads_it(run, name, readers, capsys):
    flip(run / name)
    for reader in readers:
        code, said = say(capsys, *commands(run)[reader])
        assert code != 0, reader
        assert str(run / name) in said, reader
        assert "Traceback" not in said


def test_an_intact_folder_is_read_by_all(run, capsys):
    for reader in ("show", "predict", "report", "resume"):
        assert say(capsys, *commands(run)[reader])[0] == 0, reader


@pytest.mark.parametrize(("key", "value"), [("seed", 1), ("rounds", 2), ("local.lr", 0.5), ("local.epochs", 2)])
def test_an_edited_setting_is_named_with_what_it_was(run, key, value, capsys):
    file = run / "config.json"
    config = json.loads(file.read_text())
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    before, node[last] = node[last], value
    file.write_text(json.dumps(config))
    for reader in ("show", "predict", "report", "resume"):
        code, said = say(capsys, *commands(run)[reader])
        assert code == 1
        assert f"({key}: {before} -> {value})" in said
        assert f"{run / 'artifacts' / 'config.json'} is the file as it was: copy it back" in said


def test_emptied_metrics_are_named(run, capsys):
    (run / "metrics.jsonl").write_bytes(b"")
    for reader in ("show", "report"):
        code, said = say(capsys, *commands(run)[reader])
        assert code == 1
        assert "metrics.jsonl has 0 of the" in said
    (run / "metrics.jsonl").unlink()
    assert "metrics.jsonl is missing" in say(capsys, *commands(run)["show"])[1]


def test_metric_lines_added_after_the_end_are_named(run, capsys):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"row": "fedavg", "step": 9, "time": 1, "metrics": {"test/macro_recall": 1.0}}\n')
    assert "were added after the run had ended" in say(capsys, *commands(run)["show"])[1]


def test_a_missing_or_damaged_result_is_written_again_from_the_checkpoint(run, finished, capsys):
    whole = json.loads((run / "result.json").read_text())
    for damage in (Path.unlink, flip):
        damage(run / "result.json")
        assert f"fedimb run --resume {run} writes it again" in say(capsys, *commands(run)["show"])[1]
        assert main(["run", "--resume", str(run)]) == 0
        assert json.loads((run / "result.json").read_text()) == whole
        assert rows_of(run) == rows_of(finished.folder)


def test_an_older_folder_without_a_seal_is_read_with_one_line(run, capsys):
    unseal(run)
    assert main(["show", str(run)]) == 0
    assert f"{run} is not sealed" in capsys.readouterr().out
    for reader in ("predict", "report"):
        assert f"{run} is not sealed" in say(capsys, *commands(run)[reader])[1]


def test_a_seal_that_was_removed_or_damaged_is_named_and_written_again(run, capsys):
    for damage in (Path.unlink, flip):
        damage(run / "seal.json")
        assert "seal.json is" in say(capsys, *commands(run)["show"])[1]
        assert main(["run", "--resume", str(run)]) == 0
        assert main(["show", str(run)]) == 0


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "metrics.jsonl", "clients"])
def test_what_only_the_last_checkpoint_needs_costs_a_round(run, finished, name, caplog):
    unfinished(run)
    if name == "clients":
        (last,) = run.glob("clients/client-000001/v000000004.safetensors")
        flip(last)
    elif name == "metrics.jsonl":
        flip(run / name, (run / name).stat().st_size - 9)
    else:
        flip(run / name)
    resume(run)
    assert "continuing from the checkpoint before" in caplog.text
    assert name in caplog.text
    assert weights_sha(RunResult.read(run)) == weights_sha(finished)
    assert rows_of(run) == rows_of(finished.folder)
    assert "checkpoint before" in (run / "journal.jsonl").read_text()


def test_a_run_killed_after_it_fell_back_goes_on_again(run, finished, monkeypatch):
    unfinished(run)
    flip(run / "checkpoint.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(
            "fedimb.rundir.checkpoints.Checkpoints.write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            resume(run)
    resume(run)
    assert weights_sha(RunResult.read(run)) == weights_sha(finished)
    assert rows_of(run) == rows_of(finished.folder)


@pytest.mark.parametrize(
    "gone", [("rows.json",), ("rows.json", "seal.json"), ("rows.json", "seal.json", "partition.npz")]
)
def test_a_run_killed_while_its_folder_was_written_starts_anew(run, finished, gone):
    for path in list(run.iterdir()):
        if path.name not in ("config.json", "partition.json", "partition.npz", "environment.json", "seal.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    seal = read_seal(run)
    write_seal(run, Manifest(files={n: sha for n, sha in seal.files.items() if (run / n).exists() or n == "rows.json"}))
    for name in gone:
        (run / name).unlink(missing_ok=True)
    resume(run)
    assert weights_sha(RunResult.read(run)) == weights_sha(finished)
    assert rows_of(run) == rows_of(finished.folder)


def test_a_run_whose_seal_and_rows_were_deleted_is_not_taken_for_an_old_one(run):
    for name in ("seal.json", "rows.json"):
        (run / name).unlink()
    with pytest.raises(Damaged, match=r"seal\.json is missing: nothing in the folder can be checked"):
        _ = RunFolder(run).seal


def test_two_damaged_checkpoints_are_both_named(run):
    unfinished(run)
    for name in ("checkpoint.safetensors", "checkpoint.before.safetensors"):
        flip(run / name)
    with pytest.raises(
        Damaged, match=r"checkpoint\.safetensors is damaged.*checkpoint\.before\.safetensors is damaged"
    ):
        resume(run)


def test_a_checkpoint_of_another_run_is_refused(run, tmp_path):
    other = launch_in(tmp_path / "other", *SCAFFOLD, "seed=1").folder
    unfinished(run)
    for name in ("checkpoint.safetensors", "checkpoint.before.safetensors"):
        shutil.copyfile(other / name, run / name)
    with pytest.raises(Damaged, match=r"is not the file that checkpoint\.safetensors builds on"):
        resume(run)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("processes.json", "make sure that no process of the killed run is left"),
        ("metrics.jsonl", "metrics.jsonl was changed"),
    ],
)
def test_damaged_files_are_named_on_resume(run, name, remedy):
    unfinished(run)
    flip(run / name, 3)
    with pytest.raises(Damaged, match=remedy):
        resume(run)


def test_a_damaged_status_is_said_and_written_again(run, caplog, capsys):
    for content in (b"", b"[]", b'{"status": "finished", "sha256": "0"}', b"\xff\xfe"):
        (run / "status.json").write_bytes(content)
        assert "status.json is damaged" in say(capsys, *commands(run)["show"])[1]
        caplog.clear()
        resume(run)
        assert "status.json is damaged" in caplog.text
        assert RunFolder(run).status() == "finished"


@pytest.mark.parametrize(
    "place", ["metrics.jsonl", "artifacts/model/model.json", "artifacts/extra", "steps", "config.json"]
)
def test_links_are_refused_by_name_by_every_reader(run, place, tmp_path, capsys):
    target = tmp_path / "elsewhere"
    if (run / place).exists():
        (run / place).rename(target)
    (run / place).symlink_to(target)
    if place == "config.json":
        (run / "artifacts" / "config.json").unlink()  # the same in a folder that cannot say what it was
    for reader, words in commands(run).items():
        code, said = say(capsys, *words)
        assert code != 0, reader
        assert f"{run / place} is a link, and links in a run folder are not followed" in said, reader


MODULE = """
import math
from pathlib import Path
from torch import nn
from fedimb.models.base import Classifier

Path("imported").touch()

class Net(Classifier):
    def __init__(self, n_classes: int, input_shape: tuple[int, ...]):
        super().__init__()
        self.body = nn.Flatten()
        self.head = nn.Linear(math.prod(input_shape), n_classes)

    def features(self, x):
        return self.body(x)
"""


def test_modules_a_foreign_run_names_are_not_imported_from_the_working_folder(warm, tmp_path):
    home, away = tmp_path / "home", tmp_path / "away"
    for folder in (home, away):
        folder.mkdir()
        (folder / "beside_me.py").write_text(MODULE)
    words = ["model={_target_: beside_me.Net}", "engine=inline", "tracking=none", "rounds=1", "local.epochs=1"]
    cli = "import sys; from fedimb.cli import main; sys.exit(main({!r}))"
    assert warm(home, cli.format(["run", *words])).returncode == 0
    (run,) = (home / "runs" / "default").iterdir()
    (home / "imported").unlink()
    predict = ["predict", str(run), "--out", "out.csv"]
    assert warm(home, cli.format(predict)).returncode == 0  # started here by this user
    shutil.copytree(run, away / "run")
    for command in (["predict", "run", "--out", "out.csv"], ["report", "run"], ["run", "--resume", "run"]):
        done = warm(away, cli.format(command))
        assert done.returncode == 2, command
        assert "beside_me is a file of the working folder" in done.stderr
        assert "--trust" in done.stderr
        assert not (away / "imported").exists()
    done = warm(away, f"import fedimb; fedimb.load_model({str(away / 'run')!r})")
    assert "beside_me is a file of the working folder" in done.stderr
    assert not (away / "imported").exists()
    assert warm(away, cli.format(["predict", "run", "--out", "out.csv", "--trust"])).returncode == 0
    assert (away / "imported").exists()


def test_of_two_processes_that_resume_a_run_one_goes_on(cache_dir, tmp_path):
    from kill_matrix import Fork

    words = ["run", "engine=inline", "tracking=none", "rounds=25", "clients.count=4", "local.epochs=1"]
    first = Fork(tmp_path, words)
    while not (found := list(tmp_path.glob("runs/default/*/checkpoint.safetensors"))):
        assert first.poll() is None
    first.kill()
    first.wait(20)
    run = found[0].parent
    logs = [tmp_path / "one", tmp_path / "two"]
    for log in logs:
        log.mkdir()
    both = [Fork(log, ["run", "--resume", str(run)]) for log in logs]
    codes = [one.wait(120) for one in both]
    assert sorted(codes) == [0, 1]
    loser, winner = codes.index(1), codes.index(0)
    assert f"{run} is in use by process {both[winner].pid}; wait" in (logs[loser] / "log").read_text()
    assert RunFolder(run).status() == "finished"


def test_of_two_who_want_a_run_the_second_is_told_who_holds_it(run):
    one, two = RunFolder.open(run), RunFolder.open(run)
    one.lock()
    with pytest.raises(FedimbError, match=f"in use by process {os.getpid()}; wait"):
        two.lock()
    one.unlock()
    two.lock()
    two.unlock()
