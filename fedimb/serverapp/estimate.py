"""The cost of a run, before it starts: steps and bytes are counted, minutes come from real rounds on this machine."""

import contextlib
import logging
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedimb.config.parts import with_pooled
from fedimb.data.prepare import prepare
from fedimb.rundir.folder import RunFolder
from fedimb.schema import RunConfig, ScheduleConfig
from fedimb.serverapp.assemble import build_method, check_parts
from fedimb.serverapp.client_sampler import ClientSampler
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar

_RAY_START_S = 4.5  # head and actors; measured 3-9 s on two cores, quiet and busy
_RAY_MESSAGE_S = 0.004  # dispatch and pickling of one lane


@dataclass(frozen=True)
class Estimate:
    """Cost of one run.

    Attributes:
        rounds, messages, steps: train messages and optimiser steps over all rounds and clients.
        up_bytes, down_bytes: payload over all clients and rounds.
        start_s, seconds: seconds of the engine's start, and of the rounds.
    """

    rounds: int
    messages: int
    steps: int
    up_bytes: int
    down_bytes: int
    start_s: float
    seconds: float

    @property
    def minutes(self) -> float:
        """Minutes of start and rounds together."""
        return (self.start_s + self.seconds) / 60

    def table(self) -> str:
        """The estimate as a text table."""
        return (
            f"rounds    {self.rounds:>12,}\n"
            f"messages  {self.messages:>12,}   train messages to clients\n"
            f"steps     {self.steps:>12,}   optimiser steps, all clients\n"
            f"up        {self.up_bytes / 1e6:>12,.2f}   MB clients send\n"
            f"down      {self.down_bytes / 1e6:>12,.2f}   MB clients receive\n"
            f"minutes   {self.minutes:>12.2f}   on this machine, {self.start_s:.0f} s of it to start the engine"
        )


@contextlib.contextmanager
def _unsaid_warnings() -> Iterator[None]:
    """What the probe warns of was said before it, or is about its few rounds."""
    log = logging.getLogger("fedimb")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def estimate(config: RunConfig) -> Estimate:
    """Cost of ``config`` on this machine.

    Steps are exact for a method that trains on every row, and an upper bound for others: the cohorts of all rounds are
    drawn as in the run. Bytes and seconds come from a few real rounds in this process (the first one includes torch's
    one-time costs) and are scaled.
    """
    federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    config = with_pooled(config, federation)
    check_parts(config, federation)
    sizes = federation.train_sizes
    client_sampler = ClientSampler(config.clients, config.seed, sizes)
    per_client = config.local.epochs * np.ceil(sizes / config.local.batch_size).astype(int)
    messages = steps = 0
    for server_round in range(1, config.rounds + 1):
        cohort = client_sampler.cohort(server_round)
        messages += len(cohort.asked)
        steps += int(sum(per_client[c] for c in cohort.asked if c not in cohort.lost))
    with tempfile.TemporaryDirectory() as scratch:
        quiet = {"engine": {"name": "inline"}, "tracking": {"name": "none"}, "output_dir": scratch}
        method: Any = build_method(config, federation.n_clients)[0]
        rounds = method.shortest()
        # A schedule is of all rounds, and costs nothing.
        local = config.local.model_copy(update={"schedule": ScheduleConfig()})
        unscheduled = {"local": local, "server_schedule": ScheduleConfig()}
        probe = config.model_copy(update={**quiet, **unscheduled, "rounds": rounds, "name": None})
        started = time.perf_counter()
        with _unsaid_warnings():
            result = launch(probe, progress=ProgressBar(rounds, enabled=False))
        lines = [line["metrics"] for line in RunFolder(Path(result.folder)).metrics()]
        overhead = max(0.0, time.perf_counter() - started - result.seconds)
    second = lines[-1]
    probed = max(1.0, second["data/participants"])
    rounds_messages = messages / config.rounds
    train_s = second["time/client_s"] / max(1.0, second["train/steps"]) * steps
    # The measured rounds include the initial queries, which the whole run makes only once.
    up = second["comm/up_bytes/train"] / probed * messages
    down = second["comm/down_bytes/train"] / probed * messages
    other_s = max(0.0, second["time/round_s"] - second["time/client_s"]) / probed * rounds_messages * config.rounds
    once_s = max(0.0, result.seconds - rounds * second["time/round_s"]) + overhead
    start_s = 0.0
    if config.engine["name"] == "ray":
        import os

        workers = config.engine.get("workers") or os.cpu_count() or 1
        train_s, other_s = train_s / workers, other_s / workers + messages * _RAY_MESSAGE_S / workers
        start_s = _RAY_START_S
    return Estimate(config.rounds, messages, steps, math.ceil(up), math.ceil(down), start_s, train_s + other_s + once_s)
