"""A recording cut into windows that overlap takes little more memory than the recording itself."""

import subprocess
import sys
import tracemalloc
import wave

import numpy as np
import pytest

from fedimb.data import arrays, duplicates, scaling
from fedimb.data.findings import rows as findings
from fedimb.data.sources import recording_files
from fedimb.data.sources.recordings import Recordings
from fedimb.data.store import Store

CHANNELS, RATE = 23, 256
MOST = 1.2  # times the recording as float32


def write(folder, seconds):
    """A list of one WAV file of noise, and the bytes that its samples take as float32."""
    minute = np.random.default_rng(0).integers(-9999, 9999, size=(60 * RATE, CHANNELS), dtype=np.int16)
    with wave.open(str(folder / "r.wav"), "wb") as file:
        file.setparams((CHANNELS, 2, RATE, 0, "NONE", ""))
        for k in range(seconds // 60):
            file.writeframesraw(np.roll(minute, 7 * k, axis=0) + np.int16(k % 100))
    (folder / "list.csv").write_text("file,label\nr.wav,x\n")
    return 4 * CHANNELS * RATE * seconds


def test_reading_and_storing_windows_copies_no_recording(tmp_path, monkeypatch):
    size = write(tmp_path, 600)
    for module, name in ((arrays, "_CHUNK"), (duplicates, "_CHUNK_BYTES"), (findings, "_CHUNK_BYTES")):
        monkeypatch.setattr(module, name, 1 << 16)  # as much less than at full size
    monkeypatch.setattr(recording_files, "_CHUNK_VALUES", 1 << 14)
    monkeypatch.setattr(scaling, "_CHUNK_VALUES", 1 << 14)
    source = Recordings(str(tmp_path / "list.csv"), window_s=4.0, hop_s=1.0)
    tracemalloc.start()
    try:
        data = source.load()
        Store.build(data, tmp_path / "store", "f")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data.x.nbytes > 3.9 * size
    assert size < peak < MOST * size


FULL = """
import resource, sys
from fedimb.data.prepare import prepare
import scipy.signal, sklearn.neighbors, torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = {"source": {"name": "recordings", "path": sys.argv[1], "window_s": 4.0, "hop_s": 2.0}, "test": {"name": "none"},
        "validation": 0.0, "minority": [0]}
federation = prepare(data, {"name": "iid"}, 1, 0)
assert len(federation.store) == 43199, len(federation.store)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.slow
@pytest.mark.alone
def test_a_day_of_23_channels_takes_less_than_a_fifth_more_than_its_samples(tmp_path, monkeypatch):
    size = write(tmp_path, 24 * 3600)
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    command = [sys.executable, "-c", FULL, str(tmp_path / "list.csv")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=True)
    ratio = int(told.stdout.split()[-1]) / size
    assert 0.5 < ratio < MOST
