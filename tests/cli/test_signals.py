"""Runs on signals, end to end: recordings with events, pictures of windows, and UCI HAR by its subjects."""

import json
import wave

import numpy as np
import pytest
from small_runs import config, launch_in

import fedimb
from fedimb.data.paths import find_data
from fedimb.errors import DataError
from fedimb.rundir.result import RunResult
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar

RATE = 64


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """Twelve minutes in six files of noise, with bursts of 10 Hz of 8 s each minute: the events."""
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    rng, lines, events = np.random.default_rng(0), ["file,patient,test"], ["file,start_s,stop_s,label"]
    for k in range(6):
        x = rng.normal(0, 2000, size=(120 * RATE, 2))
        for minute in range(2):
            start = 60 * minute + 10 + 4 * k
            burst = slice(start * RATE, (start + 8) * RATE)
            x[burst] += 9000 * np.sin(2 * np.pi * 10 * np.arange(8 * RATE) / RATE)[:, None]
            events.append(f"{k}.wav,{start},{start + 8},burst")
        with wave.open(str(tmp_path / f"{k}.wav"), "wb") as file:
            file.setparams((2, 2, RATE, 0, "NONE", ""))
            file.writeframes(x.astype("<i2").tobytes())
        lines.append(f"{k}.wav,p{k},{int(k > 3)}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "events.csv").write_text("\n".join(events) + "\n")
    return (
        "data=recordings",
        f"data.source.path={tmp_path / 'list.csv'}",
        f"data.source.events={tmp_path / 'events.csv'}",
        "data.source.window_s=2.0",
        "data.source.hop_s=1.0",
        "data.test={name: official}",
        "data.n_max=null",
        "engine=inline",
        "clients.count=2",
        "local.batch_size=16",
        "data.class_order=fixed",
    )


def test_events_are_scored_beside_windows(recordings, tmp_path):
    words = ("model=cnn1d", "model.width=8", "rounds=3", "local.epochs=3", "local.lr=0.05", "partition=iid")
    words += ("local.augmentation=[magnitude_scaling,time_shift]", "calibration=[none]")
    result = launch_in(tmp_path, *recordings, *words)
    scores = result.events[result.rows[0].label]
    assert set(scores) == {"background", "burst"}
    burst = scores["burst"]
    assert burst["events"] == 4
    assert burst["hours"] == pytest.approx(2 * 120 / 3600)
    assert burst["sensitivity"] == burst["detected"] / 4 == 1  # 10 Hz at four times the noise: anyone sees that
    assert burst["false_alarms_per_hour"] == pytest.approx(burst["false_alarms"] / burst["hours"])
    assert "events of burst: 4 of 4 found" in result.summary()
    assert RunResult.read(result.folder).events == result.events
    assert json.loads((result.folder / "artifacts" / "events.json").read_text()) == result.events
    model = fedimb.load_model(result.folder)
    assert model.origin.inputs.signal.rate_hz == RATE
    np.savez(tmp_path / "fast.npz", x=np.zeros((3, 2, 128), np.float32), rate_hz=128.0)
    with pytest.raises(DataError, match="the run was trained on 64 Hz: give resample_hz=64"):
        model.predict({"name": "signals_npz", "path": str(tmp_path / "fast.npz")})


@pytest.mark.slow
@pytest.mark.parametrize("transform", ["{name: stft, window: 32, hop: 8}", "{name: logmel, window: 32, bands: 8}"])
def test_an_image_model_reads_pictures_of_windows(recordings, tmp_path, transform):
    words = (f"data.source.transform={transform}", "model=cnn4conv", "model.width=8", "local.epochs=3", "local.lr=0.05")
    result = launch_in(tmp_path, *recordings, *words, "local.augmentation=[cutout]")
    assert result.events[result.rows[0].label]["burst"]["sensitivity"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["{name: flow, widths: [16, 32]}", "{name: ddpm, widths: [16, 32]}"])
def test_a_generator_learns_pictures_of_windows(recordings, tmp_path, generator):
    words = ("data.source.transform={name: stft, window: 32, hop: 8}", "model=cnn4conv", "model.width=8")
    own = ("training={steps: 4}", "pretrain=1", "force=true", f"generator={generator}")
    result = launch_in(
        tmp_path, *recordings, *words, "data.public=20", "strategy=fedssg", *(f"strategy.fedssg.{w}" for w in own)
    )
    assert np.isfinite(result.rows[0].final["macro_recall"])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cnn1d", "lstm", "cnn_lstm", "cnn_transformer", "mlp"])
def test_uci_har_by_its_subjects(tmp_path, model):
    try:
        find_data("signals/uci_har.npz")
    except DataError as error:
        pytest.skip(str(error))
    width = "model.hidden=[32]" if model == "mlp" else "model.width=16"
    words = ("data=uci_har", f"model={model}", width, "data.n_max=300", "data.imbalance_factor=20", "rounds=2")
    rate = "data.source.resample_hz=25"
    people = ("partition=by_column", "partition.column=patient", "clients.count=21")
    run = config(*words, rate, *people, "engine=inline", f"output_dir={tmp_path}/runs")
    result = launch(run, None, ProgressBar(run.rounds, enabled=False))
    assert result.rows[0].confusion.sum() == 2947  # windows of the nine people that nobody trains on
    assert result.train_counts.max() == 300
    assert result.train_counts.min() == 15
    assert result.events == {}  # the order of its windows is lost
