"""The dry run against the run it predicts: steps exact, bytes and minutes within a factor of two."""

import json
import time

import pytest
from small_runs import config, launch_in

from fedimb.config.parts import build_model
from fedimb.errors import ConfigError
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.assemble import payload_of
from fedimb.serverapp.estimate import estimate

ROWS = [
    ("calibration=[none,la_post,tau]",),
    ("aggregator=fedprox", "calibration=[none,la_post,tau]"),
    ("loss=balanced_softmax",),
]


def compare(tmp_path, *overrides):
    """Three tries for the minutes, because whatever else the machine does in one of them is in the measurement."""
    ratios = []
    for _ in range(3):
        guess = estimate(config(*overrides))
        started = time.perf_counter()
        result = launch_in(tmp_path, *overrides)
        minutes = (time.perf_counter() - started) / 60
        lines = RunFolder(result.folder).metrics()
        first = [line["metrics"] for line in lines if line["row"] == lines[0]["row"]]
        assert guess.steps == sum(line["train/steps"] for line in first)
        assert guess.messages == sum(line["data/participants"] for line in first)
        assert guess.up_bytes == pytest.approx(result.up_bytes, rel=0.02)
        assert guess.down_bytes == pytest.approx(result.down_bytes, rel=0.02)
        ratios.append(guess.minutes / minutes)
        print(f"estimated / measured minutes: {ratios[-1]:.2f}")
        if 0.5 < ratios[-1] < 2:
            return
    pytest.fail(f"estimated minutes are off by more than two: ratios {ratios}")


@pytest.mark.alone
@pytest.mark.parametrize("row", ROWS)
def test_the_demos_rows_inline(row, tmp_path):
    compare(tmp_path, "engine=inline", "rounds=20", "local.epochs=5", "clients.count=10", "data.n_max=110", *row)


@pytest.mark.alone
def test_partial_participation(tmp_path):
    compare(tmp_path, "engine=inline", "rounds=20", "local.epochs=5", "clients.count=10", "clients.participation=0.4")


@pytest.mark.alone
@pytest.mark.slow
def test_the_demos_rows_on_ray(tmp_path):
    for row in ROWS:
        compare(tmp_path, "engine=ray", "rounds=40", "local.epochs=5", "clients.count=10", "data.n_max=110", *row)


def test_the_estimate_runs_nothing_in_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = estimate(config("engine=inline")).table()
    assert json.dumps(text)
    assert "minutes" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("strategy=scope",), ("strategy=fairfal",), ("strategy=[coreset,scope]",)])
def test_a_method_is_probed_in_as_few_rounds_as_its_program_takes(words):
    shown = estimate(config("engine=inline", "rounds=40", "partition=iid", *words)).table()
    assert shown.startswith("rounds              40")


def test_what_the_run_would_refuse_the_estimate_refuses():
    with pytest.raises(ConfigError, match="does not divide rounds=41"):
        estimate(config("engine=inline", "rounds=41", "strategy=fairfal"))


def test_warnings_are_said_once_and_the_probe_is_never_suspect(caplog):
    estimate(config("clients.count=900", "rounds=1", "engine=inline"))
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "suspect" in line] == []
    assert len([line for line in said if "hold none and never train" in line]) == 1


def test_the_clock_counts_no_byte_of_what_stays_at_the_clients():
    """A perceptron of 64 -> 48 -> 10: its head of 48 x 10 weights and 10 biases, 4 bytes each, is private or not."""
    own = config("data=digits", "model=mlp", "clients.private=[head]")
    model = build_model(own, 10, (64,))
    assert payload_of(own, model) == 4 * (64 * 48 + 48)
    assert payload_of(config("data=digits", "model=mlp"), model) == 4 * (64 * 48 + 48 + 48 * 10 + 10)
