"""Recordings cut into windows: WAV, EDF and WFDB files written here, read as views, labelled by events."""

import contextlib
import wave

import numpy as np
import pytest

from fedimb.data.prepare import prepare
from fedimb.data.sources import recordings
from fedimb.data.sources.recording_files import open_recording
from fedimb.data.sources.recordings import RECORDINGS, Recordings
from fedimb.data.store import open_source
from fedimb.data.windows import SignalFacts, Windows
from fedimb.errors import ConfigError, DataError, FedimbError

RATE = 100
TONE = np.round(20_000 * np.sin(np.arange(1000) * 0.1)).astype(np.int64)
STEREO = np.stack([TONE, -TONE // 2])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))


def wav(path, channels=STEREO, width=2, rate=RATE):
    """PCM of ``width`` bytes, from 16-bit values."""
    frames = channels.T.astype(np.int64) << 8 * max(0, width - 2)
    if width == 1:
        raw = ((frames >> 8) + 128).astype(np.uint8).tobytes()
    else:
        raw = b"".join(int(value).to_bytes(width, "little", signed=True) for value in frames.ravel())
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)


@pytest.fixture
def listed(tmp_path):
    def listed(*lines, head="file,label", events=(), **args):
        (tmp_path / "list.csv").write_text("\n".join([head, *lines]) + "\n")
        if events:
            (tmp_path / "events.csv").write_text("\n".join(["file,start_s,stop_s,label", *events]) + "\n")
            args["events"] = str(tmp_path / "events.csv")
        return Recordings(str(tmp_path / "list.csv"), **{"window_s": 1.0} | args)

    for name in "ab":
        wav(tmp_path / f"{name}.wav")
    return listed


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_of_any_width_is_between_minus_1_and_1(tmp_path, listed, width):
    wav(tmp_path / "a.wav", width=width)
    data = listed("a.wav,x").load()
    assert isinstance(data.x, Windows)
    assert data.signal == SignalFacts(100.0, ("channel_1", "channel_2"), 100)
    whole = np.concatenate(list(data.x[:]), axis=1)
    assert np.allclose(whole, STEREO / 2**15, atol=1 / 128 if width == 1 else 0)
    assert data.x.recording.nbytes == 2 * 1000 * 4  # not one sample twice
    assert data.origins.tolist() == list(range(0, 1000, 100))


def test_windows_overlap_by_hop_and_stay_with_their_recording(listed):
    source = listed("a.wav,x", "b.wav,y", hop_s=0.25)
    data = source.load()
    assert data.x.shape == (2 * 37, 2, 100)
    assert data.x.recording.shape == (2, 2000)
    assert data.recordings.tolist() == [0] * 37 + [1] * 37
    assert data.units == RECORDINGS
    assert data.patients.tolist() == data.recordings.tolist()
    assert np.array_equal(data.x[37 + 3], (STEREO[:, 75:175] / 2**15).astype(np.float32))
    store = open_source({"name": "recordings", "path": source.path, "window_s": 1.0, "hop_s": 0.25})
    assert isinstance(store.x.recording, np.memmap)
    assert np.array_equal(store.x[:], data.x[:])


def test_events_name_the_windows_they_cover_most(listed):
    events = ["a.wav,1.2,2.9,seizure", "a.wav,2.5,3.4,seizure", "a.wav,5.4,5.6,artefact", "a.wav,6,6.5,artefact"]
    data = listed("a.wav", head="file", events=events).load()
    assert data.class_names == ("background", "artefact", "seizure")
    #      0..1: 0, 1..2: .8 seizure, 2..3: 1, 3..4: .4, 5..6: .2 artefact, 6..7: .5 artefact
    assert data.y.tolist() == [0, 2, 2, 0, 0, 0, 1, 0, 0, 0]
    data = listed("a.wav", head="file", events=events, partial="drop").load()
    assert data.origins.tolist() == [0, 100, 200, 400, 600, 700, 800, 900]
    assert listed("a.wav", head="file", events=events, coverage=0.1).load().y.tolist() == [0, 2, 2, 2, 0, 1, 1, 0, 0, 0]


def test_patients_sites_and_test_rows_are_those_of_the_list(listed):
    data = listed("a.wav,x,p1,north,1", "b.wav,y,p1,north,1", head="file,label,patient,site,test").load()
    assert (data.units, data.patients.tolist()) == ("patients", [0] * 20)
    assert (data.site_names, data.official_test.all()) == (("north",), True)


def test_a_recording_is_never_on_two_sides(tmp_path, listed):
    names = [f"r{i}" for i in range(8)]
    for name in names:
        wav(tmp_path / f"{name}.wav")
    path = listed(*(f"{name}.wav,{'xy'[i % 2]}" for i, name in enumerate(names))).path
    data = {
        "source": {"name": "recordings", "path": path, "window_s": 1.0, "hop_s": 0.5},
        "test": {"name": "stratified", "fraction": 0.3},
    }
    federation = prepare(data, {"name": "iid"}, 2, 0)
    sides = [set(federation.store.recordings[rows].tolist()) for rows in (federation.test, *federation.train)]
    assert sum(map(len, sides)) == 8
    with pytest.raises(DataError, match=r"no patients \(recordings are kept together\)"):
        prepare(data | {"test": {"name": "by_patient", "fraction": 0.3}}, {"name": "iid"}, 2, 0)


def test_recordings_of_two_rates_are_used_at_one(tmp_path, listed):
    wav(tmp_path / "b.wav", np.repeat(STEREO, 2, axis=1), rate=200)
    with pytest.raises(DataError, match=r"b\.wav has 200 Hz, a\.wav 100 Hz: give the rate"):
        listed("a.wav,x", "b.wav,y").load()
    data = listed("a.wav,x", "b.wav,y", resample_hz=50.0).load()
    assert (data.x.shape, data.signal.rate_hz) == ((20, 2, 50), 50.0)


def test_recordings_in_different_units_are_not_one_signal(tmp_path, listed, monkeypatch):
    @contextlib.contextmanager
    def opened(path):
        with open_recording(path) as file:
            file.units = ("", units[path.stem])
            yield file

    monkeypatch.setattr(recordings, "open_recording", opened)
    units = {"a": "uV", "b": "mV"}
    with pytest.raises(DataError, match=r"a\.wav and b\.wav have channel 'channel_2' in uV and mV"):
        listed("a.wav,x", "b.wav,y").load()
    for same in ("\N{MICRO SIGN}V", "UV", ""):
        units["b"] = same
        assert len(listed("a.wav,x", "b.wav,y").load().y) == 20


def test_pictures_of_windows(listed):
    data = listed("a.wav,x", transform={"name": "stft", "window": 32}).load()
    assert data.x.shape == (10, 2, 17, 5)
    assert data.scaled.shape == (2, 1, 1)
    assert data.signal.length == 100


@pytest.mark.parametrize(
    ("lines", "args", "reason"),
    [
        (["c.wav,x"], {}, r"row 2: no file 'c\.wav'"),
        (["a.wav,x", "a.wav,x"], {}, "lists a file twice"),
        (["a.wav,"], {}, "column 'label' is empty"),
        (["a.wav"], {}, "more or fewer cells"),
        ([], {}, "lists nothing"),
        (["a.wav,x"], {"head": "file,lable"}, "'lable' is not known.*Did you mean 'label'"),
        (["a.wav"], {"head": "file"}, r"give it, or data\.source\.events"),
        (["a.wav,x"], {"events": ["a.wav,1,2,e"]}, "leave one of them out"),
        (["a.wav"], {"head": "file", "events": ["b.wav,1,2,e"]}, "is not in"),
        (["a.wav"], {"head": "file", "events": ["a.wav,2,1,e"]}, "a start before its end"),
        (["a.wav"], {"head": "file", "events": ["a.wav,9,10.5,e"]}, r"ends at 10\.5 s, the file at 10 s"),
        (["a.wav"], {"head": "file", "events": ["a.wav,1,2,background"]}, "the background's"),
        (["a.wav,x"], {"window_s": 0.005}, r"0\.5 samples at 100 Hz"),
        (["a.wav,x"], {"window_s": 11.0}, r"shorter than a window \(10 s of 11\)"),
        (["a.wav,x"], {"channels": ["left"]}, "has no channel 'left'; it has channel_1, channel_2"),
        (["a.wav,x"], {"classes": ["y"]}, "label 'x' is not in"),
        (["list.csv,x"], {}, "recordings are read from .wav, .edf, .bdf, .hea"),
        (["a.wav,x,2"], {"head": "file,label,test"}, "test is '2'; give 1 or 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(listed, lines, args, reason):
    with pytest.raises(FedimbError, match=reason) as caught:
        listed(*lines, **args).load()
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path, listed):
    (tmp_path / "b.wav").write_bytes((tmp_path / "b.wav").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"b\.wav ends after sample \d+ of 1000"):
        listed("b.wav,x").load()
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"b\.wav cannot be read as \.wav"):
        listed("b.wav,x").load()


@pytest.mark.parametrize(("suffix", "package"), [(".edf", "pyEDFlib"), (".hea", "wfdb")])
def test_a_library_that_is_not_installed_is_named(tmp_path, listed, suffix, package, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package.lower(), None)
    (tmp_path / f"c{suffix}").write_bytes(b"")
    with pytest.raises(ConfigError, match=rf"needs {package}: pip install 'fedimb\[signals\]'"):
        listed(f"c{suffix},x").load()


def test_edf_in_physical_units(tmp_path, listed):
    pyedflib = pytest.importorskip("pyedflib")
    made = np.random.default_rng(0).normal(0, 50, size=(3, 1000))
    head = {
        "dimension": "uV",
        "physical_max": 300.0,
        "physical_min": -300.0,
        "digital_max": 32767,
        "digital_min": -32768,
    }
    with pyedflib.EdfWriter(str(tmp_path / "c.edf"), 3) as file:
        labels = zip(("Fp1", "Fp2", "ECG"), (100, 100, 50), strict=True)
        file.setSignalHeaders([head | {"label": name, "sample_frequency": rate} for name, rate in labels])
        file.writeSamples([made[0], made[1], made[2, :500]])
    with pytest.raises(DataError, match="channels have different rates"):
        listed("c.edf,x").load()
    data = listed("c.edf,x", channels=["Fp2", "Fp1"]).load()
    assert data.signal == SignalFacts(100.0, ("Fp2", "Fp1"), 100)
    whole = np.concatenate(list(data.x[:]), axis=1)
    assert np.abs(whole - made[[1, 0]]).max() < 600 / 65535


def test_wfdb_in_physical_units_and_missing_samples_are_bad_windows(tmp_path, listed):
    wfdb = pytest.importorskip("wfdb")
    made = np.random.default_rng(0).normal(size=(1000, 2))
    made[250, 1] = np.nan
    wfdb.wrsamp("r", 100, ["mV", "mV"], ["I", "II"], p_signal=made, fmt=["16", "16"], write_dir=str(tmp_path))
    with pytest.raises(DataError, match=r"1 bad row: r\.hea at 2 s: missing or infinite samples"):
        listed("r.hea,x").load()
    data = listed("r.hea,x", on_bad="skip").load()
    assert data.origins.tolist() == [0, 100, *range(300, 1000, 100)]
    assert data.signal.channels == ("I", "II")
    assert np.allclose(data.x[2], made[300:400].T, atol=1e-3)
    assert sorted(file.name for file in listed("r.hea,x").files()) == ["r.dat", "r.hea"]
