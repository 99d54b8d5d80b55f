"""Worker processes: what they do is what this process would do, and what goes wrong costs one run."""

import hashlib
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from small_runs import alive, config

from fedimb.config.load import config_sha
from fedimb.rundir.folder import RunFolder
from fedimb.study.execute import Workers, execute, failures
from fedimb.study.pool import do_all
from fedimb.study.work import Done, Task, earlier


def task(where, *words, what="a run", kind="run"):
    return Task.of(kind, config("engine=inline", "rounds=2", f"output_dir={where}", *words), what)


def model_of(path):
    return hashlib.sha256((path / "artifacts" / "model" / "model.safetensors").read_bytes()).hexdigest()


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def workers_in(where, count=1, isolate=False):
    return Workers(count, isolate, where / "logs")


WORDS = [(f"seed={seed}", loss) for seed in (0, 1) for loss in ("loss=ce", "loss=balanced_softmax")]


@pytest.fixture(scope="module")
def here(cache_dir, tmp_path_factory):
    """The runs done in this process: what all others must equal, by what they are."""
    where = tmp_path_factory.mktemp("here")
    tasks = [task(where, *words) for words in WORDS]
    done = execute(tasks, workers_in(where, 0), "here")
    return {t.key: model_of(done[t.key].path) for t in tasks}


@pytest.mark.parametrize(("workers", "isolate"), [(1, False), (2, False), (2, True)])
def test_workers_get_the_same_bits_as_this_process(here, tmp_path, workers, isolate):
    tasks = [task(tmp_path, *words) for words in WORDS]
    done = execute(tasks, workers_in(tmp_path, workers, isolate), "there")
    assert {t.key: model_of(done[t.key].path) for t in tasks} == here
    assert not list((tmp_path / "logs").iterdir())  # nothing failed


def test_the_first_and_a_later_run_of_a_worker_are_bit_equal(here, tmp_path):
    # one worker: a run, others with other parts in between, and the first one's configuration again elsewhere
    between = [("seed=5", "local.lr=1e38"), ("seed=3", "aggregator=fedadam"), ("seed=4", "sampler=class_balanced")]
    first, last = (task(tmp_path / part, *WORDS[0]) for part in ("first", "last"))
    tasks = [first, *(task(tmp_path / "first", *words) for words in between)]
    ends = list(do_all([*tasks, last], {}, 1, False, tmp_path / "logs"))
    assert [ended.status for _, ended in ends] == ["finished", "diverged", "finished", "finished", "finished"]
    assert ends[0][1].path != ends[-1][1].path
    assert model_of(ends[0][1].path) == model_of(ends[-1][1].path) == here[first.key]


def test_isolated_runs_have_a_process_each_and_others_share_one(tmp_path):
    def drivers(isolate):
        where = tmp_path / str(isolate)
        tasks = [task(where, *words) for words in WORDS[:2]]
        done = execute(tasks, workers_in(where, 1, isolate), "x")
        return [next(iter(RunFolder(done[t.key].path).read_json("processes.json")["driver"])) for t in tasks]

    assert len(set(drivers(False))) == 1
    assert len(set(drivers(True))) == 2
    assert str(os.getpid()) not in drivers(False)


def test_finished_runs_are_not_repeated_and_failed_ones_are(tmp_path):
    good, bad = task(tmp_path, "seed=0"), task(tmp_path, "seed=1", "data.n_max=10000", what="bad, seed 1")
    first = execute([good, bad], workers_in(tmp_path), "x")
    assert (first[good.key].status, first[bad.key].status) == ("finished", "failed")
    lines = failures([good, bad], first, workers_in(tmp_path))
    assert len(lines) == 1
    assert lines[0].startswith("failed: bad, seed 1: class ")
    log = tmp_path / "logs" / f"{bad.key[:24]}.log"
    assert str(log) in lines[0]
    assert "bad, seed 1: class " in log.read_text()
    before = stamps(first[good.key].path)
    again = execute([good, bad], workers_in(tmp_path), "x")
    assert stamps(first[good.key].path) == before
    assert again[good.key].path == first[good.key].path
    assert again[bad.key].seconds > 0  # tried again
    assert log.read_text().count("bad, seed 1") == 2


def test_a_task_that_raises_leaves_its_log_and_no_other_task_minds(tmp_path, here):
    broken = task(tmp_path, "seed=0", what="broken", kind="nonsense")
    good = task(tmp_path, *WORDS[0])
    done = execute([broken, good], workers_in(tmp_path), "x")
    assert (done[broken.key].status, done[good.key].status) == ("failed", "finished")
    assert done[broken.key].error == "KeyError: 'nonsense'"
    assert "Traceback" in (tmp_path / "logs" / f"{broken.key[:24]}.log").read_text()
    assert model_of(done[good.key].path) == here[good.key]


def test_a_diverged_run_is_shown_with_its_folder_and_not_repeated(tmp_path):
    lost = task(tmp_path, "local.lr=1e38", what="wild")
    first = execute([lost], workers_in(tmp_path), "x")[lost.key]
    assert first.status == "diverged"
    assert RunFolder(first.path).status() == "failed"
    before = stamps(first.path)
    second = execute([lost], workers_in(tmp_path), "x")[lost.key]
    assert (second.status, second.path) == ("diverged", first.path)
    assert stamps(first.path) == before
    assert failures([lost], {lost.key: second}, workers_in(tmp_path))[0].startswith("diverged: wild: ")


def long_run(where):
    return task(where, "rounds=150", "local.epochs=5", "seed=2", what="long, seed 2")


@pytest.fixture(scope="module")
def long_here(cache_dir, tmp_path_factory):
    where = tmp_path_factory.mktemp("long")
    one = long_run(where)
    return model_of(execute([one], workers_in(where, 0), "x")[one.key].path)


def begun(where, key, rounds=3):
    """The folder of a run that has done some rounds, once there is one, and the process that does it."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        _, unfinished = earlier([long_run(where)])
        if key in unfinished and len(RunFolder(unfinished[key]).metrics()) >= rounds:
            folder = RunFolder(unfinished[key])
            if driver := folder.read_json("processes.json", {}).get("driver"):
                return folder, int(next(iter(driver)))
        time.sleep(0.02)
    raise AssertionError("the run did not begin")


def test_a_run_killed_while_its_folder_was_written_leaves_no_second_folder(tmp_path, here):
    one = task(tmp_path, *WORDS[0])
    path = execute([one], workers_in(tmp_path, 0), "x")[one.key].path
    for left in [p for p in path.iterdir() if p.name not in ("config.json", "partition.npz", "partition.json")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    again = execute([one], workers_in(tmp_path, 0), "x")[one.key]
    assert (again.status, again.path) == ("finished", path)
    assert model_of(path) == here[one.key]


@pytest.mark.slow
def test_of_a_tracked_study_mlflow_gets_every_run_that_ended(tmp_path, template):
    from mlflow.tracking import MlflowClient

    shutil.copy(template, tmp_path / "mlflow.db")
    tasks = [task(tmp_path, "tracking=mlflow", "study=t", word) for word in ("seed=0", "local.lr=1e38")]
    missed = execute(
        [task(tmp_path, "tracking=none", "study=t", "seed=0")], workers_in(tmp_path, 0), "x"
    )  # as if interrupted
    assert not (missed[tasks[0].key].path / "tracking.json").exists()
    for _ in range(2):
        execute(tasks, workers_in(tmp_path, 0), "x")
        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        runs = client.search_runs([client.get_experiment_by_name("t").experiment_id])
        assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]


@pytest.mark.slow
def test_a_killed_worker_costs_its_run_and_the_next_call_goes_on_with_it(tmp_path, long_here):
    cut = long_run(tmp_path)
    others = [task(tmp_path, *words) for words in WORDS]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute, [cut, *others], workers_in(tmp_path), "x")
        folder, pid = begun(tmp_path, cut.key)
        assert pid != os.getpid()
        os.kill(pid, signal.SIGKILL)
        done = running.result(120)
    assert done[cut.key].status == "failed"
    assert done[cut.key].error == "its process was killed by SIGKILL (out of memory?)"
    assert [done[t.key].status for t in others] == ["finished"] * 4
    lines = failures([cut, *others], done, workers_in(tmp_path))
    assert [line.partition(" (log")[0] for line in lines] == [
        "failed: long, seed 2: its process was killed by SIGKILL (out of memory?)"
    ]
    assert not (folder.path / "result.json").exists()
    before = {t.key: stamps(done[t.key].path) for t in others}

    again = execute([cut, *others], workers_in(tmp_path), "x")
    assert {one.status for one in again.values()} == {"finished"}
    assert again[cut.key].path == folder.path  # gone on with, not begun anew
    assert model_of(folder.path) == long_here
    assert {t.key: stamps(again[t.key].path) for t in others} == before
    assert failures([cut, *others], again, workers_in(tmp_path)) == []


def test_workers_work_where_this_process_is_now(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        own = [task("runs", "study=here"), task("runs", "study=here", kind="majority")]
        done = execute(own, workers_in(tmp_path / name), "x")
        assert {done[t.key].status for t in own} == {"finished"}
        assert [path.name for path in (tmp_path / name / "runs" / "here" / "references").iterdir()] == [
            f"majority-{config_sha(config('rounds=2'))[:16]}.json"
        ]


def test_closing_early_ends_the_workers(tmp_path):
    doing = do_all([task(tmp_path, *WORDS[0]), long_run(tmp_path)], {}, 2, False, tmp_path / "logs")
    first, ended = next(doing)
    assert isinstance(ended, Done)
    _, pid = begun(tmp_path, long_run(tmp_path).key)
    assert alive(pid)
    doing.close()
    until = time.monotonic() + 5  # ended at once, but for a moment still in the table of processes
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(pid)
    assert first.key == task(tmp_path, *WORDS[0]).key
