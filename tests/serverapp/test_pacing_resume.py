"""Stopped at any version, a run without rounds goes on to the same weights; and Ray computes the same."""

import json
import pickle

import killing
import pytest
from interrupted import interrupted, only_run
from small_runs import launch_in, weights_sha

from fedimb.engine.inline import InlineGrid
from fedimb.engine.ray_worker import batches
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp import launch

# moon keeps state at the clients, fedavgm at the server; balanced softmax follows what arrived
WORDS = (
    *("data=synthetic_table", "model=mlp", "engine=inline", "clients.count=6", "rounds=7", "local.lr=0.1"),
    *("pace=buffered", "pace.concurrency=4", "pace.slow=0.3", "pace.correction=exposure", "aggregator=moon"),
    *("loss=balanced_softmax", "prior.weighting=arrived", "clients.dropout=0.2", "checkpoint.every=2"),
)
REAL_TIMES = ("time/round_s", "time/client_s")


def facts(folder):
    """What must not depend on when a run was stopped: weights, every metric but real times, results."""
    lines = [
        (line["row"], line["step"], {k: v for k, v in line["metrics"].items() if k not in REAL_TIMES})
        for line in RunFolder(folder).metrics()
    ]
    result = json.loads((folder / "result.json").read_text())
    kept = {k: result[k] for k in ("rows", "up_bytes", "down_bytes", "rounds", "failed_replies", "prior")}
    return (folder / "artifacts" / "model" / "model.safetensors").read_bytes(), lines, kept


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return facts(launch_in(tmp_path_factory.mktemp("whole"), *WORDS).folder)


def stopped_and_resumed(tmp_path, version, after, words=WORDS):
    with interrupted(version, after):
        launch_in(tmp_path, *words)
    folder = only_run(tmp_path)
    assert RunFolder(folder).status() == "killed"
    launch.resume(folder)
    return folder


@pytest.mark.parametrize(("version", "after"), [(3, False), (4, True), (7, True)])
def test_interrupted_with_updates_in_flight(tmp_path, whole, version, after):
    folder = stopped_and_resumed(tmp_path, version, after)
    assert facts(folder) == whole


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("version", range(1, 8))
@pytest.mark.parametrize("more", [("checkpoint.every=1",), ("checkpoint.every=3",)])
def test_interrupted_at_every_version(tmp_path, whole, version, after, more):
    folder = stopped_and_resumed(tmp_path, version, after, (*WORDS, *more))
    assert facts(folder) == whole


@pytest.mark.slow
@pytest.mark.parametrize("pace", ["fedasync", "oversample", "deadline", "tiered"])
def test_other_paces_interrupted(tmp_path, pace):
    words = [word for word in WORDS if not word.startswith("pace")] + [f"pace={pace}", "pace.slow=0.3"]
    tiers = ["pace.tiers=2", "pace.probabilities=[0.7,0.3]", "clients.min_reply_fraction=0.3"]  # of three, two drop out
    words += tiers if pace == "tiered" else []
    reference = facts(launch_in(tmp_path / "whole", *words).folder)
    folder = stopped_and_resumed(tmp_path / "stopped", 4, False, words)
    assert facts(folder) == reference


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "count"), [("train", 9), ("state", 11), ("metrics", 2), ("checkpoint", 3), ("sent", 5)]
)
def test_killed_in_the_middle_of_a_buffer(warm, tmp_path, point, count, whole):
    words = [*WORDS, "data.n_max=60", "local.epochs=1", "tracking=none", "evaluation.bootstrap=0"]
    assert killing.run(warm, words, tmp_path, point, count) == -9
    folder = only_run(tmp_path)
    assert killing.resume(warm, folder, tmp_path) == 0
    assert facts(folder) == whole


def test_a_checkpoint_that_forgot_what_is_in_flight_would_be_seen(tmp_path, monkeypatch, whole):
    from fedimb.serverapp.pending import Pending

    with monkeypatch.context() as patched:
        patched.setattr(Pending, "load", lambda self, arrays, info: None)
        folder = stopped_and_resumed(tmp_path, 5, False)
    assert facts(folder)[0] != whole[0]


def test_two_workers_in_any_order_compute_the_same(tmp_path, monkeypatch, whole):
    """As on Ray: each worker gets the reduction by pickle and sends one sum back, and the last one may be first."""
    alone = InlineGrid.run_lanes

    def two_workers(self, lanes, reduce, costs):
        found = {}
        for share in reversed(batches(costs, 2)):
            own = alone(self, [lanes[i] for i in share], pickle.loads(pickle.dumps(reduce)), [costs[i] for i in share])
            found |= dict(zip(share, pickle.loads(pickle.dumps(own)), strict=True))
        return [found[i] for i in range(len(lanes))]

    monkeypatch.setattr(InlineGrid, "run_lanes", two_workers)
    assert facts(launch_in(tmp_path, *WORDS).folder) == whole


@pytest.mark.slow
def test_ray_computes_the_same(tmp_path, whole):
    words = [word for word in WORDS if not word.startswith("engine")]
    result = launch_in(tmp_path, *words, "engine=ray", "engine.workers=2")
    assert facts(result.folder)[0] == whole[0]
    assert json.loads((result.folder / "result.json").read_text())["rounds"] == 7


@pytest.mark.slow
def test_the_stacked_trainer_follows_the_same_schedule(tmp_path):
    words = [word for word in WORDS if not word.startswith(("engine", "aggregator"))]
    loop, stacked = (
        launch_in(tmp_path / name, *words, "engine=inline", f"engine.trainer={name}") for name in ("loop", "stacked")
    )
    one, other = ((result.folder / "artifacts" / "trainings.csv").read_text() for result in (loop, stacked))
    assert one == other
    assert loop.metrics["macro_recall"] == pytest.approx(stacked.metrics["macro_recall"], abs=0.05)
    assert weights_sha(loop)
