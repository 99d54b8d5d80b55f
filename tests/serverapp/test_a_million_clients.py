"""A million registered clients cost little more than a hundred on the same rows."""

import os
import sys

import pytest

ROWS = 3_000_100
WORDS = (
    "data=synthetic_table", f"data.source.rows={ROWS}", "data.source.features=8", "data.source.classes=5",
    "data.test={name: balanced, per_class: 20}", "data.imbalance_factor=1", "partition=iid", "model=mlp",
    "model.hidden=[16]", "rounds=3", "local.epochs=1", "engine=inline", "tracking=none", "evaluation.every=3",
    "checkpoint.every=3", "evaluation.bootstrap=0",
)  # fmt: skip


def spent(clients, folder):
    """(processor seconds, peak memory in MB) of the whole command, 50 clients a round."""
    own = (f"clients.count={clients}", f"clients.participation={50 / clients:g}", f"output_dir={folder}/{clients}")
    process = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-m", "fedimb", "run", *WORDS, *own])
    _, status, usage = os.wait4(process, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


@pytest.mark.slow
@pytest.mark.alone
def test_a_million_clients_take_5_seconds_and_200_mb_more_than_a_hundred(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    spent(100, tmp_path / "first")  # makes the store and the picture of the partition
    few, many = spent(100, tmp_path), spent(1_000_000, tmp_path)
    print(f"100 clients: {few[0]:.1f} s, {few[1]:.0f} MB; a million: {many[0]:.1f} s, {many[1]:.0f} MB")
    assert many[0] - few[0] < 5
    assert many[1] - few[1] < 200
