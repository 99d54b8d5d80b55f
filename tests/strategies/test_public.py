"""Controls with the server's own rows, as runs; and CCVR, which needs none."""

from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import load_file
from small_runs import launch_in, weights_sha

from fedimb.aggregators.scaffold import Scaffold
from fedimb.errors import ConfigError, RunFailed
from fedimb.records import array_record, to_numpy
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.launch import resume
from fedimb.strategies.plain import Plain
from fedimb.strategies.public import Public
from fedimb.testing.runs import configured, run, run_killed, small_tables

FIXED = ("engine=inline", "data.public=5", "clients.count=4")
CONTROL = (*FIXED, "strategy=public", "strategy.public.epochs=5")


def weights(result):
    return load_file(result.folder / "artifacts" / "model" / "model.safetensors")


def lines(result):
    return [line["metrics"] for line in RunFolder(result.folder).metrics()]


def test_only_trains_no_client_and_is_what_init_starts_from(tmp_path, monkeypatch):
    only = launch_in(tmp_path, *CONTROL, "strategy.public.use=only", "calibration=la_post")
    assert not only.suspect  # the server has trained its weights before the run's only round
    (line,) = lines(only)
    assert not line.get("comm/up_bytes")  # no weights travelled, and nobody is asked for counts that nothing uses
    assert only.prior_counts.tolist() == [5.0] * 10  # what it corrects for is what was trained on
    sent = []
    original = Public.configure_train

    def configure(self, server_round, arrays, config, grid):
        sent.append(to_numpy(arrays))
        return original(self, server_round, arrays, config, grid)

    monkeypatch.setattr(Public, "configure_train", configure)
    launch_in(tmp_path, *CONTROL, "strategy.public.use=init", "rounds=1")
    assert sent[0].keys() == weights(only).keys()
    assert all(np.array_equal(sent[0][name], value) for name, value in weights(only).items())


def test_a_pretrained_start_is_ahead_in_the_first_round(tmp_path):
    plain = launch_in(tmp_path, *FIXED, "rounds=1")
    init = launch_in(tmp_path, *CONTROL, "strategy.public.use=init", "strategy.public.epochs=20", "rounds=1")
    assert lines(init)[0]["test/macro_recall"] > lines(plain)[0]["test/macro_recall"] + 0.1


@pytest.mark.parametrize("use", ["head", "ccvr"])
def test_a_retrained_head_leaves_everything_below_it(tmp_path, use):
    plain = launch_in(tmp_path, *FIXED, "calibration=la_post")
    after = launch_in(tmp_path, *CONTROL, f"strategy.public.use={use}", "calibration=la_post")
    before, found = weights(plain), weights(after)
    changed = {name for name in before if not np.array_equal(before[name], found[name])}
    assert changed == {"head.weight", "head.bias"}
    assert len(set(after.prior_counts.tolist())) == 1  # the head saw every class equally often


@pytest.mark.parametrize(("use", "prior"), [("share", 4 * 5), ("client", 5)])
def test_rows_trained_on_by_clients_or_beside_them_count_in_the_prior(tmp_path, use, prior):
    plain = launch_in(tmp_path, *FIXED, "rounds=1", "calibration=la_post")
    found = launch_in(tmp_path, *CONTROL, f"strategy.public.use={use}", "rounds=1", "calibration=la_post")
    assert (found.prior_counts - plain.prior_counts).tolist() == [prior] * 10
    assert weights_sha(found) != weights_sha(plain)


def test_shared_rows_take_their_share_of_equal_steps_or_bring_their_own(tmp_path):
    equal, native = (
        launch_in(tmp_path, *CONTROL, "strategy.public.use=share", "rounds=1", f"strategy.public.steps={how}")
        for how in ("equal", "native")
    )
    plain = launch_in(tmp_path, *FIXED, "rounds=1")
    assert lines(equal)[0]["train/steps"] == lines(plain)[0]["train/steps"]
    assert lines(native)[0]["train/steps"] > lines(plain)[0]["train/steps"]


class Trains:
    """Stands for the server: four rows, and a training that returns start + 10 and notes what it was asked."""

    def __init__(self):
        self.asked = []

    def public(self):
        return SimpleNamespace(x=None, y=[0, 1, 2, 3])

    def model(self, start):
        return start

    def train(self, start, x, y, epochs, purpose):
        self.asked.append((epochs, purpose))
        return {name: value + 10 for name, value in start.items()}


@pytest.mark.parametrize(("weight", "expected"), [(None, (12 * 1 + 4 * 10) / 16), (0.0, 1.0), (36.0, 7.75)])
def test_the_servers_update_is_averaged_in_as_one_more_client_s(weight, expected):
    method = Public(FedAvg(), use="client", local_epochs=3, weight=weight)
    method._server = server = Trains()
    order = Message(RecordDict({"arrays": array_record({"w": np.zeros(2, np.float32)})}), 1, "train")
    method._sent = order
    metrics = MetricRecord({"num-examples": 12.0, "train_loss": 2.0})
    reply = Message(
        RecordDict({"arrays": array_record({"w": np.ones(2, np.float32)}), "metrics": metrics}), reply_to=order
    )
    merged, _ = method.aggregate_train(7, [reply])
    assert to_numpy(merged)["w"] == pytest.approx(expected)
    assert server.asked == [(3, 7)]


def test_the_servers_update_starts_from_the_weights_sent():
    sent = {}

    class Keeps(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            return [Message(RecordDict({"arrays": arrays}), 1, "train")]

    method = Public(Keeps(), use="client")
    method.configure_train(1, ArrayRecord([np.full(2, 3.0)]), ConfigRecord(), None)
    sent = to_numpy(method._sent.content.array_records["arrays"])
    assert next(iter(sent.values())).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("use", "at"),
    [("client", "_own"), ("head", "_with_head"), pytest.param("ccvr", "_with_head", marks=pytest.mark.slow)],
)
def test_stopped_on_the_way_a_control_ends_the_same(tmp_path, monkeypatch, use, at):
    words = (*CONTROL, f"strategy.public.use={use}", "rounds=2")
    whole = launch_in(tmp_path / "a", *words)
    original, calls = getattr(Public, at), []

    def stops(self, *args):
        calls.append(args)
        if len(calls) == (2 if use == "client" else 1):
            raise RunFailed("stopped")
        return original(self, *args)

    monkeypatch.setattr(Public, at, stops)
    with pytest.raises(RunFailed, match="stopped"):
        launch_in(tmp_path / "b", *words)
    (folder,) = (tmp_path / "b" / "runs" / "default").iterdir()
    assert weights_sha(resume(folder)) == weights_sha(whole)


def test_killed_right_after_the_new_head_is_scored_no_round_is_counted_twice():
    """The step writes a checkpoint with its scores, and another when it is done: a kill may come between the two."""
    settings = {"epochs": 1, "use": "head", "head_epochs": 1}
    with small_tables() as place:
        config = configured(place, ["data.public=3", "rounds=2"], {"strategy": ("public", settings)})
        whole, (again, _) = run(config, place / "whole"), run_killed(config, place / "killed")
        assert weights_sha(again) == weights_sha(whole)
        assert [line["step"] for line in RunFolder(again.folder).metrics()] == [1, 2, 3]


@pytest.mark.parametrize("use", ["only", "init", "client", "share", "head"])
def test_without_rows_at_the_server_the_setting_is_named_before_a_run_folder_exists(tmp_path, use):
    with pytest.raises(ConfigError, match=r"set data\.public"):
        launch_in(tmp_path, "engine=inline", "strategy=public", f"strategy.public.use={use}", "rounds=1")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("use", ["head", "ccvr"])
def test_a_model_whose_head_cannot_be_retrained_is_refused_before_a_run_folder_exists(tmp_path, use):
    words = (*FIXED, "strategy=public", f"strategy.public.use={use}", "model=resnet8", "model.norm=batch")
    with pytest.raises(ConfigError, match="norm=group"):
        launch_in(tmp_path, *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"use": "only", "inner": Plain(FedAvg())}, "another method has no effect"),
        ({"use": "client", "inner": Scaffold(4)}, "only clients send"),
        ({"epochs": 0}, "epochs"),
        ({"weight": -1.0}, "weight"),
        ({"head_lr": 0.0}, "head_lr"),
    ],
)
def test_what_cannot_be_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        Public(**({"inner": FedAvg()} | words))
