"""A run whose learning rates change over rounds: the same on both trainers and after a resume, and in its metrics."""

import json

import pytest
from interrupted import interrupted, only_run
from small_runs import launch_in, weights_sha

from fedimb.serverapp.launch import resume

WORDS = ("engine=inline", "local.lr=0.2", "local.schedule={name: step, milestones: [1, 2], gamma: 0.5}")
SERVER = ("aggregator=fedavgm", "server_schedule={name: constant, warmup: 1, start: 0.5}")


def metrics(folder):
    return [json.loads(line)["metrics"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rates_are_logged_and_a_killed_run_goes_on_with_them(tmp_path):
    whole = launch_in(tmp_path / "whole", *WORDS, *SERVER)
    said = [line for line in metrics(whole.folder) if "train/lr" in line]
    assert [line["train/lr"] for line in said] == pytest.approx([0.2, 0.1, 0.05])
    assert [line["train/server_lr"] for line in said] == pytest.approx([0.5, 1.0, 1.0])
    with interrupted(2, after=True):
        launch_in(tmp_path / "killed", *WORDS, *SERVER)
    folder = only_run(tmp_path / "killed")
    assert weights_sha(resume(folder)) == weights_sha(whole)


@pytest.mark.slow
def test_ray_trains_with_the_same_rates(tmp_path):
    inline = launch_in(tmp_path / "inline", *WORDS)
    ray = launch_in(tmp_path / "ray", *WORDS[1:], "engine=ray")
    constant = launch_in(tmp_path / "constant", *WORDS[:2])
    assert weights_sha(inline) == weights_sha(ray) != weights_sha(constant)
