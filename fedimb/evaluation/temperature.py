"""The temperature of a model: the divisor of its logits under which held-out rows have the least log loss.

If softmax(z / T) is a model's calibrated posterior (Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural
Networks", ICML 2017), the Bayes rule for the balanced error is argmax z - T log pi: the strength of post-hoc logit
adjustment is the temperature, and tau = 1 assumes a calibrated model. A party with held-out rows adds up their log loss
at 37 temperatures; only these sums are needed, over any number of parties.

Every row's loss is rounded to a whole unit before it is added, so that neither the order of parties nor which rows they
hold changes a bit of the sum.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.errors import DataError

TEMPERATURES: tuple[float, ...] = tuple(2.0 ** (step / 6 - 2) for step in range(37))
"""From 1/4 to 16, each 2^(1/6) times the one before; 1 is among them."""
ONE_FOLD = (0.5, 8.0)
"""Range of the temperature found on one fold: on few rows the least log loss runs away."""
UNIT = 2.0**-20
"""Nats of one unit of the sums."""
MOST_LOSS = 10_000.0
"""Nats that one row adds at most: sums over 10^8 rows then fit into 64 bits."""


def loss_sums(logits: Tensor, y: Tensor) -> NDArray[np.int64]:
    """Log loss of rows at every temperature, summed in units of 2^-20 nats.

    Args:
        logits: [n, C] float.
        y: [n] int64 class ids.

    Returns:
        [37] int64.

    Raises:
        DataError: logits that are not finite.
    """
    if not torch.isfinite(logits).all():
        raise DataError("logits of held-out rows are NaN or infinite: the model has diverged; lower local.lr")
    shifted = logits.detach().cpu().double()
    shifted = shifted - shifted.max(dim=1, keepdim=True).values if len(shifted) else shifted
    own = shifted.gather(1, y.cpu()[:, None])[:, 0]
    sums = []
    for temperature in TEMPERATURES:
        loss = torch.logsumexp(shifted / temperature, dim=1) - own / temperature
        sums.append(int(torch.round(loss.clamp(0, MOST_LOSS) / UNIT).to(torch.int64).sum()))
    return np.array(sums, np.int64)


def mean_losses(sums: NDArray[np.int64], rows: int) -> list[float]:
    """Mean log loss per row in nats, at every temperature; NaN without rows."""
    return [float(one) * UNIT / rows if rows else math.nan for one in sums]


def best_temperature(sums: NDArray[np.int64], within: Sequence[float] = (0.0, math.inf)) -> float:
    """The temperature of the least log loss; of equal ones that nearest to 1.

    Args:
        sums: [37], of `loss_sums`.
        within: lowest and highest temperature allowed.

    Example:
        >>> z, y = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0, 1, 1])
        >>> round(best_temperature(loss_sums(z, y)), 2)  # surer (.98) than right (.75): 4 / log 3 = 3.64
        3.56
    """
    low, high = within
    allowed = [i for i, temperature in enumerate(TEMPERATURES) if low <= temperature <= high]
    return TEMPERATURES[min(allowed, key=lambda i: (int(sums[i]), abs(math.log(TEMPERATURES[i]))))]


def at_edge(temperature: float, within: Sequence[float] = (0.0, math.inf)) -> bool:
    """Whether it is the lowest or the highest allowed: the least log loss may lie beyond."""
    allowed = [one for one in TEMPERATURES if within[0] <= one <= within[1]]
    return temperature in (allowed[0], allowed[-1])
