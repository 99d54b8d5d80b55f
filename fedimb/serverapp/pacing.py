"""A run's pace, bound to its clients: cohorts with their times, or the schedule of a training without rounds."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fedimb import registry
from fedimb.data.federation import Federation
from fedimb.errors import RunFailed
from fedimb.paces.asynchronous import AsynchronousPace
from fedimb.paces.base import SECOND, Pace, RoundPace
from fedimb.paces.latency import Latency
from fedimb.paces.schedule import Dispatch, Rules, Version, schedule
from fedimb.schema import ClientsConfig, RunConfig
from fedimb.seeds import Stream, numpy_rng
from fedimb.serverapp.client_sampler import ClientSampler, Cohort


class Pacing:
    """Who is asked and who is in time in each round of the global model.

    Args:
        pace: of the run.
        latency: how long clients take; None: the clock does not run.
        sampler: of the clients.
        config: participation and simulated failures.
        seed: run seed.

    Raises:
        ConfigError: a setting of the pace that does not suit these clients.
    """

    def __init__(
        self, pace: Pace, latency: Latency | None, sampler: ClientSampler, config: ClientsConfig, seed: int
    ) -> None:
        self.pace, self.latency, self._sampler, self._config, self._seed = pace, latency, sampler, config, seed
        if isinstance(pace, RoundPace) and latency is not None:
            pace.prepare(sampler.eligible, latency.expected(sampler.eligible))
        if isinstance(pace, AsynchronousPace):
            self.concurrency, self.buffer = pace.sizes(sampler.per_round(), len(sampler.eligible))

    def cohort(self, server_round: int) -> Cohort:
        """The round's cohort, with the clients that are late and the time it takes."""
        pace, latency = self.pace, self.latency
        assert isinstance(pace, RoundPace)
        if latency is None:
            return self._sampler.cohort(server_round)
        pool = pace.pool(numpy_rng(self._seed, Stream.TIER, server_round))
        cohort = self._sampler.cohort(server_round, among=None if pool is None else pool.clients, asks=pace.asks)
        size = min(self._sampler.per_round(), len(cohort.asked))
        planned = sorted((latency.duration(c, server_round), c) for c in cohort.asked)
        coming = [(time, c) for time, c in planned if c not in cohort.lost]
        lost = [time for time, c in planned if c in cohort.lost]
        taken, ns = pace.closes([time for time, _ in coming], size, lost)
        late = frozenset(client for _, client in coming[taken:])
        return replace(cohort, late=late, ns=ns, virtual_s=0.0, step=1.0 if pool is None else pool.step)

    def least(self, cohort: Cohort, fraction: float, where: str) -> float | None:
        """The fraction of the replies waited for that must be usable, where late ones count as failed.

        Args:
            fraction: of all that were asked (``clients.min_reply_fraction``).

        Returns:
            None where late clients do not count.

        Raises:
            RunFailed: already too few are in time.
        """
        if not isinstance(self.pace, RoundPace) or not self.pace.late_fail or not cohort.late:
            return None
        asked, waited = len(cohort.asked), len(cohort.asked) - len(cohort.late)
        if waited < fraction * asked:
            raise RunFailed(
                f"{where}: only {waited} of {asked} clients are in time (clients.min_reply_fraction={fraction:g}); "
                "give them longer (pace.after_s, pace.quantile), or lower clients.min_reply_fraction"
            )
        return fraction * asked / waited if waited else None

    @property
    def timed(self) -> bool:
        """Whether a virtual clock runs: between sites there is none."""
        return self.latency is not None

    @property
    def asynchronous(self) -> AsynchronousPace:
        """The pace of a training without rounds."""
        assert isinstance(self.pace, AsynchronousPace)
        return self.pace

    def steps(self, clients: Sequence[int]) -> int:
        """Planned local steps of these clients together; 0 without a clock."""
        return 0 if self.latency is None else int(self.latency.steps[list(clients)].sum())

    def planned(self, rounds: int) -> list[tuple[int, list[int]]]:
        """Of each round, or version of the model: how many clients are asked, and which of them train for it."""
        if self.pace.asynchronous:
            return [
                (len(version.starts), [one.client for one in version.starts if one.makes is not None])
                for version in self.versions(rounds, 0)
            ]
        cohorts = [self.cohort(server_round) for server_round in range(1, rounds + 1)]
        return [(len(one.asked), [c for c in one.asked if c not in one.lost and c not in one.late]) for one in cohorts]

    def versions(self, count: int, before: int) -> list[Version]:
        """The schedule of ``count`` versions of the model, without rounds.

        Args:
            before: versions of the run made before, which give other draws.
        """
        latency = self.latency
        assert latency is not None
        first = before << 32  # numbers of trainings begin anew with each step of the program
        return schedule(
            count, self.rules(), lambda client, number: latency.duration(client, first + number), self._draws(before)
        )

    def dispatch(self, before: int) -> Dispatch:
        """Who begins, where arrivals are not known before.

        Args:
            before: versions of the run made before, which give other draws.
        """
        return Dispatch(self.rules(), self._draws(before))

    def rules(self) -> Rules:
        """What a training without rounds follows."""
        settings, config = self.asynchronous.settings, self._config
        return Rules(
            self._sampler.eligible,
            self.concurrency,
            self.buffer,
            settings.max_staleness,
            settings.correction,
            config.availability,
            config.dropout,
        )

    def _draws(self, before: int) -> Callable[[int], np.random.Generator]:
        return lambda number: numpy_rng(self._seed, Stream.DISPATCH, number, before)


def pacing_of(
    config: RunConfig, federation: Federation, sampler: ClientSampler, payload: int, live: bool = False
) -> Pacing:
    """The configured pace, bound to a federation's clients.

    A training is planned as ``local.epochs`` passes over the client's rows, whatever a method or resampler makes of
    them. ``clients.slow_delay_s`` is added to the times of the clients that ``clients.slow`` makes slow.

    Args:
        payload: bytes of the model's weights and buffers that are sent.
        live: replies come by themselves, and no virtual clock says when.

    Raises:
        ConfigError: a setting of the pace that does not suit these clients.
    """
    args = {key: value for key, value in config.pace.items() if key != "name"}
    pace: Pace = registry.build("pace", config.pace["name"], **args)
    latency = None
    if pace.timed and not live:
        steps = config.local.epochs * -(-sampler.sizes // config.local.batch_size)
        extra = sampler.slow * np.int64(round(config.clients.slow_delay_s * SECOND)) if config.clients.slow else None
        ranking = _ranking(pace.settings.correlate, federation)
        latency = Latency(pace.settings, config.seed, steps, payload, ranking, extra)
    return Pacing(pace, latency, sampler, config.clients, config.seed)


def _ranking(correlate: str, federation: Federation) -> np.ndarray | None:
    """What slowness goes with, [K]: each client's share of minority rows, or its rows; None: nothing."""
    if correlate == "none":
        return None
    rows = federation.train_sizes
    if correlate == "size":
        return rows
    held = federation.counts[:, list(federation.minority)].sum(axis=1)
    found: np.ndarray = held / np.maximum(1, rows)
    return found
