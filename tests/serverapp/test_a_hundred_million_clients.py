"""A hundred million virtual clients cost what ten thousand cost: memory and a round's time go with the cohort."""

import os
import sys

import pytest

WORDS = (
    "data=synthetic_table", "data.source.rows=20100", "data.source.features=8", "data.source.classes=5",
    "data.test={name: balanced, per_class: 20}", "data.imbalance_factor=1", "partition=virtual", "partition.spread=0.5",
    "model=mlp", "model.hidden=[16]", "local.epochs=1", "engine=inline", "tracking=none", "evaluation.bootstrap=0",
)  # fmt: skip
ROUNDS = 60


def spent(clients, rounds, folder, availability):
    """Peak memory in MB and processor seconds of the whole command, 50 clients a round."""
    own = (
        f"clients.count={clients}", f"clients.participation={50 / clients:g}", f"clients.availability={availability}",
        f"rounds={rounds}", f"evaluation.every={rounds}", f"checkpoint.every={rounds}", f"output_dir={folder}",
    )  # fmt: skip
    process = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-m", "fedimb", "run", *WORDS, *own])
    _, status, usage = os.wait4(process, 0)
    assert status == 0
    return usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
@pytest.mark.parametrize("availability", [1.0, 0.5])
def test_a_hundred_million_clients_take_the_memory_and_time_of_ten_thousand(tmp_path, monkeypatch, availability):
    """A round's time is processor time, from a long and a short run: neighbours and the start are not in it."""
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    spent(1000, 2, tmp_path, availability)  # makes the store
    found = {}
    for clients in (10_000, 100_000_000):
        (memory, long), (_, short) = (spent(clients, rounds, tmp_path, availability) for rounds in (ROUNDS, 2))
        found[clients] = memory, (long - short) / (ROUNDS - 2)
        print(f"availability {availability}, {clients:,} clients: {memory:.0f} MB, {found[clients][1] * 1000:.0f} ms")
    few, many = found.values()
    assert many[0] - few[0] < 20
    assert many[1] / few[1] < 1.2
