"""How long a simulated client takes for a training: download, its planned steps, upload.

log c_k = sigma (rho z_k + sqrt(1 - rho^2) eps_k); a training takes down_k + c_k steps_k step jitter + up_k nanoseconds.
z_k is the normal score of the client's rank by what slowness goes with, eps_k its own standard normal draw. No result
of a training enters, so a client that fails takes its planned time.

Factors are rounded to multiples of 2**-20, so that a last bit of another machine's exponential changes no time.
"""

import math
from statistics import NormalDist

import numpy as np

from fedimb.paces.base import SECOND, PaceSettings
from fedimb.seeds import Stream, numpy_rng

_BANDWIDTH_SIGMA = 0.5
_DOWN = 5  # times as fast as up


class Latency:
    """The times of a run's clients.

    Args:
        settings: of the clock.
        seed: run seed.
        steps: planned local steps [K] int64 of each client; 0 for one without rows.
        payload: bytes of the model, which go down and up.
        ranking: what slowness goes with, [K]: the larger, the slower; None: with nothing.
        extra: [K] int64 nanoseconds added to each client's times, or None.
    """

    def __init__(
        self,
        settings: PaceSettings,
        seed: int,
        steps: np.ndarray,
        payload: int,
        ranking: np.ndarray | None = None,
        extra: np.ndarray | None = None,
    ) -> None:
        self._settings, self._seed = settings, seed
        self.steps = np.asarray(steps, np.int64)
        count, trains = len(self.steps), self.steps > 0
        own = numpy_rng(seed, Stream.LATENCY).standard_normal(count)
        score = own.copy()
        if ranking is not None:
            ranks = normal_scores(np.asarray(ranking)[trains])
            score[trains] = settings.rho * ranks + math.sqrt(1 - settings.rho**2) * own[trains]
        self.factors = _rounded(np.exp(settings.sigma * score))
        self.slow = np.zeros(count, np.bool_)
        slowest = np.lexsort((own, np.where(trains, score, -np.inf)))  # of equal scores, by their own draw
        self.slow[slowest[count - int(settings.slow * trains.sum() + 0.5) :]] = True
        self.factors[self.slow] *= settings.slow_factor
        bandwidth = settings.mbit_s * _rounded(
            np.exp(_BANDWIDTH_SIGMA * numpy_rng(seed, Stream.BANDWIDTH).standard_normal(count))
        )
        up = np.rint(payload * 8 * SECOND / 1e6 / bandwidth)
        self._fixed = (up + np.rint(up / _DOWN)).astype(np.int64) + (0 if extra is None else extra)

    def expected(self, clients: np.ndarray) -> np.ndarray:
        """The time [n] int64 of these clients without jitter, in nanoseconds."""
        work = np.rint(self.factors[clients] * (self.steps[clients] * self._settings.step_s * SECOND))
        return np.maximum(1, work.astype(np.int64) + self._fixed[clients])

    def duration(self, client: int, dispatch: int) -> int:
        """The time of one training in nanoseconds, at least 1.

        Args:
            dispatch: number of the training in the run; with the client it decides the jitter.
        """
        jitter = 1.0
        if self._settings.jitter:
            draw = numpy_rng(self._seed, Stream.JITTER, dispatch, client).standard_normal()
            jitter = float(_rounded(np.exp(self._settings.jitter * draw)))
        work = float(self.factors[client]) * (int(self.steps[client]) * self._settings.step_s * SECOND) * jitter
        return max(1, round(work) + int(self._fixed[client]))


def _rounded(factors: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.maximum(1.0, np.rint(factors * 2.0**20)) / 2.0**20
    return found


def normal_scores(values: np.ndarray) -> np.ndarray:
    """The standard normal quantile of each value's rank [n]; equal values share the mean of their ranks.

    Example:
        >>> normal_scores(np.array([7, 1, 3])).round(2).tolist()
        [0.97, -0.97, 0.0]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    share = (np.cumsum(counts) - counts / 2) / max(1, len(values))
    inverse = NormalDist().inv_cdf
    return np.array([inverse(one) for one in share.tolist()])[place] if len(values) else np.zeros(0)
