"""A method installed from outside, run by the command line on both engines, without a line of fedimb touched."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedimb.cli import main

ON_RAY = """
import sys
from pathlib import Path
from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.engine.open import open_engine
from fedimb.errors import RunWaiting
from fedimb.serverapp.launch import launch, resume

config = validate(compose(sys.argv[1:]))
engine = open_engine(config.engine)
try:
    try:
        launch(config, engine)
    except RunWaiting as error:
        print(error)
    Path(config.strategy["toy"]["labels_file"]).touch()
    (run,) = Path(config.output_dir).glob("*/*")
    print(resume(run, engine).folder)
finally:
    engine.close()
"""


def sha(run: Path) -> str:
    """sha256 over names, dtypes, shapes and bytes of the final model's tensors."""
    digest = hashlib.sha256()
    for name, array in sorted(load_file(run / "artifacts/model/model.safetensors").items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def lines(run: Path, name: str) -> list:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def metric(run: Path, name: str) -> list:
    return [line["metrics"][name] for line in lines(run, "metrics.jsonl")]


def check_finished(run: Path) -> None:
    """What holds for the finished toy run on any engine."""
    assert json.loads((run / "status.json").read_text())["status"] == "finished"
    assert [line["step"] for line in lines(run, "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert metric(run, "toy/seen") == [1.0] * 6  # every row the Query counted trains in every round
    # Written in the Query, read and counted up in every training round, across processes and a Reset.
    assert metric(run, "toy/trained") == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    rows = json.loads((run / "result.json").read_text())["train_counts"]
    assert metric(run, "toy/total") == [sum(rows) * k for k in range(1, 7)]
    started = [e["name"] for e in lines(run, "journal.jsonl") if e["event"] == "start"]
    assert started[0] == "Query(toy_profile)"
    done = [e["name"] for e in lines(run, "journal.jsonl") if e["event"] == "done"]
    assert done == ["Query(toy_profile)", "Rounds(3)", "Wait(labels needed)", "Reset(global)", "Rounds(3)"]
    for client in range(4):  # message 1 was the Query, 2 to 7 the rounds
        versions = sorted(p.name for p in (run / "clients" / f"client-{client:06d}").iterdir())
        # That of the last message, and those that the two checkpoints before it build on.
        assert versions == [f"v{version:09d}.safetensors" for version in (5, 6, 7)]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


@pytest.mark.alone  # a Ray head fills the machine
@pytest.mark.timeout(900)
def test_waits_resumes_and_agrees_on_inline_and_ray(installed, fedimb, shell, small, labels, tmp_path):
    words = [*small, f"strategy.toy.labels_file={labels}", "strategy.toy.bonus=0"]
    first = fedimb(installed, "run", *words, "engine=inline", "output_dir=inline")
    assert first.returncode == 75, first.stderr
    assert "waiting: labels needed" in first.stderr
    (run,) = (tmp_path / "inline" / "default").iterdir()
    assert run.name.startswith("toy-s0-")
    assert json.loads((run / "status.json").read_text())["status"] == "waiting"
    assert f"fedimb run --resume {run}" in first.stderr

    again = fedimb(installed, "run", "--resume", str(run))
    assert again.returncode == 75, again.stderr
    assert len(lines(run, "metrics.jsonl")) == 3

    labels.touch()
    last = fedimb(installed, "run", "--resume", str(run))
    assert last.returncode == 0, last.stderr
    check_finished(run)

    labels.unlink()
    ray = shell(installed, ON_RAY, *words, "engine=ray", "engine.workers=1", "output_dir=ray")
    assert ray.returncode == 0, ray.stderr
    assert "waiting: labels needed" in ray.stdout
    (other,) = (tmp_path / "ray" / "default").iterdir()
    check_finished(other)
    assert sha(other) == sha(run)
    scores = [k for k in lines(run, "metrics.jsonl")[-1]["metrics"] if k.startswith(("test/", "toy/", "comm/"))]
    for name in scores:
        assert metric(run, name) == metric(other, name)
    # The Reset gave other weights than before it, and training went on from those.
    assert metric(run, "train/loss")[3] != metric(run, "train/loss")[0]
    assert np.isfinite(metric(run, "train/loss")).all()


@pytest.mark.slow
def test_inside_a_method_that_trains_before_it(installed, fedimb, small, labels, tmp_path):
    words = [*small[1:], "strategy=[scope,toy]", "strategy.scope.warmup=1", f"strategy.toy.labels_file={labels}"]
    done = fedimb(installed, "run", *words, "engine=inline", f"output_dir={tmp_path}/runs")
    assert done.returncode == 75, done.stderr
    (run,) = tmp_path.glob("runs/default/*")
    seen = [line["metrics"].get("toy/seen") for line in lines(run, "metrics.jsonl")]
    assert seen[0] is None
    assert len(seen) > 1
    assert all(share is not None for share in seen[1:])


def test_listed_with_its_first_sentence(installed, fedimb):
    done = fedimb(installed, "list", "strategies")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["toy"]]
    assert "Count rows" in line


def test_wrong_setting_is_answered_with_the_nearest(installed, fedimb, small, tmp_path):
    done = fedimb(installed, "run", *small, "strategy.toy.label_file=x")
    assert done.returncode == 2
    assert done.stderr == "fedimb: strategy 'toy' has no argument 'label_file'. Did you mean 'labels_file'?\n"
    assert not list(tmp_path.glob("runs/*/*"))


def test_without_the_package_the_name_is_unknown(small, capsys):
    assert main(["run", *small]) == 2
    line = capsys.readouterr().err
    assert "toy" in line
    assert "Valid: active, " in line


def test_undeclared_record_does_not_leave(leaky, fedimb, small, labels, tmp_path):
    done = fedimb(leaky, "run", *small, f"strategy.toy.labels_file={labels}", "engine=inline")
    assert done.returncode == 1
    assert "egress filter: record 'x.names' is not declared by any contract of this run for 'train'" in done.stderr
    assert "Ada" not in done.stderr
    (run,) = (tmp_path / "runs" / "default").iterdir()
    assert json.loads((run / "status.json").read_text())["status"] == "failed"
    assert not (run / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["test_toy.py", "test_server_momentum.py"])
def test_the_pages_own_tests_pass(name, installed, page_files, shell, tmp_path):
    (tmp_path / name).write_text(page_files[f"tests/{name}"])
    done = shell(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", name)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
