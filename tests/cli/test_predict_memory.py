"""A million rows are predicted in less than 500 MB: the whole command, torch included."""

import subprocess
import sys

import numpy as np
import pytest
from small_runs import launch_in

ROWS = 1_000_000
MOST = 500  # MB


MEASURE = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "fedimb", *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6)
"""


def peak(*words):
    """Peak resident memory of a command in MB.

    Measured by a small process in between: Linux counts a parent's memory at the time of the fork as its child's.
    """
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, words)], check=True, stdout=subprocess.PIPE)
    return float(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two minutes on two free cores
def test_a_table_of_a_million_patients(tmp_path):
    rng = np.random.default_rng(0)
    features = [f"f{i}" for i in range(10)]

    def write(path, blocks, labelled):
        with open(path, "w") as file:
            file.write(",".join(["id", *features, "stage", *(["diag"] if labelled else [])]) + "\n")
            for block in range(blocks):
                for i, row in enumerate(rng.normal(50, 9, (1000, 10)).round(2)):
                    end = f",{'ill' if row[0] > 58 else 'well'}" if labelled else ""
                    file.write(f"P{block * 1000 + i},{','.join(map(str, row))},{'I' * (1 + i % 3)}{end}\n")
        return path

    train = write(tmp_path / "train.csv", 1, True)
    source = f"data.source={{name: tabular_csv, files: ['{train}'], target: diag, drop: [id], categorical: [stage]}}"
    run = launch_in(tmp_path, "data=tabular_csv", source, "engine=inline", "model=logistic")
    new = write(tmp_path / "new.csv", ROWS // 1000, False)
    for suffix in ("csv", "parquet"):
        out = tmp_path / f"out.{suffix}"
        used = peak("predict", run.folder, new, "--id", "id", "--out", out)
        print(f"{ROWS:,} rows of a table to {suffix}: {used:.0f} MB")
        assert used < MOST
    with open(tmp_path / "out.csv") as file:
        assert sum(1 for _ in file) == ROWS + 1


@pytest.mark.slow
def test_an_npz_larger_than_the_limit(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random((2000, 1, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "train.npz", x=x, y=np.arange(2000) % 3)
    source = f"data.source={{name: npz, path: '{tmp_path}/train.npz'}}"
    run = launch_in(tmp_path, "data=npz", source, "data.test={name: stratified, fraction: 0.2}", "engine=inline")
    np.savez(tmp_path / "new.npz", x=np.tile(x, (ROWS // 2000, 1, 1, 1)))  # 1 GB
    used = peak("predict", run.folder, tmp_path / "new.npz", "--out", tmp_path / "out.json")
    print(f"{ROWS:,} pictures: {used:.0f} MB")
    assert used < MOST
