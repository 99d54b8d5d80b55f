"""A worker on a machine that lacks what a run needs says which path it misses, or builds the data store again."""

import os
import pickle
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from small_runs import launch_in, weights_sha

from fedimb.clientapp import app
from fedimb.data import store
from fedimb.data.federation import Federation
from fedimb.engine import ray_worker
from fedimb.engine.ray import RayGrid
from fedimb.engine.ray_worker import Worker
from fedimb.errors import RunFailed

HERE = socket.gethostname()


class Elsewhere:
    """An engine whose one worker is in this process but on another machine, as far as `spoil` makes it one."""

    temp_dir = None

    def __init__(self, spoil):
        self.spoil = spoil

    def grid(self, job):
        return RayGrid(self, job)

    def run(self, job, lanes, shared, reduce, costs, admission=None):
        first_ids = [1 + sum(len(lane) for lane in lanes[:i]) for i in range(len(lanes))]
        app._runtime.cache_clear()  # another process
        store.open_store.cache_clear()
        packed = reduce if isinstance(reduce, bool) else pickle.dumps(reduce)
        return Worker().run_lanes(self.spoil(job), lanes, shared, packed, first_ids, [])

    def processes(self):
        return []

    def close(self):
        pass


@pytest.fixture(autouse=True)
def fresh():
    """No process-wide memory of what is deleted here."""
    yield
    app._runtime.cache_clear()
    store.open_store.cache_clear()


def test_a_machine_without_the_store_builds_it_again_from_the_source(tmp_path):
    lacking = []

    def without_store(job):
        lacking.append(Federation.load(Path(job.run_dir)).store_path)
        shutil.rmtree(lacking[-1])
        return job

    expected = launch_in(tmp_path, "engine=inline")
    assert weights_sha(launch_in(tmp_path, engine=Elsewhere(without_store))) == weights_sha(expected)
    assert lacking[-1].is_dir()


def table(folder, name="d.npz"):
    rng = np.random.default_rng(0)
    np.savez(folder / name, x=rng.normal(size=(90, 3)).astype("f4"), y=np.repeat([0, 1, 2], 30))


def run_with_npz(tmp_path, monkeypatch, spoil):
    (tmp_path / "data").mkdir()
    table(tmp_path / "data")
    monkeypatch.setenv("FEDIMB_DATA_DIR", str(tmp_path / "data"))
    words = ("data=npz", "data.source.path=d.npz", "data.test={name: stratified, fraction: 0.3}", "clients.count=3")
    return launch_in(tmp_path, *words, "data.n_max=null", engine=Elsewhere(spoil))


def test_a_machine_without_store_and_source_names_itself_the_client_the_path_and_the_remedy(tmp_path, monkeypatch):
    lacking = []

    def without_both(job):
        lacking.append(Federation.load(Path(job.run_dir)).store_path)
        shutil.rmtree(lacking[-1])
        os.remove(tmp_path / "data" / "d.npz")
        return job

    with pytest.raises(RunFailed) as error:
        run_with_npz(tmp_path, monkeypatch, without_both)
    first = str(error.value).split("; client 1: ")[0]
    assert "only 0 of 3 clients gave a usable reply" in first
    assert f"client 0, round 1, train, on machine {HERE}: DataError: no data store {lacking[0]} and no source" in first
    assert "share that folder with this machine" in first
    assert "set FEDIMB_DATA_DIR" in first
    assert "Traceback" not in first


def test_a_source_of_other_content_is_not_taken_for_the_one_the_clients_were_cut_from(tmp_path, monkeypatch):
    def other(job):
        shutil.rmtree(Federation.load(Path(job.run_dir)).store_path)
        np.savez(tmp_path / "data" / "d.npz", x=np.zeros((90, 3), "f4"), y=np.repeat([0, 1, 2], 30))
        return job

    with pytest.raises(RunFailed, match=rf"on machine {HERE}: DataError: .* the clients were cut from npz-1"):
        run_with_npz(tmp_path, monkeypatch, other)


def test_a_machine_that_does_not_see_the_run_folder_says_so(tmp_path):
    def unshared(job):
        return type(job)(run_dir="/no/such/run", config_json=job.config_json, n_clients=job.n_clients)

    with pytest.raises(RunFailed) as error:
        launch_in(tmp_path, engine=Elsewhere(unshared))
    said = f"client 0, round 1, train, on machine {HERE}: DataError: no run folder /no/such/run; set output_dir to"
    assert said in str(error.value)


def test_what_nobody_foresaw_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(context):
        raise ZeroDivisionError("here")

    monkeypatch.setattr(ray_worker, "ahead_of", broken)
    with pytest.raises(RunFailed, match=rf"on machine {HERE}: ZeroDivisionError: here\nTraceback"):
        launch_in(tmp_path, engine=Elsewhere(lambda job: job))
