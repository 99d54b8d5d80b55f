"""Windows of signals: read whole, scaled by channel from training rows alone, and never parted from their patient."""

import json
from itertools import combinations

import numpy as np
import pytest

from fedimb.data.arrays import PATIENTS
from fedimb.data.federation import Federation
from fedimb.data.inputs import InputCheck, Inputs
from fedimb.data.new_rows import Expected, open_new_rows
from fedimb.data.prepare import prepare
from fedimb.data.sources.npz import Npz
from fedimb.data.sources.signals_npz import OVERLAPPING, SignalsNpz
from fedimb.data.windows import SignalFacts
from fedimb.errors import ConfigError, DataError, FedimbError

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, size=(60, 2, 16)).astype(np.float32)
Y = np.arange(60) % 3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path):
    def write(name="s.npz", **arrays):
        np.savez(tmp_path / name, **{"x": X, "y": Y} | arrays)
        return str(tmp_path / name)

    return write


def cut(path, test, partition="iid", clients=3, seed=0, **source):
    data = {"source": {"name": "signals_npz", "path": path, **source}, "test": test}
    return prepare(data, partition if isinstance(partition, dict) else {"name": partition}, clients, seed)


def test_rows_are_read_with_all_that_is_said_of_them(write):
    given = {"patients": Y.astype(str), "channels": ["ecg", "ppg"], "rate_hz": np.float32(50), "test": Y == 2}
    data = SignalsNpz(write(class_names=["a", "b", "c"], **given)).load()
    assert np.array_equal(data.x, X)
    assert data.signal == SignalFacts(50.0, ("ecg", "ppg"), 16)
    assert (data.scaled.tolist(), data.scale, data.units) == ([[True], [True]], 1.0, PATIENTS)
    assert (len(set(data.patients.tolist())), data.official_test.sum(), data.class_names) == (3, 20, ("a", "b", "c"))


@pytest.mark.parametrize("clients", [1, 4])
def test_a_channel_is_scaled_by_all_clients_training_windows_and_no_others(write, clients):
    loud = X.copy()
    loud[Y == 2] *= 1000  # the test set: it must not count
    federation = cut(write(x=loud, test=Y == 2), {"name": "official"}, clients=clients)
    rows = np.sort(np.concatenate(list(federation.train)))
    assert rows.tolist() == np.flatnonzero(Y < 2).tolist()
    assert np.allclose(federation.scaling.mean[:, 0], X[rows].mean((0, 2), np.float64), rtol=1e-6)
    assert np.allclose(federation.scaling.deviation[:, 0], X[rows].astype(np.float64).std((0, 2)), rtol=1e-6)
    seen = np.concatenate([federation.client(k).tensors("train")[0].numpy() for k in range(clients)])
    assert seen.shape == (40, 2, 16)
    assert np.allclose(seen.mean((0, 2)), 0, atol=1e-5)
    assert np.allclose(seen.std((0, 2)), 1, atol=1e-5)


def test_a_saved_federation_scales_alike(write, tmp_path):
    federation = cut(write(), {"name": "stratified", "fraction": 0.2})
    federation.save(tmp_path / "f")
    again = Federation.load(tmp_path / "f")
    assert again.scaling.mean.shape == (2, 1)
    assert np.array_equal(again.client(1).tensors("train")[0], federation.client(1).tensors("train")[0])


def test_a_patient_is_never_on_two_sides(write):
    patients = np.arange(60) // 5
    federation = cut(write(patients=patients), {"name": "by_patient", "fraction": 0.3})
    sides = [set(patients[rows].tolist()) for rows in (federation.test, *federation.train)]
    assert sum(map(len, sides)) == 12
    assert set.union(*sides) == set(range(12))
    with pytest.raises(DataError, match="shares 12 patients with the training rows"):
        cut(write(patients=patients, test=Y == 2), {"name": "official"})


@pytest.mark.parametrize("seed", range(4))
def test_windows_that_share_samples_are_never_parted(write, seed):
    recordings = np.repeat([0, 1], 30)
    origins = np.tile(np.arange(30) // 3 * 60 + np.arange(30) % 3 * 8, 2)  # threes that overlap by half, then a gap
    path = write(origins=origins, recordings=recordings)
    federation = cut(path, {"name": "stratified", "fraction": 0.3}, seed=seed)
    store = federation.store
    assert (store.units, len(set(store.patients.tolist()))) == (OVERLAPPING, 20)
    for one, other in combinations([federation.test, *federation.train], 2):
        same = recordings[one][:, None] == recordings[other]
        assert not (same & (np.abs(origins[one][:, None] - origins[other]) < 16)).any()
    with pytest.raises(DataError, match=rf"no patients \({OVERLAPPING} are kept together\)"):
        cut(path, {"name": "by_patient", "fraction": 0.3})
    with pytest.raises(DataError, match=r"partition\.column=patient: the source names no patients"):
        cut(path, {"name": "stratified", "fraction": 0.3}, {"name": "by_column", "column": "patient"}, 20)
    with pytest.raises(DataError, match=f"shares 20 {OVERLAPPING}"):
        cut(write(origins=origins, recordings=recordings, test=Y == 2), {"name": "official"})


def test_windows_that_only_touch_are_free(write):
    data = SignalsNpz(write(origins=16 * np.arange(60))).load()
    assert data.patients is None
    assert data.origins.tolist() == (16 * np.arange(60)).tolist()


def test_groups_are_those_of_the_samples_in_the_file_also_at_another_rate(write):
    path = write(origins=16 * np.arange(60), rate_hz=48.0)
    data = SignalsNpz(path, resample_hz=9.0).load()  # 3 samples of each 16: rounded up they would touch
    assert data.patients is None
    assert data.x.shape == (60, 2, 3)
    assert data.origins.tolist() == (3 * np.arange(60)).tolist()


@pytest.mark.parametrize(
    ("args", "arrays", "reason"),
    [
        ({}, {"x": X[:, 0]}, r"give float32 \[n, channels, length\]"),
        ({}, {"x": X.astype(np.int16)}, "is int16"),
        ({}, {"channels": ["a"]}, "names 1 channels"),
        ({}, {"rate_hz": [1.0, 2.0]}, "give one number"),
        ({}, {"rate_hz": 0.0}, "a sampling rate of 0 Hz"),
        ({"rate_hz": 40.0}, {"rate_hz": 50.0}, r"says 50 Hz, data\.source\.rate_hz=40"),
        ({"resample_hz": 10.0}, {}, r"give data\.source\.rate_hz too"),
        ({}, {"patient": Y}, "Did you mean 'patients'"),
        ({}, {"origin": Y}, "Did you mean 'origins'"),
        ({}, {"recordings": Y}, "has recordings and no origins"),
        ({}, {"origins": Y - 1}, "whole numbers of samples from 0"),
        ({}, {"origins": Y, "recordings": Y, "patients": np.arange(60)}, "a recording has windows of two patients"),
        ({"zscore": "robust"}, {}, "zscore"),
        ({"transform": {"name": "fft"}}, {}, "give {name: stft} or {name: logmel}"),
        ({"transform": {"name": "stft", "bands": 4}}, {}, "transform stft has no setting 'bands'"),
        ({"transform": {"name": "stft", "window": 64}}, {}, "longer than the 16 samples"),
        ({"transform": {"name": "logmel", "window": 8}}, {}, "needs the sampling rate"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(write, args, arrays, reason):
    from fedimb import registry

    path = write(**arrays)
    with pytest.raises(FedimbError, match=reason) as caught:
        registry.build("source", "signals_npz", {"on_bad": "refuse"}, path=path, **args).load()
    assert "\n" not in str(caught.value)


def test_npz_reads_no_signal_as_a_picture(write):
    for path in (write(), write("r.npz", x=X[:, :, :4], rate_hz=50.0)):
        with pytest.raises(DataError, match="use source signals_npz"):
            Npz(path).load()
    assert Npz(write("p.npz", x=X[:, :, :4])).load().x.shape == (60, 1, 2, 4)
    assert Npz(write("q.npz", x=X[:, None])).load().x.shape == (60, 1, 2, 16)


def new_rows(path, wanted, **args):
    expected = Expected(Inputs((2, 16), "float32", signal=wanted), ("0", "1", "2"), "multiclass")
    batches, _, problems = open_new_rows({"name": "signals_npz", "path": path, **args}, expected)
    return list(batches), expected.notes, problems


def test_new_rows_of_another_rate_or_other_channels_are_refused(write):
    path = write(rate_hz=50.0, channels=["a", "b"])
    (batch,), notes, _ = new_rows(path, SignalFacts(50.0, ("a", "b"), 16))
    assert np.array_equal(batch.x, X)
    assert (batch.labels.tolist(), notes) == (Y.tolist(), [])
    with pytest.raises(DataError, match=r"has 50 Hz, the run was trained on 100 Hz: give resample_hz=100"):
        new_rows(path, SignalFacts(100.0))
    with pytest.raises(DataError, match="has channels a, b, the run was trained on b, a"):
        new_rows(path, SignalFacts(50.0, ("b", "a")))
    (batch,), notes, _ = new_rows(path, SignalFacts(25.0), resample_hz=25.0)
    assert batch.x.shape == (60, 2, 8)
    assert "only the run's rows say" in new_rows(write("t.npz"), SignalFacts(50.0))[1][0]
    assert "only these say" in new_rows(path, SignalFacts(None))[1][0]


def test_new_rows_in_another_unit_are_told_by_channel(write):
    inputs = Inputs((2, 16), "float32", signal=SignalFacts(50.0, ("ecg", "ppg"), 16))
    assert Inputs.from_facts(json.loads(json.dumps(inputs.facts()))) == inputs
    scaling = cut(write(), {"name": "stratified", "fraction": 0.2}).scaling
    check = InputCheck(inputs, "new", scaling)
    check.add(X)
    assert check.finish() == []
    check = InputCheck(inputs, "new", scaling)
    check.add(np.concatenate([X[:, :1], X[:, 1:] / 1000], axis=1))
    assert [line.split(":")[0][:12] for line in check.finish()] == ["column 'ppg'"]


def test_a_setting_out_of_range_is_refused_before_the_file_is_opened():
    with pytest.raises(ConfigError, match="a sampling rate of -1 Hz"):
        SignalsNpz("nowhere.npz", resample_hz=-1.0)
