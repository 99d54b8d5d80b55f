"""How many samples of which class and device each client is to receive, and which ones of a pool.

Stage C of FedSSG (arXiv 2604.26324), all of it a reconstruction: the paper's allocation rule is not known.

    class deficit   a_ky = max(0, tau max_y' n_ky' - n_ky) * min(w_max, (F_max / F_y)^exponent)
    device split    q_k(d): rho_dev over the devices client k lacks, the rest over those it has, evenly in both
    target          m_kyd = a_ky q_k(d), scaled down to sum_yd m_kyd <= rho_syn n_k, rounded (`round_to_total`)

F_y is the share of class y over all clients. Added here: every ``balance`` gives a client the same number of samples,
so that the arms of an ablation differ in what is made and not in how much; the mask ``possible``; and the rounding.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.data.quotas import largest_remainder
from fedimb.errors import ConfigError, DataError

Counts = NDArray[np.int64]
Balance = Literal["both", "class", "device", "none"]
BALANCES = ("both", "class", "device", "none")


@dataclass(frozen=True)
class Plan:
    """How synthetic samples are allocated to clients.

    Args:
        balance: ``both``; ``class``: ignore devices (rho_dev 0); ``device``: treat all classes equally; ``none``.
        tau: each class is filled up to this share of the client's largest class, [0, 1].
        rho_dev: share of a client's samples from devices it lacks, [0, 1].
        rho_syn: maximum number of samples per real row of the client, >= 0.
        w_max: maximum weight of a globally rare class, >= 1.
        exponent: how fast the weight grows with rarity, >= 0.
        least_rows: rows of a device a client needs to count as having it; more than 1 where counts carry noise.

    Raises:
        ConfigError: a value out of range.
    """

    balance: Balance = "both"
    tau: float = 0.5
    rho_dev: float = 0.5
    rho_syn: float = 0.5
    w_max: float = 4.0
    exponent: float = 0.5
    least_rows: int = 1

    def __post_init__(self) -> None:
        if self.balance not in BALANCES:
            raise ConfigError(f"plan: balance={self.balance!r}: give one of {', '.join(BALANCES)}")
        for name, low, high in (
            ("tau", 0.0, 1.0),
            ("rho_dev", 0.0, 1.0),
            ("rho_syn", 0.0, 1e6),
            ("w_max", 1.0, 1e6),
            ("exponent", 0.0, 10.0),
            ("least_rows", 1, 1_000_000_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"plan: {name}={value}: give a number from {low:g} to {high:g}")


def sample_targets(counts: Counts, plan: Plan, possible: NDArray[np.bool_] | None = None) -> Counts:
    """Samples wanted per client, class and device: [K, C, D] int64.

    A client without rows gets none. A class that no client holds counts as the rarest (weight w_max): where it can be
    generated, clients receive it. For a client that has all devices the samples are spread over all of them.

    Args:
        counts: [K, C, D] >= 0, rows per client, class and device.
        possible: [C, D] bool, what a generator can make; what it cannot make of a class on one device is made on
            others. None: everything.

    Raises:
        DataError: invalid counts, or a mask of another shape.
    """
    counts = np.asarray(counts)
    if counts.ndim != 3 or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise DataError(f"a plan needs whole counts [K, C, D] of at least 0; got {counts.dtype} {list(counts.shape)}")
    if possible is not None and possible.shape != counts.shape[1:]:
        raise DataError(f"possible is {list(possible.shape)} beside counts {list(counts.shape)}; give [C, D]")
    makeable = np.ones(counts.shape[1:], dtype=bool) if possible is None else np.asarray(possible, dtype=bool)
    if plan.balance == "none":
        return np.zeros(counts.shape, dtype=np.int64)
    weight = _weight(counts.sum(axis=(0, 2)), plan)
    return np.stack([_client(k, rows, weight, makeable, plan) for k, rows in enumerate(counts.astype(np.int64))])


def _weight(per_class: Counts, plan: Plan) -> NDArray[np.float64]:
    """[C] float64 >= 1: min(w_max, (F_max / F_y)^exponent); w_max where F_y is 0 and the exponent is not."""
    if plan.exponent == 0:
        return np.ones(len(per_class))
    most = per_class.max(initial=0)
    ratio = np.where(per_class > 0, most / np.maximum(per_class, 1), np.inf)
    return np.minimum(plan.w_max, ratio**plan.exponent)


def _client(k: int, rows: Counts, weight: NDArray[np.float64], makeable: NDArray[np.bool_], plan: Plan) -> Counts:
    """Targets [C, D] of client k, which holds ``rows`` [C, D]."""
    per_class = rows.sum(axis=1)
    cells = makeable * _devices(rows.sum(axis=0), plan)
    total = cells.sum(axis=1, keepdims=True)
    per_cell = cells / np.where(total > 0, total, 1.0)
    able = makeable.any(axis=1).astype(np.float64)
    deficit = np.maximum(0.0, plan.tau * per_class.max(initial=0) - per_class) * weight * able
    amount = int(min(deficit.sum(), plan.rho_syn * per_class.sum()) + 1e-9)
    wish = (able if plan.balance == "device" else deficit).reshape(-1, 1) * per_cell
    if amount == 0 or wish.sum() == 0:
        return np.zeros_like(rows)
    return round_to_total(wish / wish.sum() * amount, amount, start=k)


def round_to_total(exact: NDArray[np.float64], total: int, start: int = 0) -> Counts:
    """Whole numbers [C, D] that sum to ``total`` and differ from ``exact`` by less than one each.

    Largest remainder, one unit at a time, where what the whole class and the whole device still lack counts too: going
    by cells alone, a client that wants one or two samples of each class would get them all on its own device. Ties go
    to the class and device numbered ``start``, then to those after it, so that no class comes first at every client.

    Args:
        exact: [C, D] >= 0, summing to ``total``.
    """
    shift = (-start % exact.shape[0], -start % exact.shape[1])
    rolled = np.roll(exact, shift, axis=(0, 1))
    given = np.floor(rolled + 1e-9)
    lacking = rolled - given
    closed = lacking < 1e-9
    for _ in range(total - int(given.sum())):
        urgent = lacking + lacking.sum(axis=1, keepdims=True) + lacking.sum(axis=0, keepdims=True)
        cell = np.unravel_index(np.where(closed, -np.inf, urgent.round(9)).argmax(), urgent.shape)
        given[cell] += 1
        lacking[cell] -= 1
        closed[cell] = True
    return np.roll(given, (start, start), axis=(0, 1)).astype(np.int64)


def _devices(per_device: Counts, plan: Plan) -> NDArray[np.float64]:
    """q_k [D]; every device gets a tiny share, so that a class that only other devices can supply is still made."""
    has = per_device >= plan.least_rows
    missing = 0.0 if plan.balance == "class" else plan.rho_dev
    share = np.zeros(len(per_device))
    for group, weight in ((has, 1 - missing), (~has, missing)):
        if group.any():
            share[group] = weight / group.sum()
    return np.maximum(share, 1e-12)


def pool_sizes(wanted: Counts, own: bool = False) -> Counts:
    """Samples to make per class and device, [C, D]: the most that any client wants; with ``own`` pools, the sum."""
    if len(wanted) == 0:
        return np.zeros(wanted.shape[1:], dtype=np.int64)
    return (wanted.sum(axis=0) if own else wanted.max(axis=0)).astype(np.int64)


def assign(
    wanted: Counts, y: NDArray[np.int64], d: NDArray[np.int64], rng: np.random.Generator, own: bool = False
) -> list[NDArray[np.int64]]:
    """Which samples of a pool each client receives: K sorted int64 arrays of distinct positions.

    Shared pool: every client draws its own random subset of each cell. ``own``: no sample goes to two clients. Where a
    cell holds too few (the gate dropped some), clients of a shared pool get all of them, and with ``own`` pools they
    are split in proportion to what was wanted.

    Args:
        wanted: [K, C, D], see `sample_targets`.
        y, d: [n] class and device of each sample in the pool.
        rng: source of all randomness.
    """
    chosen: list[list[NDArray[np.int64]]] = [[] for _ in wanted]
    for c, device in np.argwhere(wanted.sum(axis=0) > 0):
        cell = np.flatnonzero((y == c) & (d == device))
        asked = wanted[:, c, device]
        if own:
            given = asked if asked.sum() <= len(cell) else largest_remainder(asked / asked.sum(), len(cell))
            parts = np.split(rng.permutation(cell)[: given.sum()], np.cumsum(given)[:-1])
        else:
            parts = [rng.permutation(cell)[:size] if size else cell[:0] for size in asked]
        for k, part in enumerate(parts):
            chosen[k].append(part)
    return [np.sort(np.concatenate(parts)).astype(np.int64) if parts else np.zeros(0, np.int64) for parts in chosen]


def plan_report(
    counts: Counts,
    wanted: Counts,
    plan: Plan,
    class_names: tuple[str, ...],
    device_names: tuple[str, ...],
    given: Counts | None = None,
) -> dict[str, object]:
    """The plan as a JSON-serializable report.

    Args:
        counts, wanted: [K, C, D].
        given: [K, C, D], what the clients actually received, where that is known.
    """
    rows = counts.sum(axis=(1, 2))
    report: dict[str, object] = {
        "plan": asdict(plan),
        "classes": list(class_names),
        "devices": list(device_names),
        "real": counts.tolist(),
        "wanted": wanted.tolist(),
        "by_client": wanted.sum(axis=(1, 2)).tolist(),
        "by_class": wanted.sum(axis=(0, 2)).tolist(),
        "by_device": wanted.sum(axis=(0, 1)).tolist(),
        "capped_clients": [int(k) for k in np.flatnonzero(_capped(counts, wanted, plan))],
        "samples_per_real_row": [
            None if n == 0 else float(m / n) for n, m in zip(rows, wanted.sum((1, 2)), strict=True)
        ],
        "pool_shared": int(pool_sizes(wanted).sum()),
        "pool_own": int(pool_sizes(wanted, own=True).sum()),
    }
    if given is not None:
        report["given"] = given.tolist()
        report["short"] = int((wanted - given).sum())
    return report


def _capped(counts: Counts, wanted: Counts, plan: Plan) -> NDArray[np.bool_]:
    """[K] bool: whether a client received as many samples as rho_syn allows."""
    rows, made = counts.sum(axis=(1, 2)), wanted.sum(axis=(1, 2))
    return (made > 0) & (made >= np.floor(plan.rho_syn * rows + 1e-9))


def cells(sizes: Counts) -> tuple[Tensor, Tensor]:
    """Class and device (int64 [n] each) of every sample of ``sizes`` [C, D], class by class."""
    label, device = np.nonzero(sizes)
    times = sizes[label, device]
    return torch.from_numpy(np.repeat(label, times)), torch.from_numpy(np.repeat(device, times))


def divide_among_clients(sizes: Counts, counts: Counts) -> Counts:
    """How much of a pool [C, D] each client has to make: [K, C, D], in proportion to its rows of the class.

    Samples of a device are made by the clients that hold the class on that device; if there are none, nobody makes
    them.
    """
    shares = np.zeros_like(counts)
    for label, device in np.argwhere(sizes > 0):
        held = counts[:, label, device]
        if held.any():
            shares[:, label, device] = largest_remainder(held / held.sum(), int(sizes[label, device]))
    return shares
