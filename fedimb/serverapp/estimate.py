"""The cost of a run, before it starts: steps and bytes are counted, minutes come from real rounds on this machine."""

import contextlib
import logging
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedimb.config.parts import build_model, with_pooled
from fedimb.data.held_out import FOLDS
from fedimb.data.prepare import prepare
from fedimb.rundir.folder import RunFolder
from fedimb.schema import RunConfig, ScheduleConfig
from fedimb.serverapp.aggregator import chain
from fedimb.serverapp.assemble import build_method, check_parts, payload_of
from fedimb.serverapp.client_sampler import ClientSampler
from fedimb.serverapp.launch import launch
from fedimb.serverapp.pacing import pacing_of
from fedimb.serverapp.progress import ProgressBar
from fedimb.serverapp.server import Server
from fedimb.serverapp.temperature import at_tau_one, fold_config, folds_needed, labelled_rows

_RAY_START_S = 4.5  # head and actors; measured 3-9 s on two cores, quiet and busy
_RAY_MESSAGE_S = 0.004  # dispatch and pickling of one lane


@dataclass(frozen=True)
class Estimate:
    """Cost of one run.

    Attributes:
        rounds, messages, steps: train messages and optimiser steps over all rounds and clients.
        up_bytes, down_bytes: payload over all clients and rounds.
        start_s, seconds: seconds of the engine's start, and of the rounds.
        folds: trainings without a fold that are made beside the run's, for a tau from held-out rows.
        fold_steps, fold_up_bytes, fold_down_bytes, fold_seconds: what these cost together, beside the other figures.
    """

    rounds: int
    messages: int
    steps: int
    up_bytes: int
    down_bytes: int
    start_s: float
    seconds: float
    folds: int = 0
    fold_steps: int = 0
    fold_up_bytes: int = 0
    fold_down_bytes: int = 0
    fold_seconds: float = 0.0

    @property
    def minutes(self) -> float:
        """Minutes of start, rounds and trainings without a fold together."""
        return (self.start_s + self.seconds + self.fold_seconds) / 60

    def table(self) -> str:
        """The estimate as a text table."""
        sent = (self.fold_up_bytes + self.fold_down_bytes) / 1e6
        folds = (
            f"folds     {self.folds:>12,}   trainings without a fold, beside the figures above:\n"
            f"{'':25}{self.fold_steps:,} steps, {sent:,.2f} MB, {self.fold_seconds / 60:.2f} of the minutes below\n"
        )
        return (
            f"rounds    {self.rounds:>12,}\n"
            f"messages  {self.messages:>12,}   train messages to clients\n"
            f"steps     {self.steps:>12,}   optimiser steps, all clients\n"
            f"up        {self.up_bytes / 1e6:>12,.2f}   MB clients send\n"
            f"down      {self.down_bytes / 1e6:>12,.2f}   MB clients receive\n"
            f"{folds if self.folds else ''}"
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
    one-time costs) and are scaled. Trainings without a fold are scaled by their rounds and steps.
    """
    federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    config = with_pooled(config, federation)
    check_parts(config, federation)
    sizes = federation.train_sizes
    model = build_model(config, federation.n_classes, federation.input_shape)
    sampler = ClientSampler(config.clients, config.seed, sizes)
    pacing = pacing_of(config, federation, sampler, payload_of(config, model))
    messages = steps = 0
    for asked, trained in pacing.planned(config.rounds):
        messages += asked
        steps += config.local.epochs * sum(-(-int(sizes[c]) // config.local.batch_size) for c in trained)
    with tempfile.TemporaryDirectory() as scratch:
        quiet = {"engine": {"name": "inline"}, "tracking": {"name": "none"}, "output_dir": scratch}
        method: Any = build_method(config, federation.n_clients)[0]
        methods: list[Any] = chain(method)[:-1]
        for part in methods:  # some know only by the data how few rounds they can run
            part.check_server(Server(config, federation))
        rounds = method.shortest()
        # A schedule is of all rounds, and costs nothing.
        local = config.local.model_copy(update={"schedule": ScheduleConfig()})
        unscheduled = {"local": local, "server_schedule": ScheduleConfig()}
        probe = at_tau_one(config.model_copy(update={**quiet, **unscheduled, "rounds": rounds, "name": None}))
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
    found = Estimate(
        config.rounds, messages, steps, math.ceil(up), math.ceil(down), start_s, train_s + other_s + once_s
    )
    return _with_folds(found, config, sizes, train_s, other_s)


def _with_folds(found: Estimate, config: RunConfig, sizes: np.ndarray, train_s: float, other_s: float) -> Estimate:
    """Add the trainings without a fold. At a client each fold has at least a fifth of its rows, rounded down."""
    if not (folds := folds_needed(config)):
        return found
    own = fold_config(config)
    rows = np.minimum(sizes, labelled_rows(config) or sizes)
    left = rows - rows // FOLDS
    share = own.rounds / config.rounds * found.messages / max(1, config.rounds * int((sizes > 0).sum()))
    steps = int(folds * share * config.rounds * own.local.epochs * np.ceil(left / own.local.batch_size).sum())
    part = folds * own.rounds / config.rounds
    seconds = train_s * steps / max(1, found.steps) + other_s * part
    return replace(
        found,
        folds=folds,
        fold_steps=steps,
        fold_up_bytes=math.ceil(found.up_bytes * part),
        fold_down_bytes=math.ceil(found.down_bytes * part),
        fold_seconds=seconds,
    )
