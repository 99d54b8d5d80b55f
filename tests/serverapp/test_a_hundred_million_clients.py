"""A hundred million virtual clients cost what ten thousand cost: memory and a round's time go with the cohort."""

import json
import os
import sys

import numpy as np
import pytest

WORDS = (
    "data=synthetic_table", "data.source.rows=20100", "data.source.features=8", "data.source.classes=5",
    "data.test={name: balanced, per_class: 20}", "data.imbalance_factor=1", "partition=virtual", "partition.spread=0.5",
    "model=mlp", "model.hidden=[16]", "rounds=60", "local.epochs=1", "engine=inline", "tracking=none",
    "evaluation.every=60", "checkpoint.every=60", "evaluation.bootstrap=0",
)  # fmt: skip


def spent(clients, folder, *words):
    """Peak memory in MB of the whole command, and the lower quartile of its rounds' seconds; 50 clients a round."""
    own = (f"clients.count={clients}", f"clients.participation={50 / clients:g}", f"output_dir={folder}/{clients}")
    process = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-m", "fedimb", "run", *WORDS, *own, *words])
    _, status, usage = os.wait4(process, 0)
    assert status == 0
    (lines,) = (folder / str(clients)).glob("*/*/metrics.jsonl")
    rounds = [json.loads(line)["metrics"].get("time/round_s") for line in lines.read_text().splitlines()]
    return usage.ru_maxrss / 1024, float(np.quantile([one for one in rounds if one is not None][5:], 0.25))


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("availability", [1.0, 0.5])
def test_a_hundred_million_clients_take_the_memory_and_time_of_ten_thousand(tmp_path, monkeypatch, availability):
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    more = f"clients.availability={availability}"
    spent(1000, tmp_path, more, "rounds=2", "checkpoint.every=2", "evaluation.every=2")  # makes the store
    pairs = [[spent(n, tmp_path / str(i), more) for n in (10_000, 100_000_000)] for i in range(3)]
    memory, seconds = (np.median([[one[k] for one in pair] for pair in pairs], axis=0) for k in (0, 1))
    print(f"availability {availability}: 10^4 {memory[0]:.0f} MB, {seconds[0] * 1000:.1f} ms; 10^8 {memory[1]:.0f} MB, "
          f"{seconds[1] * 1000:.1f} ms")  # fmt: skip
    assert memory[1] - memory[0] < 20
    assert seconds[1] / seconds[0] < 1.2
